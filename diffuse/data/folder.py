"""Images in class folders: `<class>/*.png`, or `train/<class>/*.png` and `test/<class>/*.png`."""

from pathlib import Path

import torch

from diffuse.data.decoding import channels_of, check_size, decode
from diffuse.data.images import Raw
from diffuse.data.prepared import Table, prepared
from diffuse.data.splits import check_share, existing, held_out, name_of
from diffuse.errors import DataError

TRAIN_FOLDERS = ("train", "training")
TEST_FOLDERS = ("test", "testing", "val", "valid", "validation")


def folder(
    split: str,
    root: str | None = None,  # with class folders; without any, the images are unlabelled
    size: int | None = None,  # resize and crop to this; null = all must have one size
    test: float = 0.1,  # the share that is held out where there is no test or val folder
) -> Raw:
    """Read one split; every file of a class folder must be an image, hidden ones are ignored."""
    check_size(size)
    check_share(test)
    path = existing("folder", root)
    if not path.is_dir():
        raise DataError(f"{path} is not a folder")
    homes = _homes(path)
    files = {kind: _files(home) for kind, home in homes.items()}
    everything = [file for found in files.values() for file in found]
    flat = [home for home in homes.values() if not _classes(home)]
    if flat and len(flat) < len(homes):
        raise DataError(f"{flat[0]} has no class folders, the other split has")

    def make() -> Table:
        own = files.get(split, files["train"])
        if "test" not in homes:
            kept = (held_out(len(own), test) == (split == "test")).tolist()
            own = [file for file, keep in zip(own, kept, strict=True) if keep]
        home = homes.get(split, homes["train"])
        classes = sorted({name for home in homes.values() for name in _classes(home)})
        labels = None
        if classes:
            names = [file.relative_to(home).parts[0] for file in own]
            labels = torch.tensor([classes.index(name) for name in names])
        # of all splits: one of them may be all gray
        channels = channels_of(
            len(everything), everything.__getitem__, lambda i: str(everything[i])
        )
        images = decode(len(own), lambda i: own[i], lambda i: str(own[i]), size, channels)
        return Table(images, labels, tuple(classes))

    table = prepared(everything, ("folder", str(path), split, size, test), make)
    return Raw(name_of(path), *table, source=str(path))


def _homes(root: Path) -> dict[str, Path]:
    """The folders that hold the class folders of each split; DataError if one would be lost."""
    there = {name.lower(): root / name for name in _classes(root)}
    trains, tests = (
        [there[name] for name in names if name in there] for names in (TRAIN_FOLDERS, TEST_FOLDERS)
    )
    if not trains:
        return {"train": root}
    if others := [f"{path.name}/" for path in there.values() if path not in (trains[0], *tests)]:
        also = ", ".join(others)
        raise DataError(f"{root} has {trains[0].name}/ and also {also}: which are splits?")
    return {"train": trains[0]} | ({"test": tests[0]} if tests else {})


def _classes(home: Path) -> list[str]:
    return [path.name for path in sorted(home.iterdir()) if path.is_dir() and _visible(path)]


def _files(home: Path) -> list[Path]:
    """The images below the class folders, or directly in a folder that has none."""
    classes = _classes(home)
    found = [path for name in classes for path in sorted((home / name).rglob("*"))]
    paths = found if classes else sorted(home.iterdir())
    for path in paths:
        if path.is_symlink() and not path.exists() and _visible(path):
            raise DataError(f"{path} is a link to nothing")
    files = [path for path in paths if path.is_file() and _visible(path)]
    if not files:
        raise DataError(f"{home} holds no images")
    return files


def _visible(path: Path) -> bool:
    return not path.name.startswith(".") and path.name != "Thumbs.db"
