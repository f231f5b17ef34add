"""A data set on one sheet."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from diffuse.data import ImageSet
from diffuse.data.images import moments
from diffuse.plots.figures import sheet
from diffuse.seeds import generator

BLANK = 255


def dataset(images: ImageSet, range: Sequence[float], n: int, seed: int, path: Path) -> list[Path]:
    """About n images, a class a row if n is enough for that, and how often each class occurs."""
    order = torch.randperm(len(images), generator=generator(seed, "plot"))
    classes = images.spec.classes if n >= len(images.spec.classes) else ()
    columns = max(1, n // len(classes)) if classes else math.ceil(math.sqrt(min(n, len(images))))
    if classes:
        labels = images.labels.cpu()[order]
        chosen = [order[labels == c][:columns] for c in torch.arange(len(classes))]
    else:
        chosen = list(order[:n].split(columns))
    rows = torch.full((len(chosen), columns, *images.spec.shape), BLANK, dtype=torch.uint8)
    for row, indices in zip(rows, chosen, strict=True):
        row[: len(indices)] = images.batch(indices).cpu()
    mean, std = moments(images.images, range)
    c, h, w = images.spec.shape
    title = (
        f"{images.spec.name}: {len(images):,} images {c}x{h}x{w}, "
        f"in [{range[0]:g}, {range[1]:g}] mean {mean:.3f}, std {std:.3f}"
    )
    counts = torch.bincount(images.labels.cpu(), minlength=len(classes)) if classes else None
    return sheet(
        path,
        rows,
        title,
        classes or [""] * len(rows),
        counts=[] if counts is None else counts.tolist(),
    )
