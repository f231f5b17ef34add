"""Encoded images (PNG, JPEG, ...) to one uint8 array, refusing whatever would be a guess."""

import io
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from diffuse.errors import DataError, reason

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
log = logging.getLogger("diffuse.data")
GRAY, COLOUR, ALPHA = ("1", "L", "LA"), ("P", "RGB", "RGBA", "PA"), ("LA", "RGBA", "PA")
FIRST_COUNTS = "MPO"  # a telephone's JPEG: the others are depths, previews, the same again
SIXTEEN = re.compile(r";16[BLN]$")  # of what Pillow reads; "BGR;16" has 16 bits a pixel
Read = Callable[[int], Path | bytes]  # image number -> a file, or the content of one
Where = Callable[[int], str]  # image number -> what to call it in a message


def decode(
    count: int,
    read: Read,
    where: Where,
    size: int | None,
    channels: int | None = None,  # 1 or 3; null = gray if all are gray, else RGB
    advice: str = "set dataset.size=64, for example, to resize all of them",  # if several sizes
) -> Tensor:
    """Decode `count` images into uint8 [n c h w].

    With `size` every image is resized (bicubic, antialiased) until its shorter side has that many
    pixels and cropped to the square in the middle; without, all must have the size of the first.
    """
    if count == 0:
        raise DataError("no images")
    channels = channels or channels_of(count, read, where)
    first = _opened(read(0), where(0), lambda image: _pixels(image, channels, size))
    result = torch.empty((count, *first.shape), dtype=torch.uint8)
    for i in range(count):
        pixels = _opened(read(i), where(i), lambda image: _pixels(image, channels, size))
        if pixels.shape != first.shape:
            got, expected = (f"{p.shape[2]}x{p.shape[1]}" for p in (pixels, first))
            raise DataError(f"{where(i)} is {got} but {where(0)} is {expected}: {advice}")
        result[i] = pixels
        if (i + 1) % 20_000 == 0:
            log.info("decoded %d of %d images", i + 1, count)
    return result


def channels_of(count: int, read: Read, where: Where) -> int:
    """1 if all images are gray, else 3; only what stands before the pixels is read."""
    return max((_opened(read(i), where(i), _channels) for i in range(count)), default=1)


def check_size(size: int | None) -> None:
    """ValueError unless it is null or a side of 1 to 1024 pixels."""
    if size is not None and (type(size) is not int or not 1 <= size <= 1024):
        raise ValueError(f"size must be null or an integer in 1..1024, got {size!r}")


def _opened(content: Path | bytes, where: str, use: Callable[["Image"], T]) -> T:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            return use(image)
    except _RefusedError as error:
        raise DataError(f"{where} {error}") from error
    except FileNotFoundError as error:
        linked = isinstance(content, Path) and content.is_symlink()
        what = "is a link to nothing" if linked else "is missing"
        raise DataError(f"{where} {what}") from error
    except Exception as error:  # damaged files make decoders raise nearly anything
        raise DataError(f"{where} is truncated or not an image ({reason(error)})") from error


def is_image(path: Path) -> bool:
    """Whether a file begins like an image, which may still be damaged or refused."""
    from PIL import Image

    try:
        with Image.open(path):
            return True
    except Exception:  # as when it is decoded
        return False


def is_lossy(path: Path) -> bool:
    """Whether compression has changed an image, whatever it is called; of none that is damaged."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            kind, inside = image.format, str(image.info.get("compression"))
        if kind == "WEBP":  # which Pillow does not tell apart
            with path.open("rb") as opened:
                return b"VP8L" not in opened.read(4096)
    except Exception:  # as when it is decoded
        return False
    return kind in ("JPEG", "MPO") or "jpeg" in inside


class _RefusedError(Exception):
    """An image that is sound, but that could only be used by guessing."""


def _channels(image: "Image") -> int:
    if image.mode not in GRAY + COLOUR:
        raise _RefusedError(f"has pixels of kind {image.mode}: convert it to 8-bit gray or RGB")
    if _sixteen_bits(image):
        raise _RefusedError("has 16 bits a channel: convert it to 8-bit gray or RGB")
    return 1 if image.mode in GRAY else 3


def _sixteen_bits(image: "Image") -> bool:
    """Pillow cuts the lower half off without a word, and only the way it is going to read says so.

    Gray ones have a mode of their own.
    """
    for codec, _, _, given in getattr(image, "tile", ()):
        first, *rest = given if isinstance(given, tuple) else (given,)
        if SIXTEEN.search(str(first)) or (codec.startswith("ppm") and rest and rest[0] > 255):
            return True
    return False


def _pixels(image: "Image", channels: int, size: int | None) -> Tensor:
    import numpy as np
    from PIL import Image, ImageOps

    pictures = getattr(image, "n_frames", 1)
    if pictures > 1 and image.format != FIRST_COUNTS:
        raise _RefusedError(f"holds {pictures} pictures: keep each as a file of its own")
    may_be_transparent = image.mode in ALPHA or "transparency" in image.info
    if may_be_transparent and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise _RefusedError("is transparent in places: put it on a background first")
    upright = ImageOps.exif_transpose(image).convert("RGB" if channels == 3 else "L")
    if size is not None and upright.size != (size, size):
        upright = ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC)
    array = np.array(upright)
    return torch.from_numpy(array.reshape(*array.shape[:2], channels)).permute(2, 0, 1)
