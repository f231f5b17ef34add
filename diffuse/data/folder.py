"""Images in class folders: `<class>/*.png`, or `train/<class>/*.png` and `test/<class>/*.png`."""

from pathlib import Path

import torch

from diffuse.data.decoding import channels_of, check_size, decode, is_image
from diffuse.data.images import Raw
from diffuse.data.prepared import Table, prepared
from diffuse.data.splits import (
    KIND,
    below,
    check_share,
    existing,
    held_out,
    inside,
    name_of,
    readable,
)
from diffuse.errors import DataError


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
    kinds = {name: match[1].lower() for name in _classes(root) if (match := KIND.fullmatch(name))}
    trains, tests = ([n for n in kinds if kinds[n] in of] for of in (["train"], ["test", "val"]))
    if not trains:
        return {"train": root}
    if others := [f"{name}/" for name in _classes(root) if name not in (trains[0], *tests)]:
        also = ", ".join(others)
        raise DataError(f"{root} has {trains[0]}/ and also {also}: which are splits?")
    _check_loose(root)
    homes = {"train": root / trains[0]}
    return homes | ({"test": root / min(tests, key=kinds.__getitem__)} if tests else {})


def _classes(home: Path) -> list[str]:
    """Names that can be written and printed; DataError if one is not."""
    folders: list[Path] = []
    for path in inside(home):
        with readable(path):
            folders += [path] if path.is_dir() else []
    for path in folders:
        if path.name.encode(errors="ignore").decode() != path.name:
            raise DataError(f"{path} has a name that is not UTF-8: rename it")
    return [path.name for path in folders]


def _files(home: Path) -> list[Path]:
    """The images below the class folders, or directly in a folder that has none."""
    classes = _classes(home)
    if classes:
        _check_loose(home)
    found = [(folder, below(folder)) for folder in ([home / n for n in classes] or [home])]
    for folder, files in found:
        if not files:
            raise DataError(f"{folder} holds no images")
    return [file for _, files in found for file in files]


def _check_loose(folder: Path) -> None:
    """DataError if an image lies where only folders are looked into."""
    for path in inside(folder):
        if path.is_file() and is_image(path):
            raise DataError(f"{path} lies beside folders of images: move it into one of them")
