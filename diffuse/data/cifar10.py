"""CIFAR-10 (Krizhevsky, 2009): 50,000 + 10,000 RGB images of 32x32 in ten classes."""

from functools import partial
from pathlib import Path

import torch

from diffuse.data.cifar_batches import (
    ARCHIVE,
    CLASSES,
    FOLDER,
    MD5,
    check_archive,
    read_archive,
    read_batches,
)
from diffuse.data.hub import export
from diffuse.data.images import Raw, sha256_of
from diffuse.data.parquet import column_names, read_split, split_files
from diffuse.data.prepared import Table, prepared
from diffuse.data.sources import Source, download, fetch
from diffuse.data.splits import existing, name_of, sounds_like
from diffuse.errors import DataError

HUB = "uoft-cs/cifar10"
ARCHIVE_URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
ARCHIVE_BYTES = 170_498_071
ADVICE = (
    f"put {ARCHIVE}, the folder {FOLDER} or train*.parquet and test*.parquet into a folder and "
    "name it with dataset.root=<folder>"
)
# Per split: images of each class, then for red, green and blue the sum of all pixels and the sum of
# their squares. They are what the published means and standard deviations of these pixels are made
# of, exact to the last bit, and they know every edition whatever the order of its images (and where
# in an image a pixel is, which only the sums of the archive's own files know).
PUBLISHED = {
    "train": (
        5000,
        (6415714204, 6295060180, 5829907619),
        (1007102432534, 971356520230, 891641299129),
    ),
    "test": (
        1000,
        (1290492328, 1266775083, 1176108223),
        (203142822772, 195994125155, 180646015723),
    ),
}


def cifar10(
    split: str,
    root: str | None = None,  # with the archive, the python batches, or parquet files
) -> Raw:
    """Read one split, fetching it first if neither `root` nor the cache has it.

    Other pixels in the same layout are welcome, but not under this name: the set is then called
    after its folder, and by its sha256, too, if that sounds like this one.
    """
    if root is None:
        folder, origin = fetch("cifar10", SOURCES, check, ADVICE)
    else:
        folder = existing("cifar10", root)
        origin = str(folder)
    table = read(folder, split)
    name = "cifar10"
    if not is_published(table, split):
        assert table.labels is not None
        name = name_of(folder)
        if sounds_like(name, "cifar10"):
            name = f"{name}-{sha256_of(table.images, table.labels)[:8]}"
    return Raw(name, *table, source=origin)


def read(place: Path, split: str) -> Table:
    """One split of whichever edition lies in a folder, decoded once."""
    archive = place / ARCHIVE if place.is_dir() else place
    if archive.name.endswith(".tar.gz") and archive.is_file():
        files, make = [archive], partial(read_archive, archive, split)
    elif batches := _batches(place):
        files = [path for name in MD5 if (path := batches / name).is_file()]
        make = partial(read_batches, batches, split)
    else:
        try:
            groups = split_files(place)
        except DataError as error:
            raise DataError(f"{place} holds no CIFAR-10: {ADVICE}") from error
        if "test" not in groups:
            raise DataError(f"{place} holds no {'train' if 'test' in groups else 'test'}*.parquet")
        files = [path for paths in groups.values() for path in paths]
        make = partial(_read_parquet, place, split)
    return prepared(files, ("cifar10", str(place), split), make)


def _batches(place: Path) -> Path | None:
    """The folder of the python batches, even if some are missing."""
    for folder in (place, place / FOLDER):
        if any((folder / name).is_file() for name in MD5):
            return folder
    return None


def _read_parquet(folder: Path, split: str) -> Table:
    names = column_names(split_files(folder)[split][0])
    table = read_split(folder, split, "img" if "img" in names else "image", "label")
    if table.images.shape[1:] != (3, 32, 32) or len(table.classes) != len(CLASSES):
        shape = "x".join(map(str, table.images.shape[1:]))
        raise DataError(f"{folder}: {shape} in {len(table.classes)} classes is not CIFAR-10")
    return table._replace(classes=CLASSES)


def is_published(table: Table, split: str) -> bool:
    """Are these the published pixels and class counts, in whatever order?"""
    if table.labels is None:
        return False
    count, sums, squares = PUBLISHED[split]
    if table.labels.bincount(minlength=len(CLASSES)).tolist() != [count] * len(CLASSES):
        return False
    levels = torch.arange(256)
    for channel, total, square in zip(table.images.unbind(1), sums, squares, strict=True):
        counts = sum(part.flatten().bincount(minlength=256) for part in channel.split(1000))
        if [int((counts * levels).sum()), int((counts * levels**2).sum())] != [total, square]:
            return False
    return True


def check(folder: Path) -> None:
    """Raise DataError unless a fetched folder holds the published images."""
    if (folder / ARCHIVE).exists():
        check_archive(folder / ARCHIVE)
        return
    for split in PUBLISHED:
        if not is_published(_read_parquet(folder, split), split):
            raise DataError("the pixels are not the published ones (checksum)")


def _from_hub(target: Path, scratch: Path) -> None:
    export(HUB, {"train": "train", "test": "test"}, target, scratch)


def _from_archive(target: Path, scratch: Path) -> None:
    download(ARCHIVE_URL, scratch / ARCHIVE, ARCHIVE_BYTES)
    (scratch / ARCHIVE).rename(target / ARCHIVE)


SOURCES = (
    Source(f"the Hub ({HUB})", _from_hub),
    Source("the published archive", _from_archive),
)
