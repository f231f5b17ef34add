"""Numbers and images to PNG."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from diffuse.data import ImageSet

GRID_PIXELS = 512  # small images are enlarged until a grid is about this wide or high
EMPTY = 32  # the gray level where there is no image
GAP = 1  # pixels of the images between two of them


def grid(images: Tensor, columns: int | None = None) -> Image.Image:
    """uint8 [n c h w] -> one picture, row by row; whole pixels are repeated, nothing is blurred."""
    n, _, h, w = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    size = (images.shape[1], rows * (h + GAP) + GAP, columns * (w + GAP) + GAP)
    sheet = torch.full(size, EMPTY, dtype=torch.uint8)
    for k in range(n):
        top, left = (k // columns) * (h + GAP) + GAP, (k % columns) * (w + GAP) + GAP
        sheet[:, top : top + h, left : left + w] = images[k]
    scale = max(1, round(GRID_PIXELS / max(sheet.shape[1:])))
    sheet = sheet.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    return picture(sheet)


def picture(image: Tensor) -> Image.Image:
    """uint8 [c h w], gray or RGB -> a picture."""
    array = image.permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def save(picture: Image.Image, path: Path) -> Path:
    """Write a PNG in one go, so that a viewer never sees half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    picture.save(temporary, format="PNG")
    temporary.replace(path)
    return path


def by_class(images: Tensor, labels: Tensor) -> Image.Image:
    """A grid of all the images with a class a row; where that would be a thin strip, in turn."""
    rows = [images[labels == c] for c in labels.unique(sorted=True)]
    columns = max(map(len, rows))
    if columns < 2 or len(rows) < 2:
        return grid(images)
    short = [images.new_full((columns - len(row), *images.shape[1:]), EMPTY) for row in rows]
    return grid(
        torch.cat([part for pair in zip(rows, short, strict=True) for part in pair]), columns
    )


def dataset(images: "ImageSet", range: tuple[float, float], n: int, seed: int, path: Path) -> Path:
    """A sheet of images, a class a row where there are classes, and how often each class occurs."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from diffuse.data.images import moments
    from diffuse.seeds import generator

    order = torch.randperm(len(images), generator=generator(seed, "plot"))
    classes = images.spec.classes
    if classes:
        columns = max(1, n // len(classes))
        order = torch.cat(
            [order[images.labels[order] == c][:columns] for c in torch.arange(len(classes))]
        )
        sheet = grid(images.batch(order), columns)
    else:
        sheet = grid(images.batch(order[:n]))
    mean, std = moments(images.images, range)
    figure, axes = plt.subplots(
        1, 2 if classes else 1, figsize=(9 if classes else 6, 5.4), squeeze=False,
        width_ratios=[3, 2] if classes else [1], layout="constrained",
    )  # fmt: skip
    left = axes[0][0]
    left.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    left.axis("off")
    c, h, w = images.spec.shape
    figure.suptitle(
        f"{images.spec.name}: {len(images):,} images {c}x{h}x{w}\n"
        f"in [{range[0]:g}, {range[1]:g}]: mean {mean:.3f}, std {std:.3f}"
    )
    if classes:
        right = axes[0][1]
        counts = torch.bincount(images.labels, minlength=len(classes)).tolist()
        right.barh(classes, counts, color="#4477aa")
        right.invert_yaxis()
        right.set_title("images of each class")
        right.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
