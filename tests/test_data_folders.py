"""Which files of a folder are its images: none is taken or left out without a word."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from picture_files import class_folders, encoded, opened, picture

from diffuse.errors import DataError


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Five gray pictures in each of the classes a and b."""
    monkeypatch.setenv("DIFFUSE_CACHE", str(tmp_path / "cache"))
    return class_folders(tmp_path / "own set")


@pytest.mark.parametrize(
    "names", [("train_set", "test_set"), ("Training", "VAL-set"), ("trainset", "valid")]
)
def test_splits_may_be_called_as_those_of_parquet_files(root, names):
    for split in names:
        for name in "ab":
            shutil.copytree(root / name, root / split / name)
    shutil.rmtree(root / "a"), shutil.rmtree(root / "b")
    train, test = opened(root), opened(root, "test")
    assert train.spec.classes == ("a", "b")
    assert (len(train), len(test)) == (10, 10)


@pytest.mark.parametrize("place", [".ipynb_checkpoints", "more/.AppleDouble", "../.cache"])
def test_what_lies_in_a_hidden_folder_is_no_image(root, place):
    (root / "a" / place).mkdir(parents=True)
    (root / "a" / place / "0.png").write_text("no image")
    assert len(opened(root)) == 9


def test_a_linked_folder_is_read_like_any_other(root, tmp_path):
    (root / "b").rename(tmp_path / "elsewhere")
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "more").mkdir()
    for i in range(5, 8):
        picture("L").save(tmp_path / "more" / f"{i}.png")
    (root / "a" / "more").symlink_to(tmp_path / "more")
    train, test = opened(root), opened(root, "test")
    assert sorted(torch.cat([train.labels, test.labels]).tolist()) == [0] * 8 + [1] * 5


def _empty(root):
    shutil.rmtree(root / "b")
    (root / "b/.AppleDouble").mkdir(parents=True)


def _without_images_of_one_split(root):
    shutil.copytree(root / "a", root / "train" / "a")
    (root / "test" / "a").mkdir(parents=True)
    shutil.rmtree(root / "a"), shutil.rmtree(root / "b")


def _loose(root):
    (root / "0001").write_bytes(encoded(picture("L")))
    (root / "README.txt").write_text("no image")


def _loose_beside_splits(root):
    shutil.copytree(root / "a", root / "train" / "a")
    shutil.rmtree(root / "a"), shutil.rmtree(root / "b")
    picture("L").save(root / "0001.png")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_empty, r"own set/b holds no images"),
        (_without_images_of_one_split, r"test/a holds no images"),
        (_loose, r"own set/0001 lies beside folders of images: move it into one of them"),
        (_loose_beside_splits, r"own set/0001\.png lies beside folders of images"),
        (lambda root: (root / "a/b").symlink_to(root), r"a/b is a link to a folder it lies in"),
    ],
)
def test_no_image_is_left_out_without_a_word(root, spoil, told):
    spoil(root)
    with pytest.raises(DataError, match=told):
        opened(root)


def test_a_class_folder_that_cannot_be_read_is_named(root, monkeypatch):
    real = Path.iterdir

    def refused(path):
        if path.name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(DataError, match=r"own set/b cannot be read: Permission denied"):
        opened(root)


def test_other_files_beside_class_folders_are_nothing(root):
    (root / "README.txt").write_text("no image")
    (root / "Thumbs.db").write_text("no image")
    assert opened(root).spec.classes == ("a", "b")


def test_a_name_that_is_not_utf_8_is_a_name_but_not_that_of_a_class(root):
    name = os.fsdecode(b"caf\xe9.png")
    (root / "a/0.png").rename(root / "a" / name)
    assert len(opened(root)) == 9
    (root / "a" / name).write_text("no image")
    with pytest.raises(DataError, match=r"own set/a/caf.*\.png is truncated or not an image"):
        opened(root)
    (root / "a").rename(root / name)
    with pytest.raises(DataError, match=r"own set/caf.*\.png has a name that is not UTF-8"):
        opened(root)
