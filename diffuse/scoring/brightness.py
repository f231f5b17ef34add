"""The mistake of the lessons, seen in the images themselves: a range that was taken for another."""

from collections.abc import Callable

import torch
from torch import Tensor

# what becomes of a level u in [0, 1] if pixels of one range are saved as if they were of another
MISTAKES: dict[str, Callable[[Tensor], Tensor]] = {
    "[0, 1] taken for [-1, 1]": lambda u: (u + 1) / 2,
    "[-1, 1] taken for [0, 1]": lambda u: 2 * u - 1,
    "[-0.5, 0.5] taken for [-1, 1]": lambda u: (u + 0.5) / 2,
    "[-1, 1] taken for [-0.5, 0.5]": lambda u: 2 * u - 0.5,
    "[-0.5, 0.5] taken for [0, 1]": lambda u: u - 0.5,
    "[0, 1] taken for [-0.5, 0.5]": lambda u: u + 0.5,
    "[0, 1] taken for [0, 255]": lambda u: u / 255,
    "black and white exchanged": lambda u: 1 - u,
}
FACTOR = 3.0  # nearer than as they are: a poor model is off by itself, but not in this very way
NEAR = 4.0  # grey levels between two histograms that are still alike


def mistaken_range(images: Tensor, real: Tensor) -> str | None:
    """The mistake that real images [m c h w] would have to go through to be as bright as these.

    Both uint8. Compared are the levels of all pixels, by the mean distance of their quantiles (the
    1-Wasserstein distance): None if the images are near the real ones, or nearest to them as they
    are.
    """
    found, levels = _shares(images), torch.arange(256, dtype=torch.float64) / 255
    shares = _shares(real)
    as_they_are = _distance(found, shares)
    if as_they_are < NEAR:
        return None
    distances = {}
    for name, change in MISTAKES.items():
        changed = (change(levels).clamp(0, 1) * 255).round().long()
        distances[name] = _distance(found, torch.zeros(256).double().index_add(0, changed, shares))
    nearest = min(distances, key=distances.__getitem__)
    return nearest if FACTOR * distances[nearest] < as_they_are else None


def _shares(images: Tensor) -> Tensor:
    """The share of pixels that each of the 256 levels has."""
    counts = torch.bincount(images.reshape(-1), minlength=256).double()
    return counts / counts.sum()


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a.cumsum(0) - b.cumsum(0)).abs().sum())
