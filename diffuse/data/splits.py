"""Which images are held out when nobody has said so, and other checks that file readers share."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from diffuse.errors import DataError

# what folders and files of a split are called, in any case of letters
KIND = re.compile(r"(train|test|val)(?:id|idation|ing|[_-]?set)?(?![a-z])", re.IGNORECASE)


def held_out(count: int, share: float) -> Tensor:
    """Mark a seeded `share` of `count` images, at least one and not all: bool [count]."""
    if count < 2:
        raise DataError(f"at least 2 images are needed to hold some out, there are {count}")
    many = min(max(round(count * share), 1), count - 1)
    mark = torch.zeros(count, dtype=torch.bool)
    mark[torch.randperm(count, generator=torch.Generator().manual_seed(0))[:many]] = True
    return mark


def check_share(test: float) -> None:
    """ValueError unless the share that is held out is in (0, 1)."""
    if not 0 < test < 1:
        raise ValueError(f"test must be in (0, 1), the share that is held out, got {test!r}")


def existing(dataset: str, root: str | None) -> Path:
    """`root` as a path that exists; naming it is up to the user."""
    if root is None:
        raise ValueError(f"root: {dataset} needs a path, e.g. dataset.root=my_images")
    path = Path(root).expanduser()
    with readable(path):
        if not path.exists():
            raise DataError(f"{path} is missing (dataset.root)")
    return path.absolute()


def name_of(path: Path) -> str:
    """What to call a data set that lies there, in characters that any file name may have."""
    return re.sub(r"[^\w.-]+", "-", path.name if path.is_dir() else path.stem)


def sounds_like(name: str, known: str) -> bool:
    """Is it the same but for capitals and what stands between letters and digits: CIFAR-10?"""
    return re.sub(r"[\W_]", "", name).lower() == re.sub(r"[\W_]", "", known).lower()


def below(folder: Path, above: tuple[Path, ...] = ()) -> list[Path]:
    """All files below a folder, in order; links are followed."""
    here = folder.resolve()
    if any(here in (place, *place.parents) for place in above):
        raise DataError(f"{folder} is a link to a folder it lies in")
    found: list[Path] = []
    for path in inside(folder):
        with readable(path):
            if path.is_symlink() and not path.exists():
                raise DataError(f"{path} is a link to nothing")
            is_folder, is_file = path.is_dir(), path.is_file()
        if is_folder:
            found += below(path, (*above, here))
        elif is_file:
            found.append(path)
    return found


def inside(folder: Path) -> list[Path]:
    """What lies in a folder, in order, without what is hidden."""
    with readable(folder):
        paths = sorted(folder.iterdir())
    return [path for path in paths if path.name[0] != "." and path.name != "Thumbs.db"]


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Also of a folder that may not be searched: whether it has a file, nobody knows."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
