"""Images that another tool made: a folder of files, or an array."""

import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffuse.data.decoding import decode, is_lossy
from diffuse.data.splits import below
from diffuse.errors import DataError
from diffuse.foreign.reading import OF_TENSORS, Entry, Unread, entries_of, wanted

log = logging.getLogger(__name__)
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
KEYS = ("images", "arr_0", "samples")  # what others call the images of an .npz
LABELS = ("labels", "arr_1")  # and their classes
MOST_CLASSES = 2**31
STATISTICS = {"mu", "sigma"}  # of features: those are no images
ROUND = "round it yourself, e.g. (x * 255).round().clip(0, 255).astype('uint8') if x is in [0, 1]"


@dataclass(frozen=True, eq=False)
class Images:
    """Images that another tool made, in the order of their names."""

    images: Tensor  # uint8 [n c h w], c = 1 (gray) or 3 (RGB)
    sha256: str  # of their shape and pixels, so that PNG files and an array give the same
    source: str  # where they came from, for people
    labels: Tensor | None = None  # int64 [n], the whole numbers that stand beside them
    doubts: tuple[str, ...] = ()  # about what was done to them before


def read_images(path: str | Path) -> Images:
    """A folder of images (and of folders of them), an .npy or .npz, a .safetensors or a .pt file.

    Arrays must be uint8, [n h w c], [n c h w] or [n h w]; which one, must be clear from the shape.
    """
    path = _kept(Path(path))
    kind = path.suffix.lower()
    if path.is_dir():
        images, doubts = _folder(path)
        return Images(images, _digest(images), str(path), doubts=doubts)
    if kind in (".npy", ".npz", *OF_TENSORS):
        found = entries_of(path)
    elif path.exists():
        raise DataError(f"{path} is no folder of images and no .npy, .npz, .safetensors or .pt")
    else:
        raise DataError(f"no images at {path}")
    images = _array(path, wanted(path, _first(path, found)))
    return Images(images, _digest(images), str(path), _labels(path, found, len(images)))


def _kept(path: Path) -> Path:
    """Of a run folder the images that it keeps: pictures of them lie beside them."""
    if not all((path / name).is_file() for name in ("run.json", "overrides.yaml")):
        return path
    for name in ("images", "images.npz", "images.npy"):
        if (path / name).exists():
            return path / name
    raise DataError(f"{path} is a run that keeps no images: save=png, npy or npz does")


def as_gray(given: Images) -> Images | None:
    """RGB images in which R = G = B everywhere as the gray ones they are; None if others."""
    gray = given.images[:, :1]
    if not all(torch.equal(gray, given.images[:, k : k + 1]) for k in (1, 2)):
        return None
    gray = gray.contiguous()
    return replace(given, images=gray, sha256=_digest(gray))


def _digest(images: Tensor) -> str:
    digest = hashlib.sha256(repr(tuple(images.shape)).encode())
    digest.update(images.numpy().data)
    return digest.hexdigest()


def _folder(path: Path) -> tuple[Tensor, tuple[str, ...]]:
    """Sorted so that 2.png comes before 10.png; hidden files and other kinds are left out."""
    files = below(path)
    images = sorted((f for f in files if f.suffix.lower() in SUFFIXES), key=_natural)
    if not images:
        raise DataError(f"{path} holds no images ({', '.join(s[1:] for s in SUFFIXES)})")
    if len(images) < len(files):
        other = next(f for f in files if f.suffix.lower() not in SUFFIXES)
        log.warning("%d files are no images and left out, e.g. %s", len(files) - len(images), other)
    doubts = []
    if lossy := [f for f in images if is_lossy(f)]:
        doubts = [f"{len(lossy)} images are compressed with loss, which a FID sees: {lossy[0]}"]
        log.warning("%s", doubts[0])
    said = "all must have one size"
    pixels = decode(len(images), lambda i: images[i], lambda i: str(images[i]), None, advice=said)
    return pixels, tuple(doubts)


def _natural(file: Path) -> list[list[tuple[int, str]]]:
    """Numbers by value, letters by letter, folder by folder."""
    return [
        [(int(word), word) if word.isdecimal() else (0, word) for word in re.split(r"(\d+)", part)]
        for part in file.parts
    ]


def _first(path: Path, found: Mapping[str, Any]) -> Any:
    """The only entry, or the one that is called as images are."""
    for key in KEYS:
        if key in found:
            return found[key]
    if len(found) == 1 and not STATISTICS & found.keys():
        return next(iter(found.values()))
    raise DataError(f"{path} holds {', '.join(found) or 'nothing'}; images must be {KEYS[0]!r}")


def _array(path: Path, array: np.ndarray) -> Tensor:
    shape = list(array.shape)
    if not array.size:
        raise DataError(f"{path} is {shape}: it holds no images")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{path}: some of its values are not finite (NaN or infinity)")
    if array.dtype.kind == "f":
        raise DataError(f"{path} is {array.dtype}, and its range would be a guess: {ROUND}")
    if array.dtype != np.uint8:
        raise DataError(f"{path} is {array.dtype}, images are uint8 in 0..255")
    if array.ndim == 3 and shape[2] in (3, 4):
        raise DataError(
            f"{path} is {shape}, one image in colour as it seems: images are [n h w c], [n c h w] "
            "or [n h w]"
        )
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4:
        raise DataError(f"{path} is {shape}, images are [n h w c], [n c h w] or [n h w]")
    first, last = (array.shape[axis] in (1, 3) for axis in (1, 3))
    if len(shape) == 4 and first == last:
        why = "could be [n h w c] or [n c h w]" if first else "has neither 1 nor 3 channels"
        raise DataError(f"{path} is {shape}, which {why}: save it so that one axis is the channels")
    images = torch.from_numpy(np.ascontiguousarray(array))
    return images if first else images.permute(0, 3, 1, 2).contiguous()


def _labels(path: Path, found: Mapping[str, Entry], n: int) -> Tensor | None:
    """The whole numbers beside n images; others are ignored, because a FID does without."""
    key = next((key for key in LABELS if key in found), None)
    if key is None:
        return None
    entry = found[key]
    if isinstance(entry, Unread):
        why = f"that entry {entry}"
    elif entry.size != n:
        why = f"they are {entry.size:,}, the images {n:,}"
    elif entry.dtype.kind not in "iuf" or not (np.isfinite(entry) & (entry == entry.round())).all():
        why = "they are no whole numbers"
    elif entry.min() < -MOST_CLASSES or entry.max() > MOST_CLASSES:
        why = "they are no numbers of classes"
    else:
        return torch.from_numpy(entry.reshape(-1).astype(np.int64))
    log.warning("%s: its labels (%s) are ignored: %s", path, key, why)
    return None
