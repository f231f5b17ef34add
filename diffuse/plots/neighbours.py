"""Images beside the training images that are nearest to them, with the distances."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffuse.plots.figures import COLOURS, EDGE, INK, LINE, drawing, files, wrapped
from diffuse.scoring.lookalikes import Lookalikes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDE = 0.68  # inches of an image
BETWEEN, ASIDE, BELOW = 0.05, 0.28, 0.2  # inches: images, groups of columns, rows
CHARACTER = 0.068  # inches of a character of the title
GENERATED = 1.0  # of the first column, which has a heading of its own
HEADINGS = ("generated:\nimage number", "nearest training images by features:\ndistance",
            "by pixels:\nrms difference in gray levels")  # fmt: skip


def neighbours(
    found: Lookalikes, threshold: float, median: float, title: str, path: Path
) -> list[Path]:
    """A row for each image. Distances below `threshold` stand out: that of 5% of test images."""
    n, k = found.features.numbers.shape
    lefts = [0.0, GENERATED + ASIDE]
    lefts.append(lefts[1] + k * (SIDE + BETWEEN) + ASIDE)
    wide, row = lefts[2] + k * (SIDE + BETWEEN), SIDE + BELOW
    words = (
        f"{title}: the nearest to a training image by features\n"
        f"of test images half are within {median:.3g} and 5% within {threshold:.3g} "
        "(marked here)"
    )
    words = wrapped(words, int(wide / CHARACTER))
    top, tall = EDGE + (words.count("\n") + 1) * LINE + 0.5, n * row
    width, height = wide + 2 * EDGE, top + tall + EDGE
    with drawing(path, width, height) as figure:
        axes = figure.add_axes((EDGE / width, EDGE / height, wide / width, tall / height))
        axes.axis("off")
        figure.text(EDGE / width, 1 - EDGE / height, words, va="top", fontsize=9.5)
        for left, heading in zip(lefts, HEADINGS, strict=True):
            axes.text(left, -0.06, heading, va="bottom", fontsize=8.5)
        for i, number in enumerate(found.numbers):
            _image(axes, found.images[i], 0.0, i * row)
            axes.text(SIDE + 0.05, i * row + SIDE / 2, f"{number:,}", va="center", fontsize=8)
        for left, group, mark in (
            (lefts[1], found.features, threshold),
            (lefts[2], found.pixels, 0),
        ):
            shown, digits = found.shown(group), decimals(group.distances)
            for i, j in torch.cartesian_prod(torch.arange(n), torch.arange(k)).tolist():
                x, y, distance = left + j * (SIDE + BETWEEN), i * row, float(group.distances[i, j])
                _image(axes, shown[i, j], x, y)
                near = distance < mark or distance == 0
                number = f"{distance:.{digits}f}" if distance else "0"
                axes.text(
                    x + SIDE / 2, y + SIDE + 0.015, number, ha="center", va="top",
                    fontsize=7.5, color=COLOURS[1] if near else INK,
                    fontweight="bold" if near else "normal",
                )  # fmt: skip
        axes.set_xlim(0, wide)
        axes.set_ylim(tall, 0)
    return files(path)


def decimals(distances: Tensor) -> int:
    """As many for all as the smallest takes to have three digits, at most 3."""
    smallest = min((d for d in distances.flatten().tolist() if d > 0), default=1.0)
    return min(3, max(0, 2 - math.floor(math.log10(smallest))))


def _image(axes: "Axes", image: Tensor, left: float, top: float) -> None:
    """uint8 [c h w] at a place in inches."""
    pixels = image.expand(3, -1, -1).permute(1, 2, 0).numpy()
    extent = (left, left + SIDE, top + SIDE, top)
    axes.imshow(pixels, extent=extent, interpolation="none", aspect="auto")
