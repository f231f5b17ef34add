"""A user's own images in class folders."""

import logging
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from deep import png_of_16_bits
from picture_files import RNG, class_folders, encoded, opened, picture
from PIL import Image

from diffuse.data import open_dataset, open_splits, prepared
from diffuse.data.splits import held_out
from diffuse.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path):
    """Five gray pictures in each of the classes a and b."""
    return class_folders(tmp_path / "own set")


def test_gray_stays_gray_and_one_colour_picture_makes_all_rgb(root):
    gray = opened(root)
    assert gray.spec.shape == (1, 12, 12)
    assert gray.spec.classes == ("a", "b")
    assert gray.spec.name == "own-set"
    picture("RGB").save(root / "a" / "5.png")
    assert opened(root).spec.shape == (3, 12, 12)


def test_pixels_and_labels_are_those_of_the_files(root):
    for split in ("train", "test"):
        (root / split).mkdir()
    for name in "ab":
        shutil.copytree(root / name, root / "test" / name)
        (root / name).rename(root / "train" / name)
    images = opened(root, "test")
    expected = [
        np.asarray(Image.open(root / "test" / c / f"{i}.png")) for c in "ab" for i in range(5)
    ]
    assert np.array_equal(images.images[:, 0].numpy(), np.stack(expected))
    assert images.labels.tolist() == [0] * 5 + [1] * 5


def test_without_a_test_folder_a_seeded_share_is_held_out(root):
    train, test = opened(root, test=0.3), opened(root, "test", test=0.3)
    assert (len(train), len(test)) == (7, 3)
    both = torch.cat([train.images, test.images]).flatten(1)
    assert len(both.unique(dim=0)) == 10
    assert opened(root, "test", test=0.3).sha256 == test.sha256
    assert held_out(2, 0.01).sum() == held_out(2, 0.99).sum() == 1


def test_images_without_class_folders_have_no_labels(root):
    images = opened(root / "a")
    assert images.spec.classes == ()
    assert set(images.labels.tolist()) == {-1}


def test_size_resizes_the_shorter_side_and_crops_the_middle(root):
    wide = picture("L", 48, 24)
    wide.save(root / "a" / "0.png")
    images = torch.cat([opened(root, split, size=8).images for split in ("train", "test")])
    assert images.shape == (10, 1, 8, 8)
    expected = wide.resize((16, 8), Image.Resampling.BICUBIC).crop((4, 0, 12, 8))
    difference = images[:, 0].numpy().astype(int) - np.asarray(expected)
    assert np.abs(difference).max((1, 2)).min() <= 1


def _odd(path):
    picture("L", 13, 12).save(path)


def _transparent(path):
    Image.new("RGBA", (12, 12), (1, 2, 3, 4)).save(path)


def _deep(path):
    Image.fromarray(RNG.integers(0, 60_000, (12, 12), np.uint16)).save(path)


def _deep_colours(path):
    path.write_bytes(png_of_16_bits(RNG.integers(0, 60_000, (12, 12, 3))))


def _deep_in_ppm(path):
    path.write_bytes(b"P6 12 12 65535\n" + bytes(2 * 3 * 12 * 12))


def _several(kind):
    """Three pictures in one file."""
    first, *others = (picture() for _ in range(3))
    return lambda path: path.write_bytes(
        encoded(first, kind, save_all=True, append_images=others, duration=40)
    )


def _cut(path):
    path.write_bytes(path.read_bytes()[:-60])


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_cut, "truncated or not an image"),
        (lambda path: path.write_text("hello"), "truncated or not an image"),
        (lambda path: path.write_bytes(b""), "truncated or not an image"),
        (lambda path: path.write_bytes(encoded(picture(), "JPEG")[:-60]), "truncated"),
        (_transparent, "transparent"),
        (_deep, "8-bit"),
        (_deep_colours, "has 16 bits a channel: convert it to 8-bit"),
        (_deep_in_ppm, "has 16 bits a channel: convert it to 8-bit"),
        *((_several(kind), "holds 3 pictures") for kind in ("GIF", "PNG", "TIFF", "WEBP")),
        (_odd, r"13x12 but .* is 12x12: set dataset\.size=64, for example"),
    ],
)
def test_a_picture_that_cannot_be_used_is_named(root, spoil, told):
    (root / "test").mkdir()  # so that no picture of `train` is held out
    (root / "train").mkdir()
    for name in "ab":
        shutil.copytree(root / name, root / "test" / name)
        (root / name).rename(root / "train" / name)
    spoil(root / "train" / "b" / "3.png")
    with pytest.raises(DataError, match=rf"b/3\.png.*{told}"):
        opened(root)


def test_of_the_pictures_that_a_telephone_puts_into_one_file_the_first_is_the_photo(root):
    photo, other = Image.new("RGB", (12, 12), (200, 0, 0)), Image.new("RGB", (12, 12))
    content = encoded(photo, "MPO", save_all=True, append_images=[other], quality=100)
    for path in root.rglob("*.png"):
        path.write_bytes(content)
    assert opened(root).images.amin((2, 3))[:, 0].min() > 190


@pytest.mark.parametrize("name", ["a", "1.png"])
def test_what_may_not_be_looked_at_is_named(name, root, monkeypatch):
    """As in a folder that may be listed, not searched; whoever runs this test may do all."""
    is_dir = Path.is_dir

    def refused(path):
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", refused)
    with pytest.raises(DataError, match=r"a(/1\.png)? cannot be read: Permission denied"):
        opened(root)


def test_a_link_to_nothing_is_named(root):
    (root / "b" / "5.png").symlink_to(root / "gone.png")
    with pytest.raises(DataError, match=r"b/5\.png is a link to nothing"):
        opened(root)


def test_an_alpha_channel_that_hides_nothing_is_dropped(root):
    Image.new("RGBA", (12, 12), (1, 2, 3, 255)).save(root / "a" / "0.png")
    assert opened(root).spec.channels == 3


def test_files_are_decoded_once_and_again_when_they_change_or_the_copy_is_damaged(
    root, cache, monkeypatch, caplog
):
    room = sys.modules["diffuse.data.folder"]
    count, decode = [], room.decode
    monkeypatch.setattr(room, "decode", lambda *args: count.append(1) or decode(*args))
    first = opened(root)
    assert opened(root).sha256 == first.sha256
    assert len(count) == 1
    (copy,) = (cache / "decoded").glob("*.safetensors")
    copy.write_bytes(copy.read_bytes()[:-1] + b"x")
    with caplog.at_level(logging.WARNING, "diffuse.data"):
        assert opened(root).sha256 == first.sha256
    assert "damaged" in caplog.text
    for path in root.rglob("*.png"):
        picture("L").save(path)
    assert opened(root).sha256 != first.sha256
    assert len(count) == 3
    assert len(list((cache / "decoded").glob("*.safetensors"))) == 1


@pytest.mark.parametrize(("there", "damage"), [(b'[\\"a', b'[\\"c'), (b"classes", b"clasres")])
def test_a_copy_whose_classes_are_damaged_is_decoded_again(root, cache, there, damage, caplog):
    opened(root)
    (copy,) = (cache / "decoded").glob("*.safetensors")
    whole = copy.read_bytes()
    assert there in whole
    copy.write_bytes(whole.replace(there, damage))
    with caplog.at_level(logging.WARNING, "diffuse.data"):
        assert opened(root).spec.classes == ("a", "b")
    assert f"{copy} is damaged (checksum)" in caplog.text


def test_other_pixels_in_a_file_of_the_same_size_and_time_are_decoded(root, cache):
    """As `cp -p`, rsync or tar put them there: of a BMP every picture has as many bytes."""
    place = root / "a" / "9.bmp"
    picture("L").save(place)
    first, before = opened(root), place.stat()
    Image.fromarray(255 - np.asarray(Image.open(place))).save(place)
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert place.stat().st_size == before.st_size
    assert opened(root).sha256 != first.sha256


def test_a_copy_that_was_decoded_by_other_rules_is_made_anew(root, cache, monkeypatch):
    monkeypatch.setattr(prepared, "RULES", 1)
    first = opened(root)
    (copy,) = (cache / "decoded").glob("*.safetensors")
    monkeypatch.undo()
    monkeypatch.setenv("DIFFUSE_CACHE", str(cache))
    assert opened(root).sha256 == first.sha256
    assert not copy.exists()
    assert len(list((cache / "decoded").glob("*.safetensors"))) == 1


@pytest.mark.parametrize("name", ["folder", "parquet", "hub", "cifar10"])
def test_a_root_that_does_not_exist_is_named(tmp_path, name):
    with pytest.raises(DataError, match="nowhere"):
        opened(tmp_path / "nowhere", "train", name)


@pytest.mark.parametrize(
    ("keys", "told"), [({"size": 0}, r"1\.\.1024"), ({"test": 1.0}, r"\(0, 1\)"), ({}, "needs a")]
)
def test_wrong_values_are_a_config_error(tmp_path, keys, told):
    with pytest.raises(ConfigError, match=told):
        open_dataset({"name": "folder", "root": str(tmp_path) if keys else None, **keys}, "train")


def test_one_colour_picture_makes_both_splits_rgb_whichever_has_it(root):
    picture("RGB").save(root / "a" / "5.png")
    assert {opened(root, split).spec.channels for split in ("train", "test")} == {3}
    (root / "train").mkdir()
    for name in "ab":
        (root / name).rename(root / "train" / name)
    (root / "testing/a").mkdir(parents=True)
    picture("L").save(root / "testing/a/0.png")
    assert {opened(root, split).spec.channels for split in ("train", "test")} == {3}
    assert len(opened(root, "test")) == 1


def test_splits_of_two_sizes_are_refused_by_name(root):
    (root / "train").mkdir()
    for name in "ab":
        (root / name).rename(root / "train" / name)
    (root / "test/a").mkdir(parents=True)
    picture("L", 20, 20).save(root / "test/a/0.png")
    node = {"name": "folder", "root": str(root)}
    with pytest.raises(DataError, match="training images are 1x12x12, test images 1x20x20"):
        open_splits(node)
    train, test = open_splits({**node, "size": 8})
    assert train.spec.shape == test.spec.shape == (1, 8, 8)


def test_a_test_folder_without_classes_is_named(root):
    (root / "train").mkdir()
    for name in "ab":
        (root / name).rename(root / "train" / name)
    (root / "test").mkdir()
    picture("L").save(root / "test/0001.png")
    with pytest.raises(DataError, match="test has no class folders, the other split has"):
        opened(root)


def test_folders_beside_a_train_folder_are_not_lost(root):
    (root / "train").mkdir()
    picture("L").save(root / "train/0.png")
    with pytest.raises(DataError, match=r"has train/ and also a/, b/: which are splits\?"):
        opened(root)
    (root / "train").rename(root / ".train")
    assert opened(root).spec.classes == ("a", "b")


def test_classes_whose_names_are_numbers_are_chosen_by_name(root):
    (root / "a").rename(root / "1")
    (root / "b").rename(root / "2")
    assert opened(root, classes=[2]).spec.classes == ("2",)
    assert opened(root, classes=["1"]).spec.classes == ("1",)


def test_a_plain_bitmap_is_an_image(root):
    for old in root.rglob("*.png"):
        old.unlink()
    for name in "ab":
        for i in range(5):
            (root / name / f"{i}.pbm").write_text("P1\n2 2\n1 0 0 1\n")
    assert opened(root).images[0, 0].tolist() == [[0, 255], [255, 0]]
