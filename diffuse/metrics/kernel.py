"""The kernel distance of two tables of features, and how sure it is."""

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from diffuse.metrics.intervals import BLOCKS, Interval, blocks_of, quantile, reach_of
from diffuse.metrics.tables import as_pair, as_table
from diffuse.seeds import generator


class Kid(NamedTuple):
    value: float  # the mean over subsets
    sd: float  # between subsets, not the error of the mean


def kid(a: Tensor, b: Tensor, subsets: int = 100, size: int | None = None, seed: int = 0) -> Kid:
    """Unbiased MMD^2 with kernel (x.y / d + 1)^3 over random subsets.

    Binkowski et al. (2018), section 3. `size` defaults to 1,000 or the smaller table. Subsets are
    drawn without replacement.
    """
    x, y = as_pair(as_table(a), as_table(b))
    most = min(len(x), len(y))
    size = min(1000, most) if size is None else size
    if subsets < 1:
        raise ValueError(f"subsets must be at least 1, got {subsets}")
    if not 2 <= size <= most:
        raise ValueError(f"size must be in [2, {most}], the smaller table's length, got {size}")
    random = generator(seed, "kid")
    draws = torch.stack(
        [_mmd(_subset(x, size, random), _subset(y, size, random)) for _ in range(subsets)]
    )
    return Kid(float(draws.mean()), float(draws.std(correction=0)))


def kid_interval(
    a: Tensor,
    b: Tensor,
    measured: Kid,  # kid(a, b, subsets)
    subsets: int,
    blocks: int = BLOCKS,
    seed: int = 0,
) -> Interval:
    """A 95% interval for E[kid(a, b)] over samples a of this size; the reference b is fixed.

    The subsets scatter around the MMD^2 of the whole tables, that around its mean: the first
    adds Student's t over the subsets, the second a delete-a-block jackknife. KID may be negative.
    """
    if subsets < 2:
        raise ValueError(f"an interval needs at least 2 subsets, got {subsets}")
    x, y = as_pair(as_table(a), as_table(b))
    parts = [x[rows] for rows in blocks_of(len(x), blocks, seed)]
    across = torch.stack([_kernel(part, y).sum() for part in parts])
    within = x.new_zeros(blocks, blocks)
    for i, j in itertools.combinations_with_replacement(range(blocks), 2):
        kernel = _kernel(parts[i], parts[j])
        within[i, j] = within[j, i] = kernel.sum() - (kernel.trace() if i == j else 0)
    n = len(x) - torch.tensor([len(part) for part in parts])
    left = within.sum() - 2 * within.sum(0) + within.diagonal()
    draws = left / (n * (n - 1)) - 2 * (across.sum() - across) / (n * len(y))
    over_subsets = quantile(subsets - 1) * measured.sd / math.sqrt(subsets - 1)
    reach = math.hypot(reach_of(draws.tolist()), over_subsets)
    return Interval(measured.value - reach, measured.value + reach)


def _subset(table: Tensor, size: int, random: torch.Generator) -> Tensor:
    return table[torch.randperm(len(table), generator=random)[:size]]


def _mmd(x: Tensor, y: Tensor) -> Tensor:
    """Gretton et al. (2012), Eq. 3, for as many x as y: diagonals are left out of xx and yy."""
    n = len(x)
    xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    within = (xx.sum() - xx.trace() + yy.sum() - yy.trace()) / (n * (n - 1))
    return within - 2 * xy.mean()


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    base = (x @ y.T).div_(x.shape[1]).add_(1)
    return base.square().mul_(base)
