"""The python batches of CIFAR-10 as published: a tar.gz, or the folder that it unpacks to."""

import hashlib
import pickle
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from diffuse import files
from diffuse.data.prepared import Table
from diffuse.data.unpickling import unpickle
from diffuse.errors import DataError

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
ARCHIVE = "cifar-10-python.tar.gz"
ARCHIVE_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
FOLDER = "cifar-10-batches-py"
MD5 = {  # of the files in the archive, as published
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
LARGEST = 40_000_000  # bytes; a batch has 31 MB


def wanted(split: str) -> list[str]:
    """The names of a split's files, in their published order."""
    return [name for name in MD5 if name.startswith("test") == (split == "test")]


def read_archive(path: Path, split: str) -> Table:
    """Batches out of the published archive: only its named members, and never onto the disk."""
    check_archive(path)
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                folder, _, name = member.name.partition("/")
                if folder != FOLDER or name not in wanted(split) or not member.isreg():
                    continue
                if member.size > LARGEST:
                    raise DataError(f"{path}: {member.name} is larger than a batch can be")
                if (file := archive.extractfile(member)) is not None:
                    found[name] = file.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path} is truncated or not a tar.gz ({error})") from error
    return _table(found, path, split)


def check_archive(path: Path) -> None:
    """Raise DataError unless it is the published archive, byte for byte."""
    try:
        digest = files.sha256(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    if digest != ARCHIVE_SHA256:
        raise DataError(f"{path} is truncated or altered: it is not the published file (sha256)")


def read_batches(folder: Path, split: str) -> Table:
    """The files of an unpacked archive."""
    found = {}
    for name in wanted(split):
        try:
            found[name] = (folder / name).read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise DataError(f"{folder / name} cannot be read ({error.strerror})") from error
    return _table(found, folder, split)


def _table(found: Mapping[str, bytes], where: Path, split: str) -> Table:
    """Check and decode the batches of one split, in their published order."""
    images, labels = [], []
    for name in wanted(split):
        if name not in found:
            raise DataError(f"{where / name} is missing")
        if hashlib.md5(found[name], usedforsecurity=False).hexdigest() != MD5[name]:
            raise DataError(f"{where / name} is truncated or altered: not the published file (md5)")
        try:
            batch = unpickle(found[name])
            images.append(np.asarray(batch[b"data"], np.uint8).reshape(-1, 3, 32, 32))
            labels.append(np.asarray(batch[b"labels"], np.int64))
        except (pickle.UnpicklingError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where / name} is not a batch of CIFAR-10 ({error})") from error
    pixels, numbers = (torch.from_numpy(np.concatenate(parts)) for parts in (images, labels))
    return Table(pixels, numbers, CLASSES)
