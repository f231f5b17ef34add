"""`diffuse eval images=`: what is real is the data itself, and what a file says is used."""

import numpy as np
import pytest
import torch
from PIL import Image

from diffuse import assembly, passport
from diffuse.assembly import real_sets
from diffuse.classifier import new_classifier
from diffuse.data import open_dataset
from diffuse.encoders import load_encoder, save_encoder
from diffuse.scoring import rows_of
from diffuse.seeds import generator

LINE = "eval device=cpu encoder=pixels kid_subsets=3 kid_subset_size=10"
FITS = ("none", "pad", "resize")


@pytest.fixture
def theirs(tmp_path):
    """The test split itself, as an .npy."""
    images = open_dataset({"name": "digits"}, "test").images[:, 0].numpy()
    np.save(tmp_path / "theirs.npy", images)
    return images


@pytest.fixture
def classifier(tmp_path):
    """The words for a classifier of digits that has learned nothing."""
    net = new_classifier(channels=1, classes=10, width=8, blocks=(1, 1), seed=0).eval()
    about = {"name": "digits-classifier", "channels": 1, "height": 8, "width": 8}
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, net, about | {"classes": [str(k) for k in range(10)]})
    return f"encoder=classifier encoder.path={path.name}"


def test_what_is_judged_by_is_the_data_itself_whatever_size_a_network_sees():
    plain = [open_dataset({"name": "digits", "subset": 9}, split) for split in ("train", "test")]
    for fit in FITS:
        found = real_sets({"name": "digits", "subset": 9, "fit": fit})
        for one, other in zip(found, plain, strict=True):
            assert one.sha256 == other.sha256
            assert torch.equal(one.images, other.images)


def test_a_run_of_ours_is_judged_by_the_images_that_it_keeps(trained, diffuse):
    """Not by the sheet of samples that lies beside them."""
    line, found = f"{LINE} dataset=digits images=outputs/sample", []
    for name in ("png", "npy", "npz"):
        assert diffuse(f"sample n=12 steps=2 device=cpu name={name} save={name}") == 0
        found.append(diffuse.json(f"{line}/{name}/latest"))
        kept = {"png": "images"}.get(name, f"images.{name}")
        assert found[-1]["source"]["path"].endswith(f"{name}/latest/{kept}")
    assert len({record["fid"]["value"] for record in found}) == 1
    assert diffuse("sample n=12 steps=2 device=cpu name=none") == 0
    assert "is a run that keeps no images: save=" in diffuse.error(f"{line}/none/latest", 3)


@pytest.mark.slow
def test_the_test_images_are_at_no_distance_from_themselves_whatever_the_fit(theirs, diffuse):
    line, found = f"{LINE} images=theirs.npy dataset=digits", []
    for fit in FITS:
        found.append(record := diffuse.json(f"{line} dataset.fit={fit}"))
        assert record["fid"]["value"] == pytest.approx(0, abs=1e-6)
        assert not any("range" in line for line in record["warnings"])
        for key in ("reference", "real", "fid"):
            assert record[key] == found[0][key]


@pytest.mark.slow
@pytest.mark.parametrize("fit", ["pad", "resize"])
def test_runs_of_every_fit_are_judged_by_the_same_images_and_can_be_compared(
    fit, trained, diffuse, monkeypatch
):
    seen, judge = [], assembly.judge
    sets = [split.sha256 for split in real_sets({"name": "digits", "subset": 64})]
    monkeypatch.setattr(
        assembly, "judge", lambda cfg, **both: seen.append(both) or judge(cfg, **both)
    )
    quick = "train.steps=1 train.sample_every=null train.eval_every=1 train.eval_n=8"
    assert diffuse.train(f"{quick} dataset.fit={fit} name=other encoder=pixels") == 0
    line = "device=cpu encoder=pixels"
    short = f"{LINE} n=16 steps=2"
    assert diffuse(f"pareto {line} n=8 samplers=[ddim] nfe=[2] run=other") == 0
    assert diffuse(f"plot fid_trajectory {line} n=4 steps=2 run=other") == 0
    words = f"dataset=digits dataset.subset=64 dataset.fit={fit}"
    assert diffuse(f"plot preprocessing {words} n=40 {line}") == 0
    ours, other = (diffuse.json(f"{short} run={name}") for name in ("tiny", "other"))
    assert len(seen) == 6
    assert all([both[key].sha256 for key in ("train", "test")] == sets for both in seen)
    assert all(other[key] == ours[key] for key in ("reference", "real"))
    assert other["fid"]["floor"] == ours["fid"]["floor"]
    assert passport.differing([ours, other], passport.SAME) == []
    assert diffuse(f"compare {ours['folder']} {other['folder']}") == 0


def test_gray_images_in_three_channels_are_compared_as_gray_ones(theirs, diffuse, tmp_path):
    np.save(tmp_path / "rgb.npy", theirs[..., None].repeat(3, -1))
    plain, rgb = (diffuse.json(f"{LINE} images={n}.npy dataset=digits") for n in ("theirs", "rgb"))
    assert "rgb.npy: R = G = B everywhere" in diffuse.err
    assert rgb["fid"] == plain["fid"]
    assert rgb["source"]["sha256"] == plain["source"]["sha256"]


@pytest.mark.slow
def test_labels_in_a_file_are_the_classes_that_were_asked_for(classifier, trained, diffuse):
    line = f"eval device=cpu metrics=[fid,agreement,per_class] {classifier}"
    ours = diffuse.json(f"{line} n=44 steps=2 save=npz")
    line = f"{line} dataset=digits dataset.subset=64 images={ours['folder']}/images.npz"
    theirs = diffuse.json(line)
    assert "its labels count as the classes that were asked for" in diffuse.err
    assert theirs["metrics"] == ours["metrics"]
    assert len(theirs["source"]["labels"]) == 64
    with np.load(f"{ours['folder']}/images.npz") as file:
        images, labels = (torch.from_numpy(file[key]) for key in ("images", "labels"))
    right = rows_of(load_encoder("encoder.safetensors"), images[:, None]).probabilities
    right = (right.argmax(1) == labels)[torch.randperm(44, generator=generator(0, "chosen"))[:20]]
    fewer = diffuse.json(f"{line} n=20".replace(",per_class", ""))
    assert fewer["metrics"]["agreement"]["value"] == pytest.approx(right.double().mean().item())


def test_labels_that_are_no_classes_of_the_data_are_ignored_with_a_warning(
    theirs, diffuse, tmp_path
):
    np.savez(tmp_path / "a.npz", images=theirs, labels=np.arange(len(theirs)))
    line = f"{LINE} images=a.npz dataset=digits"
    record = diffuse.json(line)
    assert "labels are ignored: they are 0 to 359, classes 0 to 9" in diffuse.err
    assert "labels" not in record["source"]
    assert "no per_class here" in diffuse.error(f"{line} metrics=[per_class]")


def test_the_passport_says_which_numbers_were_read_and_that_there_is_no_floor(
    theirs, diffuse, tmp_path
):
    np.savez(tmp_path / "stats.npz", mu=np.zeros(64), sigma=np.eye(64))
    alone = diffuse.json(f"{LINE} images=theirs.npy reference=stats.npz")
    assert (alone["range"], alone["dtype"]) == ([0, 255], "uint8")
    assert len(alone["code"]) == 64
    assert [line for line in alone["warnings"] if "there is no floor" in line]
    assert "there is no floor" in diffuse.err
    both = diffuse.json(f"{LINE} images=theirs.npy reference=stats.npz dataset=digits")
    assert "floor" in both["fid"]
    assert not [line for line in alone["warnings"] if "trained on other images" in line]
    assert not [line for line in both["warnings"] if "no floor" in line]
    assert [line for line in both["warnings"] if "the floor is too low" in line]
    np.savez(tmp_path / "stats.npz", mu=np.zeros(64), sigma=np.eye(64), n=360)
    told = diffuse.json(f"{LINE} images=theirs.npy reference=stats.npz dataset=digits")
    assert not [line for line in told["warnings"] if "the floor is too low" in line]


@pytest.mark.parametrize("lossy", ["images", "reference"])
def test_a_record_says_that_images_were_compressed_with_loss(lossy, diffuse, tmp_path):
    """Whichever of the two: a FID sees it in both."""
    pixels = open_dataset({"name": "digits"}, "test").images[:8, 0].numpy()
    for name, suffix in (("jpegs", "jpg"), ("pngs", "png")):
        (tmp_path / name).mkdir()
        for k, picture in enumerate(pixels):
            Image.fromarray(picture).save(tmp_path / name / f"{k}.{suffix}")
    which = "images=jpegs reference=pngs" if lossy == "images" else "images=pngs reference=jpegs"
    record = diffuse.json(f"eval device=cpu encoder=pixels kid_subsets=2 kid_subset_size=4 {which}")
    said = "8 images are compressed with loss, which a FID sees: jpegs/0.jpg"
    assert record["warnings"].count(said) == 1
    assert diffuse.err.count(said) == 1


def test_images_alone_are_compared_with_the_data_of_the_newest_run(theirs, trained, diffuse):
    alone = diffuse.json(f"{LINE} images=theirs.npy")
    assert (
        "compared with digits, the data of the newest run, outputs/train/tiny/v001" in diffuse.err
    )
    said = diffuse.json(f"{LINE} images=theirs.npy dataset=digits dataset.subset=64")
    assert alone["fid"] == said["fid"]
    assert alone["reference"] == said["reference"]
    assert str(trained) not in str(alone)


def test_a_class_with_fewer_training_images_than_are_scored_has_a_floor_of_those(diffuse, tmp_path):
    rng = np.random.default_rng(0)
    for split, counts in (("train", (80, 6)), ("test", (8, 8))):
        for name, count in zip("ab", counts, strict=True):
            (folder := tmp_path / "data" / split / name).mkdir(parents=True)
            for k in range(count):
                pixels = rng.integers(256, size=(8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{k}.png")
    labels = np.arange(40) % 2
    np.savez("a.npz", images=rng.integers(256, size=(40, 8, 8), dtype=np.uint8), labels=labels)
    line = f"{LINE} images=a.npz dataset=folder dataset.root=data"
    record = diffuse.json(f"{line} metrics=[per_class]")
    assert record["metrics"]["per_class"]["floor_counts"] == [20, 6]
    said = "the floor of class b is of 6 training images, all there are: of 20 it would be lower"
    assert said in record["warnings"]
    assert said not in diffuse.json(f"{line} metrics=[fid]")["warnings"]
