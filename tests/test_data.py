"""Data sets as the rest of the program sees them, on the digits that need no network."""

import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import diffuse.data
from diffuse.data import Choices, check_dataset, open_dataset, to_range, to_uint8, unfit
from diffuse.data.choices import view
from diffuse.data.images import ImageSpec, Raw, fitted, sha256_of
from diffuse.errors import ConfigError, DiffuseError, DivergedError

RANGES = [(-1, 1), (-0.5, 0.5), (0, 1)]
LEVELS = torch.arange(256, dtype=torch.uint8)
YAMLS = sorted(Path(__file__).parents[1].glob("conf/dataset/*.yaml"))


def node(**keys):
    return {"name": "digits", "root": None, **keys}


@pytest.mark.parametrize("range", RANGES)
def test_all_256_levels_survive_the_round_trip(range):
    x = to_range(LEVELS, range)
    assert x.dtype == torch.float32
    assert (x[0].item(), x[-1].item()) == pytest.approx(range, abs=1e-6)
    assert torch.equal(to_uint8(x, range), LEVELS)


def test_levels_that_truncation_would_darken_are_rounded():
    x = (LEVELS / 255 - 0.5) / 0.5  # what torchvision's ToTensor and Normalize make of them
    truncated = ((x * 0.5 + 0.5) * 255).to(torch.uint8)
    assert (truncated != LEVELS).sum() == 63
    assert torch.equal(to_uint8(x, (-1, 1)), LEVELS)


def test_values_outside_the_range_are_clamped_and_nan_is_refused():
    assert to_uint8(torch.tensor([-9.0, 9.0]), (-1, 1)).tolist() == [0, 255]
    with pytest.raises(DivergedError):
        to_uint8(torch.tensor([0.0, torch.nan]), (-1, 1))


@pytest.mark.parametrize("range", [(1, 0), (0, 0), (0, float("inf")), (0, 1, 2)])
def test_a_range_that_is_none_is_refused(range):
    with pytest.raises(ValueError, match="range must be"):
        to_range(LEVELS, range)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 33, 31), (3, 32, 32)])
def test_padding_is_centred_and_cropping_undoes_it(shape):
    images = torch.randint(0, 256, (5, *shape), dtype=torch.uint8)
    spec = spec_of(images, "pad")
    padded = fitted(images, "pad")
    assert padded.shape[2] % 32 == padded.shape[3] % 32 == 0
    assert padded.long().sum() == images.long().sum()
    mask = fitted(torch.ones_like(images), "pad")[0, 0]
    for side in (mask.any(0), mask.any(1)):
        before, after = side.int().argmax(), side.flip(0).int().argmax()
        assert abs(before - after) <= 1
    assert torch.equal(unfit(padded, spec), images)


def test_resizing_agrees_with_pil_and_keeps_the_level_of_flat_images():
    from PIL import Image

    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 1, 28, 28), np.uint8))
    resized = fitted(images, "resize")
    for image, ours in zip(images, resized, strict=True):
        theirs = Image.fromarray(image[0].numpy()).resize((32, 32), Image.Resampling.BILINEAR)
        assert np.abs(ours[0].numpy().astype(int) - np.asarray(theirs)).max() <= 1
    assert unfit(resized, spec_of(images, "resize")).shape == images.shape
    flat = torch.full((1, 3, 28, 28), 77, dtype=torch.uint8)
    assert torch.equal(unfit(fitted(flat, "resize"), spec_of(flat, "resize")), flat)


def spec_of(images, fit):
    channels, *native = images.shape[1:]
    return ImageSpec("x", channels, *fitted(images, fit).shape[2:], *native, fit, ())


def test_digits_are_those_of_scikit_learn_and_the_splits_share_none():
    from sklearn.datasets import load_digits

    train, test = open_dataset(node(), "train"), open_dataset(node(), "test")
    assert (len(train), len(test)) == (1437, 360)
    assert train.spec.shape == (1, 8, 8)
    theirs, labels = load_digits().images, load_digits().target
    for split, its in ((test, theirs[::5]), (train, np.delete(theirs, np.s_[::5], axis=0))):
        assert np.array_equal(np.rint(split.images[:, 0].double().numpy() / 255 * 16), its)
    assert np.array_equal(test.labels, labels[::5])
    assert set(train.images.unique().tolist()) == {round(k * 255 / 16) for k in range(17)}


def test_classes_are_renumbered_in_the_order_in_which_they_are_named():
    whole = open_dataset(node(), "train")
    some = open_dataset(node(classes=[8, "3"]), "train")
    assert some.spec.classes == ("8", "3")
    for new, old in enumerate([8, 3]):
        assert torch.equal(some.images[some.labels == new], whole.images[whole.labels == old])


def test_a_smaller_subset_is_the_beginning_of_a_larger_one_and_the_test_split_stays_whole():
    small, large = (open_dataset(node(subset=n), "train") for n in (50, 100))
    assert torch.equal(small.images, large.images[:50])
    assert torch.equal(small.labels, large.labels[:50])
    whole = open_dataset(node(), "train")
    assert not torch.equal(small.images, whole.images[:50])  # files are often sorted by class
    assert len(open_dataset(node(subset=50), "test")) == 360


def test_only_training_images_may_be_flipped():
    assert open_dataset(node(flip=True), "train").flip
    assert not open_dataset(node(flip=True), "test").flip


def test_a_batch_is_a_lookup():
    images = open_dataset(node(), "test").to("cpu")
    batch = images.batch(torch.tensor([7, 7, 0]))
    assert batch.dtype == torch.uint8
    assert torch.equal(batch, torch.stack([images.images[i] for i in (7, 7, 0)]))


def test_opening_twice_gives_the_same_checksum_and_one_changed_pixel_another():
    first, second = open_dataset(node(), "test"), open_dataset(node(), "test")
    assert first.sha256 == second.sha256
    second.images[5, 0, 3, 3] ^= 1
    assert sha256_of(second.images, second.labels) != first.sha256


def test_images_without_labels_have_no_classes_and_the_label_minus_one():
    raw = Raw("x", torch.zeros(4, 1, 8, 8, dtype=torch.uint8), None, (), "memory")
    images = view(raw, "train", Choices())
    assert images.spec.classes == ()
    assert images.labels.tolist() == [-1] * 4
    with pytest.raises(ValueError, match="no labels"):
        view(raw, "train", Choices(classes=[0]))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"fit": "padd"}, "did you mean 'pad'"),
        ({"subset": 0}, ">= 1"),
        ({"subset": 2000}, "at most 1437"),
        ({"subset": True}, "integer"),
        ({"flip": 1}, "true or false"),
        ({"classes": []}, "at least one"),
        ({"classes": [1, 1]}, "different"),
        ({"classes": [1, "1"]}, "different"),
        ({"classes": [99]}, "0..9"),
        ({"classes": ["eight"]}, "choices: 0, 1"),
        ({"classes": 3}, "a list"),
        ({"flipp": True}, "did you mean 'flip'"),
        ({"root": "somewhere"}, "null"),
        ({"name": "digit"}, "did you mean 'digits'"),
        ({"name": "to_range"}, "unknown name"),
    ],
)
def test_a_wrong_key_or_value_is_one_line_that_says_what_is_allowed(keys, told):
    with pytest.raises(ConfigError) as caught:
        open_dataset(node(**keys), "train")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_can_be_refused_without_data_is_refused_without_data(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSE_CACHE", str(tmp_path))
    for keys in ({"fit": "foo"}, {"foot": 1}, {"subset": -1}):
        with pytest.raises(ConfigError):
            open_dataset({"name": "fashion_mnist", **keys}, "train")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_every_yaml_writes_down_every_key_of_its_function_and_no_other(path):
    written = OmegaConf.load(path)
    function = getattr(diffuse.data, written.name)
    takes = {*inspect.signature(function).parameters} - {"split"}
    assert {str(key) for key in written} - {"name"} == takes | {f.name for f in fields(Choices)}
    assert path.stem == written.name
    check_dataset(written)


def test_importing_the_room_does_not_import_heavy_libraries():
    heavy = {"torchvision", "datasets", "sklearn", "PIL", "pyarrow", "pandas"}
    program = f"import sys, diffuse.data; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_errors_of_this_room_are_those_that_the_command_line_knows():
    with pytest.raises(DiffuseError) as caught:
        open_dataset({"name": "fashion_mnist", "root": "/nowhere"}, "test")
    assert caught.value.exit_code == 3
    assert "/nowhere" in str(caught.value)
