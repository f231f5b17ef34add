"""Labels for images without classes: clusters of one size, of images that look alike.

A network that is told a cluster learns faster than one that is told nothing, and no person has to
label anything (Hu et al., 2023, "Self-guided diffusion models"). All images are halved at the
median of their first principal component (Boley, 1998), and the halves again.
"""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

SIDE = 8  # pixels that an image is looked at with: clusters are about its shape, not its details
BATCH = 4096  # images that are shrunk at once


def names(k: int) -> tuple[str, ...]:
    """What the clusters are called where classes have names."""
    return tuple(f"cluster{i}" for i in range(k))


def clusters(train: Tensor, k: int, others: Tensor | None = None) -> Tensor:
    """The cluster of each of uint8 `train` [n c h w], int64 [n]: k of n / k images, give or take 1.

    Of `others` instead, which are on one side or the other of what divides these.

    Raises ValueError if there are fewer images than clusters, or images of two shapes.
    """
    if k > len(train):
        raise ValueError(f"clusters must be at most {len(train)}, the training images; got {k}")
    if others is not None and train.shape[1:] != others.shape[1:]:
        shapes = " and ".join("x".join(map(str, x.shape[1:])) for x in (train, others))
        raise ValueError(f"clusters take training and test images of one shape, got {shapes}")
    rows, asked = _small(train), _small(train[:0] if others is None else others)
    labels, found = torch.zeros(len(rows)).long(), torch.zeros(len(asked)).long()

    def halve(places: Tensor, theirs: Tensor, numbers: range) -> None:
        """Give the rows of these numbers, and of `asked`, one of these clusters each."""
        if len(numbers) == 1:
            labels[places], found[theirs] = numbers[0], numbers[0]
            return
        low, high = numbers[::2], numbers[1::2]  # so any first few clusters are from everywhere
        part = rows[places]
        mean = part.mean(0)
        direction = _first_component(part - mean)
        along = (part - mean) @ direction
        order = along.argsort(stable=True)
        first = round(len(part) * len(low) / len(numbers))
        below, above = order[:first], order[first:]
        middle = (along[below[-1]] + along[above[0]]) / 2
        side = (asked[theirs] - mean) @ direction < middle
        halve(places[below], theirs[side], low)
        halve(places[above], theirs[~side], high)

    halve(torch.arange(len(rows)), torch.arange(len(asked)), range(k))
    return labels if others is None else found


def _first_component(centred: Tensor) -> Tensor:
    """The direction [d] in which rows [n d] differ most; its largest entry is positive."""
    direction = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]
    return direction * direction[direction.abs().argmax()].sign()


def _small(images: Tensor) -> Tensor:
    """Shrunk images as rows, float64 [n d]: rounding moves nobody to another cluster."""
    sides = (min(SIDE, images.shape[-2]), min(SIDE, images.shape[-1]))
    parts = [adaptive_avg_pool2d(part.double(), sides).flatten(1) for part in images.split(BATCH)]
    return torch.cat(parts)
