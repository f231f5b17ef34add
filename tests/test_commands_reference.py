"""`reference=`: images in every form, of the size of what is scored, encoded once and looked at."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from diffuse.data import open_dataset, to_range, to_uint8

LINE = "eval device=cpu encoder=pixels images=theirs.npy"
RUN = "eval n=8 steps=2 device=cpu encoder=pixels kid_subsets=2 kid_subset_size=4"


def digits(split):
    return open_dataset({"name": "digits"}, split).images[:, 0].numpy()


@pytest.fixture
def reals(tmp_path):
    """40 real digits in a folder, and 60 others as an .npy."""
    images = digits("test")[:40]
    (tmp_path / "reals").mkdir()
    for k, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"reals/{k}.png")
    np.save(tmp_path / "theirs.npy", digits("train")[:60])
    return images


FORMS = {
    "a.npy": lambda path, images: np.save(path, images),
    "a.npz": lambda path, images: np.savez(path, images=images, labels=np.arange(len(images))),
    "b.npz": lambda path, images: np.savez(path, arr_0=images[..., None].repeat(3, -1)),
    "a.pt": lambda path, images: torch.save({"images": torch.from_numpy(images)}, path),
    "a.safetensors": lambda path, images: save_file({"samples": torch.from_numpy(images)}, path),
}


@pytest.mark.parametrize("name", FORMS)
def test_images_are_a_reference_in_every_form_that_images_have(name, reals, diffuse, tmp_path):
    FORMS[name](tmp_path / name, reals)
    folder, array = (diffuse.json(f"{LINE} reference={ref}") for ref in ("reals", name))
    assert array["fid"] == folder["fid"]
    assert array["reference"]["n"] == 40
    assert array["reference"] == folder["reference"] | {"path": name}


def test_gray_images_in_rgb_count_as_gray_beside_a_gray_reference(reals, diffuse, tmp_path):
    gray = np.load(tmp_path / "theirs.npy")
    np.save(tmp_path / "rgb.npy", gray[..., None].repeat(3, -1))
    line = f"{LINE.replace('theirs', 'rgb')} reference=reals"
    assert diffuse.json(line)["fid"] == diffuse.json(f"{LINE} reference=reals")["fid"]
    assert "R = G = B everywhere" not in diffuse.err
    diffuse.json(line)
    assert "rgb.npy: R = G = B everywhere" in diffuse.err
    colours = gray[..., None].repeat(3, -1) // np.array([1, 1, 2], dtype=np.uint8)
    np.save(tmp_path / "rgb.npy", colours)
    assert "takes images of 3 channels" in diffuse.error(line, 3)


def test_what_holds_mu_or_sigma_is_statistics_and_nothing_else_is_guessed(reals, diffuse, tmp_path):
    save_file({"mu": torch.zeros(64)}, tmp_path / "half.safetensors")
    message = diffuse.error(f"{LINE} reference=half.safetensors", 3)
    assert "half.safetensors has no 'sigma'" in message
    np.savez(tmp_path / "half.npz", mu=np.zeros(64))
    assert "half.npz has no 'sigma'" in diffuse.error(f"{LINE} reference=half.npz", 3)
    np.savez(tmp_path / "other.npz", mean=np.zeros(64), cov=np.eye(64))
    said = diffuse.error(f"{LINE} reference=other.npz", 3)
    assert "other.npz has no 'mu': it holds mean, cov; give images, or a file of mu and" in said
    np.save(tmp_path / "floats.npy", reals / 255)
    assert "its range would be a guess" in diffuse.error(f"{LINE} reference=floats.npy", 3)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "half.npz").read_bytes()[:99])
    assert "cut.npz is damaged" in diffuse.error(f"{LINE} reference=cut.npz", 3)
    for name in ("none.npy", "none.npz"):
        assert f"no statistics at {name}" in diffuse.error(f"{LINE} reference={name}", 3)


@pytest.mark.parametrize("more", ["", "dataset=digits", "dry_run=true"])
def test_a_reference_of_another_size_is_refused_with_both_sizes(more, reals, diffuse, tmp_path):
    np.save(tmp_path / "large.npy", reals.repeat(2, 1).repeat(3, 2))
    message = diffuse.error(f"{LINE} {more} reference=large.npy", 3)
    assert "large.npy holds images of 16x24, those that are scored are of 8x8" in message
    assert not (tmp_path / "outputs/eval").exists()


def test_so_it_is_for_a_run(reals, trained, diffuse, tmp_path):
    np.save(tmp_path / "large.npy", reals.repeat(2, 1).repeat(2, 2))
    message = diffuse.error(f"{RUN} reference=large.npy", 3)
    assert "images of 16x16, those that are scored are of 8x8" in message


def test_images_of_two_sizes_beside_the_same_statistics_are_not_compared(
    reals, trained, diffuse, tmp_path
):
    np.savez(tmp_path / "stats.npz", mu=np.zeros(64), sigma=np.eye(64))
    np.save(tmp_path / "large.npy", digits("train")[:60].repeat(2, 1).repeat(2, 2))
    words = "reference=stats.npz encoder.size=8"
    small = diffuse.json(f"{LINE} {words}")
    large = diffuse.json(f"{LINE} {words}".replace("theirs", "large"))
    assert (small["size"], large["size"]) == ([8, 8], [16, 16])
    message = diffuse.error(f"compare {small['folder']} {large['folder']}")
    assert "size is [8, 8] and [16, 16]" in message
    assert diffuse.json(RUN)["size"] == [8, 8]


@pytest.mark.parametrize("form", ["reals", "reals.npy"])
@pytest.mark.parametrize("more", ["", "dataset=digits"])
def test_images_that_were_encoded_are_not_encoded_again(
    form, more, reals, counted_encoder, diffuse, tmp_path
):
    words, seen = counted_encoder
    np.save(tmp_path / "reals.npy", reals)
    line = f"eval device=cpu images=theirs.npy reference={form} {words} {more}"
    first = diffuse.json(line)
    seen.clear()
    again = diffuse.json(line)
    assert seen == []
    assert again["fid"] == first["fid"]
    assert again["reference"] == first["reference"]
    assert again["features_per_second"] == first["features_per_second"]  # whenever that was


@pytest.mark.parametrize("more", ["", "dataset=digits"])
def test_the_lessons_mistake_is_seen_beside_a_folder_of_real_images(more, reals, diffuse, tmp_path):
    """Made by a model in [-1, 1], saved by a program that took them for [0, 1]."""
    made = to_range(torch.from_numpy(digits("train")[:60]), (-1, 1))
    np.save(tmp_path / "mistaken.npy", to_uint8(made, (0, 1)).numpy())
    line = f"{LINE} reference=reals {more}"
    right, wrong = (diffuse.json(line.replace("theirs", n)) for n in ("theirs", "mistaken"))
    assert not any("range" in said for said in right["warnings"])
    [said] = [said for said in wrong["warnings"] if "range" in said]
    assert "[-1, 1] taken for [0, 1]" in said


@pytest.mark.parametrize(
    "real", ["dataset=digits metrics=all", "reference=reals", "dataset=digits reference=reals"]
)
def test_a_plan_says_what_would_be_measured_and_encodes_nothing(
    real, reals, counted_encoder, diffuse
):
    words, seen = counted_encoder
    line = f"eval device=cpu images=theirs.npy {words} {real}"
    planned = diffuse.json(f"{line} dry_run=true")
    assert seen == []
    warned = diffuse.err
    record = diffuse.json(line)
    assert seen
    measured = {name for name in ("fid", "kid") if name in record}
    assert measured <= {*planned["metrics"].split(", ")}
    assert planned["images"] == "60 of theirs.npy"
    for said in record["warnings"]:
        assert said in warned
    again = {"prdc": "precision", "gap": "gap", "memorisation": "closer", "pixels": "sliced"}
    again |= {"per_class": "per_class", "inception": "inception_score"}
    for group, name in again.items():
        assert (group in planned["metrics"]) == (name in record["metrics"]), group


def test_what_has_no_split_is_named_without_one(reals, diffuse, tmp_path):
    np.savez(tmp_path / "stats.npz", mu=np.zeros(64), sigma=np.eye(64))
    for reference in ("stats.npz", "reals"):
        one, other = (diffuse.json(f"{LINE} reference={reference} n=40")["folder"] for _ in "ab")
        assert diffuse(f"compare {one} {other}") == 0
        assert re.search(rf"^ +reference +{reference}$", diffuse.out, re.M)
        assert "None" not in diffuse.out
    one, other = (diffuse.json(f"{LINE} dataset=digits")["folder"] for _ in "ab")
    assert diffuse(f"compare {one} {other}") == 0
    assert re.search(r"^ +reference +digits, test$", diffuse.out, re.M)


MORE = "metrics=[fid,kid,prdc,pixels] kid_subsets=3 kid_subset_size=10 neighbours=3"


def test_images_as_a_reference_are_compared_in_all_that_they_can_be(reals, diffuse, tmp_path):
    """The test split as a folder is the test split."""
    for k, image in enumerate(digits("test")):
        Image.fromarray(image).save(tmp_path / f"reals/{k}.png")
    folder = diffuse.json(f"{LINE} reference=reals {MORE}")
    split = diffuse.json(f"{LINE} dataset=digits {MORE}")
    both = [{**record["metrics"], "kid": record["kid"]} for record in (folder, split)]
    assert both[0].keys() == both[1].keys()
    for name in both[0]:
        if name != "kid":  # its subsets are of files in another order
            assert both[0][name]["value"] == pytest.approx(both[1][name]["value"]), name
    low, high = both[1]["kid"]["ci95"]
    assert low < both[0]["kid"]["value"] < high
    for group in ("gap", "memorisation"):
        line = f"{LINE} dataset=digits reference=reals metrics=[fid,{group}]"
        assert diffuse.error(line) == (
            f"metrics: no {group} here: the reference is not the test split of the data"
        )


def test_a_floor_of_fewer_images_than_are_scored_is_said(trained, diffuse):
    assert trained.exists()
    words = "eval steps=1 device=cpu encoder=pixels kid_subsets=2 kid_subset_size=4"
    [said] = [w for w in diffuse.json(f"{words} n=65")["warnings"] if "floor" in w]
    assert said == "the floor is of 64 training images, all there are: of 65 it would be lower"
    assert not any("floor" in w for w in diffuse.json(f"{words} n=64")["warnings"])
