"""Cheap checks of the images themselves, uint8 [n c h w]: numbers that need no encoder."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from diffuse.metrics.intervals import BLOCKS, Estimate, around, blocks_of, of_share
from diffuse.seeds import generator


class PixelStatistics(NamedTuple):
    """In grey levels, 0 to 255, over all pixels and channels."""

    mean: Estimate
    sd: Estimate
    saturated: Estimate  # share of pixels that are 0 or 255


def pixel_statistics(images: Tensor, blocks: int = BLOCKS, seed: int = 0) -> PixelStatistics:
    """Mean, deviation and saturation of the pixels, with intervals over images of this number."""
    rows = _rows(images)
    first = rows.double().mean(1)
    second = rows.double().square().mean(1)
    ends = ((rows == 0) | (rows == 255)).double().mean(1)
    sums = torch.stack([first, second, ends])
    whole = _statistics(sums.mean(1))
    total, n = sums.sum(1), len(rows)
    left_out = [
        _statistics((total - sums[:, part].sum(1)) / (n - len(part)))
        for part in blocks_of(n, blocks, seed)
    ]
    draws = list(zip(*left_out, strict=True))
    mean, sd = (around(whole[i], draws[i], 0, 255) for i in range(2))
    return PixelStatistics(mean, sd, of_share(whole[2], draws[2], n))


def sliced_wasserstein(
    a: Tensor, b: Tensor, projections: int = 128, blocks: int = BLOCKS
) -> Estimate:
    """The root mean W_2^2 of random projections: Rabin et al. (2012), Bonneel et al. (2015).

    In grey levels: the projections are unit vectors in the space of pixels. Each W_2 is exact, by
    sorting, for any numbers of images. The interval is over images a of this number; b is fixed. As
    FID it has a bias that falls with n, so compare at equal n only.
    """
    x, y = _rows(a), _rows(b)
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(f"images must be of one size, got {[*a.shape[1:]]} and {[*b.shape[1:]]}")
    if projections < 1:
        raise ValueError(f"projections must be at least 1, got {projections}")
    random = generator(0, "sliced")
    axes = torch.randn(x.shape[1], projections, generator=random, dtype=torch.float64)
    axes /= axes.norm(dim=0)
    found, order = _project(x, axes).sort()
    wanted = _project(y, axes).sort().values
    block = torch.empty(len(x), dtype=torch.int64)
    for i, rows in enumerate(blocks_of(len(x), blocks, 0)):
        block[rows] = i
    member = block[order]  # of each sorted value
    left_out = [
        _distance(found[member != i].reshape(projections, -1), wanted) for i in range(blocks)
    ]
    return around(_distance(found, wanted), left_out, least=0)


def _distance(x: Tensor, y: Tensor) -> float:
    """Root mean of the integrals of (F^-1 - G^-1)^2 over [0, 1]: steps at each i/n and j/m."""
    n, m = x.shape[1], y.shape[1]
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()
    widths = torch.diff(ends, prepend=ends.new_zeros(1)).double() / (n * m)
    gap = x[:, (ends - 1) // m] - y[:, (ends - 1) // n]
    return math.sqrt(float((gap.square() * widths).sum(1).mean()))


def _project(rows: Tensor, axes: Tensor) -> Tensor:
    """[projections n] in float64, some rows at a time."""
    return torch.cat([part.double() @ axes for part in rows.split(1024)]).T.contiguous()


def _statistics(means: Tensor) -> tuple[float, float, float]:
    first, second, ends = means.tolist()
    return first, math.sqrt(max(0.0, second - first**2)), ends


def _rows(images: Tensor) -> Tensor:
    if images.dtype != torch.uint8 or images.ndim != 4 or not images.numel():
        raise ValueError(f"images must be uint8 [n c h w], got {images.dtype} {[*images.shape]}")
    return images.detach().cpu().flatten(1)
