"""Labels for images without classes: groups of one size, of images that look alike.

A network that is told a group learns faster than one that is told nothing, and no person has to
label anything (Hu et al., 2023, "Self-guided diffusion models"). A group is halved at the median of
its first principal component (Boley, 1998), and its halves again.
"""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

SIDE = 8  # pixels that an image is looked at with: groups are about its shape, not its details
BATCH = 4096  # images that are shrunk at once


def names(k: int) -> tuple[str, ...]:
    """What the groups are called where classes have names."""
    return tuple(f"cluster{i}" for i in range(k))


def clusters(train: Tensor, others: Tensor, k: int) -> Tensor:
    """The group of each of `others`, int64 [m], where uint8 `train` [n c h w] makes k of n / k.

    Groups differ by one image at most, but for images that are the same to the pixel.
    Raises ValueError if there are fewer images than groups, or images of two shapes.
    """
    if train.shape[1:] != others.shape[1:]:
        shapes = " and ".join("x".join(map(str, x.shape[1:])) for x in (train, others))
        raise ValueError(f"clusters take training and test images of one shape, got {shapes}")
    if k > len(train):
        raise ValueError(f"clusters must be at most {len(train)}, the training images; got {k}")
    labels = torch.zeros(len(others), dtype=torch.long)
    _halve(_small(train), _small(others), torch.arange(len(others)), range(k), labels)
    return labels


def _halve(train: Tensor, others: Tensor, rows: Tensor, groups: range, labels: Tensor) -> None:
    """Give rows of `labels`, which `others` belong to, one of `groups` each."""
    if len(groups) == 1:
        labels[rows] = groups[0]
        return
    low, high = groups[::2], groups[1::2]  # so any first few of the groups are from everywhere
    mean = train.mean(0)
    direction = _first_component(train - mean)
    along = (train - mean) @ direction
    first = round(len(train) * len(low) / len(groups))
    order = along.argsort(stable=True)
    threshold = along[order[first - 1 : first + 1]].mean()  # between two neighbours
    below = (others - mean) @ direction < threshold
    _halve(train[order[:first]], others[below], rows[below], low, labels)
    _halve(train[order[first:]], others[~below], rows[~below], high, labels)


def _first_component(centred: Tensor) -> Tensor:
    """The direction [d] in which rows [n d] differ most; its largest entry is positive."""
    direction = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]
    return direction * direction[direction.abs().argmax()].sign()


def _small(images: Tensor) -> Tensor:
    """Shrunk images as rows, float64 [n d]: rounding moves nobody to another group."""
    sides = (min(SIDE, images.shape[-2]), min(SIDE, images.shape[-1]))
    parts = [adaptive_avg_pool2d(part.double(), sides).flatten(1) for part in images.split(BATCH)]
    return torch.cat(parts)
