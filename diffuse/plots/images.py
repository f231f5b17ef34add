"""Images side by side, pixel by pixel: PNG and GIF."""

import io
import math
from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from diffuse import files

GRID_PIXELS = 512  # small images are enlarged until a grid is about this wide or high
EMPTY = 32  # the gray level where there is no image
GAP = 1  # pixels of the images between two of them
BAR = 4  # pixels of height, under the frames of an animation
STRIP = 3  # times as high as wide: more is no grid
SECONDS, FASTEST, LAST = 6.0, 20, 2000  # of an animation; milliseconds of a frame, of the last one


def grid(images: Tensor, columns: int | None = None, pixels: int = GRID_PIXELS) -> Image.Image:
    """uint8 [n c h w] -> one picture, row by row; whole pixels are repeated, nothing is blurred."""
    n, _, h, w = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    size = (images.shape[1], rows * (h + GAP) + GAP, columns * (w + GAP) + GAP)
    sheet = torch.full(size, EMPTY, dtype=torch.uint8)
    for k in range(n):
        top, left = (k // columns) * (h + GAP) + GAP, (k % columns) * (w + GAP) + GAP
        sheet[:, top : top + h, left : left + w] = images[k]
    scale = max(1, round(pixels / max(sheet.shape[1:])))
    sheet = sheet.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    return picture(sheet)


def picture(image: Tensor) -> Image.Image:
    """uint8 [c h w], gray or RGB -> a picture."""
    array = image.permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def save(picture: Image.Image, path: Path) -> Path:
    """Write a PNG in one go, so that a viewer never sees half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    picture.save(content, format="PNG")
    return files.replace(path, content.getvalue())


def by_class(images: Tensor, labels: Tensor) -> Image.Image:
    """A grid of all the images with a class a row; where that would be a thin strip, a square."""
    rows = [images[labels == c] for c in labels.unique(sorted=True)]
    columns = max(map(len, rows))
    if len(rows) < 2 or len(rows) > STRIP * columns:
        return grid(images)
    short = [images.new_full((columns - len(row), *images.shape[1:]), EMPTY) for row in rows]
    return grid(
        torch.cat([part for pair in zip(rows, short, strict=True) for part in pair]), columns
    )


def animation(frames: Iterable[Image.Image], n: int, path: Path) -> Path:
    """n pictures of one size as a GIF of some seconds, with a bar that fills under them.

    The bar makes every frame another one: PIL leaves out a frame that repeats the one before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    marked = (_with_bar(frame, (k + 1) / n) for k, frame in enumerate(frames))
    first = next(marked)
    each = max(FASTEST, round(1000 * SECONDS / n))
    first.save(
        content, format="GIF", save_all=True, append_images=marked, loop=0, optimize=False,
        duration=[each] * (n - 1) + [LAST],
    )  # fmt: skip
    return files.replace(path, content.getvalue())


def _with_bar(frame: Image.Image, share: float) -> Image.Image:
    """The frame with a bar under it; the last pixel of the bar is as bright as it is filled."""
    bar = (torch.arange(frame.width).neg() + share * frame.width).clamp(0, 1)
    strip = (EMPTY + (255 - EMPTY) * bar).round().to(torch.uint8).expand(1, BAR, -1)
    whole = Image.new(frame.mode, (frame.width, frame.height + BAR))
    whole.paste(frame, (0, 0))
    whole.paste(picture(strip).convert(frame.mode), (0, frame.height))
    return whole
