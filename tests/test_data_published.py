"""Published files: read exactly, and refused by name when missing, truncated or altered."""

import gzip
import hashlib
import io
import os
import pickle
import sys
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from diffuse.data import cifar_batches, open_dataset
from diffuse.data.cifar_batches import ARCHIVE, FOLDER, MD5
from diffuse.data.idx import read_idx, write_idx
from diffuse.data.prepared import Table
from diffuse.data.unpickling import unpickle
from diffuse.errors import DataError

FASHION = sys.modules["diffuse.data.fashion_mnist"]  # the package's attribute is the function
CIFAR = sys.modules["diffuse.data.cifar10"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("shape", [(3,), (4, 2, 5)])
def test_idx_is_read_as_it_was_written_and_every_truncation_is_seen(shape, tmp_path):
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    data = write_idx(array)
    assert np.array_equal(read_idx(data, tmp_path), array)
    for length in range(len(data)):
        with pytest.raises(DataError):
            read_idx(data[:length], tmp_path)
    with pytest.raises(DataError, match="too long"):
        read_idx(data + b"\0", tmp_path)


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    """A small set in the layout of the published files, and its checksums for the published."""
    rng = np.random.default_rng(0)
    root = tmp_path / "fashion"
    root.mkdir()
    for split, (images, labels) in FASHION.FILES.items():
        n = 30 if split == "train" else 20
        (root / images).write_bytes(write_idx(rng.integers(0, 256, (n, 28, 28), np.uint8)))
        (root / labels).write_bytes(write_idx(np.arange(n, dtype=np.uint8) % 10))
    sums = {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in FASHION.SHA256}
    monkeypatch.setattr(FASHION, "SHA256", sums)
    return root


def test_plain_and_packed_idx_files_give_the_same_images(fashion):
    plain = open_dataset({"name": "fashion_mnist", "root": str(fashion)}, "train")
    for path in list(fashion.iterdir()):
        (fashion / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    packed = open_dataset({"name": "fashion_mnist", "root": str(fashion)}, "train")
    assert plain.sha256 == packed.sha256
    assert plain.labels.tolist() == [i % 10 for i in range(30)]


def _cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def _flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))


def _cut_packed(path):
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes())[:-9])
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: path.unlink(), "missing"),
        (_cut, "truncated"),
        (_cut_packed, "truncated"),
        (_flip_a_bit, "altered"),
        (lambda path: path.write_bytes(b"<html>not found</html>"), "not an idx file"),
    ],
)
def test_a_damaged_file_is_named(fashion, damage, told):
    name = "t10k-images-idx3-ubyte"
    damage(fashion / name)
    open_dataset({"name": "fashion_mnist", "root": str(fashion)}, "train")
    with pytest.raises(DataError, match=f"{name}.*{told}"):
        open_dataset({"name": "fashion_mnist", "root": str(fashion)}, "test")


class _Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_may_hold_arrays_but_no_code(tmp_path):
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert np.array_equal(unpickle(pickle.dumps({"a": array}, 2 + 1))["a"], array)
    marker = tmp_path / "marker"
    with pytest.raises(pickle.UnpicklingError, match=r"system"):
        unpickle(pickle.dumps(_Evil(marker)))
    assert not marker.exists()


def batches(split_size=20):
    """Files in the layout of the published batches: name -> bytes."""
    rng = np.random.default_rng(0)
    return {
        name: pickle.dumps(
            {
                b"data": rng.integers(0, 256, (split_size, 3072), np.uint8),
                b"labels": [i % 10 for i in range(split_size)],
            },
            3,
        )
        for name in MD5
    }


def pack(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


@pytest.fixture
def published(monkeypatch):
    """Let `batches()` count as the published files."""
    sums = {name: hashlib.md5(data).hexdigest() for name, data in batches().items()}
    monkeypatch.setattr(cifar_batches, "MD5", sums)
    monkeypatch.setattr(CIFAR, "is_published", lambda table, split: True)


def test_an_archive_and_its_unpacked_folder_give_the_same_images(tmp_path, monkeypatch, published):
    archive = tmp_path / "one" / ARCHIVE
    unpacked = tmp_path / "two" / FOLDER
    archive.parent.mkdir()
    unpacked.mkdir(parents=True)
    link = tarfile.TarInfo(f"{FOLDER}/test_batch")  # comes last: must not replace the real one
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    files = [(tarfile.TarInfo(f"{FOLDER}/{name}"), data) for name, data in batches().items()]
    strangers = [(tarfile.TarInfo(name), b"evil") for name in ("../evil", "/tmp/evil", "evil")]
    pack(archive, [*strangers, *files, (link, b"")])
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(cifar_batches, "ARCHIVE_SHA256", digest)
    for name, data in batches().items():
        (unpacked / name).write_bytes(data)
    for split, count in (("train", 100), ("test", 20)):
        sets = [
            open_dataset({"name": "cifar10", "root": str(root)}, split)
            for root in (archive, archive.parent, unpacked, unpacked.parent)
        ]
        assert len({images.sha256 for images in sets}) == 1
        assert sets[0].images.shape == (count, 3, 32, 32)
        assert sets[0].spec.name == "cifar10"
    assert not list(tmp_path.rglob("evil"))


def test_a_damaged_archive_or_batch_is_named(tmp_path, monkeypatch, published):
    for name, data in batches().items():
        (tmp_path / name).write_bytes(data)
    _flip_a_bit(tmp_path / "data_batch_3")
    with pytest.raises(DataError, match=r"data_batch_3 is truncated or altered"):
        open_dataset({"name": "cifar10", "root": str(tmp_path)}, "train")
    (tmp_path / "data_batch_3").unlink()
    with pytest.raises(DataError, match=r"data_batch_3 is missing"):
        open_dataset({"name": "cifar10", "root": str(tmp_path)}, "train")
    pack(tmp_path / ARCHIVE, [])
    with pytest.raises(DataError, match=rf"{ARCHIVE} is truncated or altered"):
        open_dataset({"name": "cifar10", "root": str(tmp_path)}, "train")
    digest = hashlib.sha256((tmp_path / ARCHIVE).read_bytes()).hexdigest()
    monkeypatch.setattr(cifar_batches, "ARCHIVE_SHA256", digest)
    with pytest.raises(DataError, match=r"data_batch_1 is missing"):
        open_dataset({"name": "cifar10", "root": str(tmp_path)}, "train")


def test_a_batch_that_asks_for_code_is_refused_even_with_the_right_checksum(tmp_path, monkeypatch):
    marker = tmp_path / "marker"
    evil = pickle.dumps(_Evil(marker))
    (tmp_path / "test_batch").write_bytes(evil)
    monkeypatch.setitem(cifar_batches.MD5, "test_batch", hashlib.md5(evil).hexdigest())
    with pytest.raises(DataError, match=r"test_batch is not a batch.*system"):
        open_dataset({"name": "cifar10", "root": str(tmp_path)}, "test")
    assert not marker.exists()


def test_published_pixels_are_known_by_their_moments_whatever_their_order(monkeypatch):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2500, 3, 32, 32), np.uint8)
    labels = torch.arange(2500) % 10
    wide = pixels.astype(np.int64)
    moments = [tuple((wide**k).sum((0, 2, 3)).tolist()) for k in (1, 2)]
    monkeypatch.setitem(CIFAR.PUBLISHED, "train", (250, *moments))
    images = torch.from_numpy(pixels)
    assert CIFAR.is_published(Table(images.flip(0), labels.flip(0), ()), "train")
    images[7, 1, 5, 5] ^= 1
    assert not CIFAR.is_published(Table(images, labels, ()), "train")
    images[7, 1, 5, 5] ^= 1
    labels[0] = 1
    assert not CIFAR.is_published(Table(images, labels, ()), "train")


def test_cifar10_in_other_pixels_is_called_after_its_folder(tmp_path):
    for name in ("cifar10-blurred", "cifar10", "CIFAR-10"):
        (tmp_path / name).mkdir()
        for split in ("train", "test"):
            cells = []
            for _ in range(10):
                buffer = io.BytesIO()
                pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(buffer, "JPEG")
                cells.append({"bytes": buffer.getvalue(), "path": None})
            path = tmp_path / name / f"{split}-00000-of-00001.parquet"
            pq.write_table(pa.table({"img": cells, "label": list(range(10))}), path)
    names = [
        open_dataset({"name": "cifar10", "root": str(tmp_path / name)}, "test").spec.name
        for name in ("cifar10-blurred", "cifar10", "CIFAR-10")
    ]
    assert names[0] == "cifar10-blurred"
    digest = names[1].removeprefix("cifar10-")
    assert names[1:] == [f"cifar10-{digest}", f"CIFAR-10-{digest}"]
    assert len(digest) == 8
