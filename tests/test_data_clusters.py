"""Groups of images that look alike: equal in size, the same for everybody, and about something."""

from pathlib import Path

import numpy as np
import pytest
import torch
from leftovers import begin_with

from diffuse import runs
from diffuse.data import open_dataset, open_splits
from diffuse.data.clusters import clusters
from diffuse.errors import ConfigError


def noise(n, shape=(1, 8, 8), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, *shape), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(("n", "k"), [(5, 3), (64, 8), (100, 7), (101, 13), (33, 33), (200, 64)])
def test_groups_differ_by_one_image_at_most(n, k):
    images = noise(n)
    counts = clusters(images, k).bincount(minlength=k)
    assert len(counts) == k
    assert counts.max() - counts.min() <= 1


def test_images_that_are_all_the_same_fill_every_group():
    images = torch.cat([noise(20), torch.full((80, 1, 8, 8), 7, dtype=torch.uint8)])
    assert clusters(images, 10).bincount().tolist() == [10] * 10


def test_well_apart_groups_are_found_and_new_images_find_theirs():
    centres = torch.zeros(4, 1, 8, 8)
    centres[1, :, :4], centres[2, :, 4:], centres[3] = 200, 100, 200
    kinds = torch.arange(120) % 4
    images = (centres[kinds] + noise(120) / 16).to(torch.uint8)
    found = clusters(images[:80], 4, images)
    assert len(set(zip(kinds.tolist(), found.tolist(), strict=True))) == 4


def test_the_first_bit_is_the_side_of_the_first_principal_component():
    images = noise(200)
    rows = images.flatten(1).numpy().astype(float)
    along = (rows - rows.mean(0)) @ np.linalg.svd(rows - rows.mean(0))[2][0]
    upper = torch.from_numpy(along > np.median(along))
    found = clusters(images, 8) % 2 == 1
    assert torch.equal(found, upper) or torch.equal(found, ~upper)


def test_neither_the_order_of_the_images_nor_who_asks_matters():
    images, order = noise(150, (3, 20, 12)), torch.randperm(150)
    found = clusters(images, 16)
    assert torch.equal(clusters(images[order], 16, images), found)
    assert torch.equal(clusters(images, 16, images[order[:9]]), found[order[:9]])


def test_groups_of_digits_tell_the_digit_of_training_and_of_test_images():
    for plain, grouped in zip(
        open_splits({"name": "digits"}),
        open_splits({"name": "digits", "clusters": 32}),
        strict=True,
    ):
        assert torch.equal(plain.images, grouped.images)
        assert plain.sha256 == grouped.sha256  # so their FIDs can be compared
        table = torch.zeros(32, 10)
        table.index_put_((grouped.labels, plain.labels), torch.ones(len(plain)), accumulate=True)
        assert table.amax(1).sum() / len(plain) > 0.6  # 0.1 by chance
    assert grouped.spec.classes[:2] == ("cluster0", "cluster1")


def test_groups_are_made_of_the_images_that_are_trained_on():
    few = open_dataset({"name": "digits", "classes": [0, 1], "subset": 60, "clusters": 4}, "train")
    assert few.labels.bincount().tolist() == [15] * 4


@pytest.mark.parametrize(
    ("clusters", "told"), [(1, ">= 2"), (True, "integer"), (2.5, "integer"), (1438, "at most 1437")]
)
def test_impossible_groups_are_refused(clusters, told):
    with pytest.raises(ConfigError, match=told):
        open_dataset({"name": "digits", "clusters": clusters}, "train")


def test_a_training_with_groups_draws_and_is_scored_as_one_with_classes(diffuse):
    assert diffuse.train("dataset.clusters=4 train.steps=2 train.lr_schedule=constant") == 0
    assert diffuse.json("sample n=3 label=cluster2")["sampler"]["label_name"] == "cluster2"
    line = "eval n=24 steps=2 encoder=pixels metrics=[fid]"
    known = diffuse.json(f"{line} dataset=digits dataset.subset=64")
    assert len(known["warnings"]) == 1
    assert "n=24 is less than the 64 features" in known["warnings"][0]
    assert diffuse("plot denoise") == 0
    assert "learnt from other images" not in diffuse.err
    told = diffuse.error(line.replace("fid", "per_class"))
    assert "not of several classes" in told
    assert diffuse("sample n=4 save=npz") == 0
    [saved] = Path("outputs/sample/tiny/v002").rglob("*.npz")
    assert "labels" not in np.load(saved)  # or they would count as classes in diffuse eval images=
    assert diffuse.train("name=plain train.steps=2") == 0
    other = diffuse.json(line)
    assert known["reference"]["sha256"] == other["reference"]["sha256"]
    assert diffuse("compare tiny plain") == 0
    again = [diffuse.json(f"{line} run=tiny label=cluster3 known=true")["folder"] for _ in "ab"]
    assert again[0] == again[1]
    for run in ("tiny", "plain"):
        assert diffuse(f"{line} run={run} label=3") == 0
    assert "sampler.label" in diffuse.error("compare tiny plain")
    words = "name=tiny resume=auto train.lr_schedule=constant"
    assert diffuse.train(f"{words} dataset.clusters=5 train.steps=3") == 2
    assert "dataset.clusters: 4 there, 5 here" in diffuse.err
    assert diffuse.train(f"{words} dataset.clusters=4 train.steps=3") == 0


def test_a_run_of_before_there_were_groups_goes_on(diffuse):
    assert diffuse.train("train.steps=2 train.lr_schedule=constant") == 0
    run = Path("outputs/train/tiny/v001")
    begin_with(run, "  clusters: null\n", "")
    assert diffuse.train("train.steps=3 train.lr_schedule=constant resume=auto") == 0
    assert runs.read(run)["step"] == 3


def test_an_encoder_does_not_learn_groups(diffuse):
    assert diffuse("encoder dataset=digits dataset.clusters=4") == 2
    assert "dataset.clusters: an encoder learns classes" in diffuse.err
