"""FID against the number of samples: how much of it is bias, and what would be left without."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffuse.metrics.gaussian import frechets
from diffuse.metrics.intervals import blocks_of, reach_of
from diffuse.metrics.tables import Moments, as_pair, as_table
from diffuse.seeds import generator

GROUPS = (1, 2, 4, 5)  # of n, n/2, n/4 and n/5 rows
EVEN = 20  # divides into all of them
LEAST = 1000  # rows that an extrapolation to infinitely many begins with


class Point(NamedTuple):
    """FID at n rows: mean and sd over the subsets drawn."""

    n: int
    mean: float
    sd: float


class Extrapolation(NamedTuple):
    """FID(n) = value + slope / n, and a 95% interval for the value."""

    value: float
    low: float
    high: float
    slope: float
    points: tuple[Point, ...]  # what the line goes through, by falling n
    parabola: float  # where one through the same points ends: the interval goes on to there


def enough(features: int) -> int:
    """The rows from which on an interval of `fid_infinity` covers: n/5 make a full covariance.

    With fewer the FID is no smooth function of 1/n, and no fit says what is left of it.
    """
    return max(LEAST, max(GROUPS) * features)


def bias_curve(
    a: Tensor, b: Tensor | Moments, sizes: Sequence[int], draws: int = 10, seed: int = 0
) -> list[Point]:
    """FID of random subsets of a, without replacement, against all of b, or moments of it.

    The subsets come from one pool of len(a) rows, so the sd falls to 0 towards the whole pool: for
    fresh samples divide it by sqrt(1 - n / len(a)).
    """
    x, reference = _against(a, b)
    if draws < 2:
        raise ValueError(f"draws must be at least 2, got {draws}")
    for n in sizes:
        if not 2 <= n <= len(x):
            raise ValueError(f"sizes must be in [2, {len(x)}], the rows there are, got {n}")
    curve = []
    for n in sizes:
        orders = (
            torch.randperm(len(x), generator=generator(seed, "bias", n, draw))
            for draw in range(draws if n < len(x) else 1)  # there is only one whole pool
        )
        values = frechets((Moments.of(x[order[:n]]) for order in orders), reference)
        curve.append(Point(n, float(np.mean(values)), _sd(values)))
    return curve


def fid_infinity(a: Tensor, b: Tensor | Moments, blocks: int = 40, seed: int = 0) -> Extrapolation:
    """The intercept of FID against 1/n: Chong & Forsyth (2020), and how sure it is.

    The bias falls as 1/n in the leading order only. Random blocks are dealt out to 1, 2, 4 and 5
    groups, so that every row counts once at each n: all points have about the same variance, and
    the least squares weigh each n alike. The interval is that of the delete-a-block jackknife of
    the intercept, and goes on to where a parabola through the same points ends, since the line
    misses what falls faster. It covers the FID of infinitely many samples from `enough` on; the
    reference b is fixed, and its own bias of about 1/m stays in. It is 1.3 to 2.3 times too wide: a
    jackknife is (Efron & Stein, 1981), the more so the more curved the statistic.
    """
    x, reference = _against(a, b)
    if blocks < EVEN or blocks % EVEN:
        raise ValueError(f"blocks must be a multiple of {EVEN}, got {blocks}")
    if len(x) < 2 * blocks:
        raise ValueError(f"an extrapolation needs at least {2 * blocks} rows, got {len(x)}")
    parts = [Moments.of(x[rows]) for rows in blocks_of(len(x), blocks, seed)]
    groups = [range(i, blocks, number) for number in GROUPS for i in range(number)]
    wholes = [_sum([parts[j] for j in group]) for group in groups]
    deleted = [(j, g) for j in range(blocks) for g, group in enumerate(groups) if j in group]
    without = (wholes[g] - parts[j] for j, g in deleted)  # one at a time: each is [d d]
    found = frechets(itertools.chain(wholes, without), reference)
    sizes, values = [moments.n for moments in wholes], found[: len(groups)]
    changed = dict(zip(deleted, found[len(groups) :], strict=True))
    intercepts = []
    for j in range(blocks):
        n = [size - parts[j].n * ((j, g) in changed) for g, size in enumerate(sizes)]
        fids = [changed.get((j, g), value) for g, value in enumerate(values)]
        intercepts.append(_fit(n, fids, 1)[0])
    value, slope = _fit(sizes, values, 1)
    reach, bent = reach_of(intercepts), _fit(sizes, values, 2)[0]
    low, high = min(value, bent) - reach, max(value, bent) + reach
    return Extrapolation(value, low, high, slope, _points(sizes, values), bent)


def _against(a: Tensor, b: Tensor | Moments) -> tuple[Tensor, Moments]:
    """A table and the moments of what it is compared with; ValueError if they do not fit."""
    reference = b if isinstance(b, Moments) else Moments.of(b)
    return as_pair(as_table(a), reference.mean[None])[0], reference


def _points(sizes: list[int], values: list[float]) -> tuple[Point, ...]:
    points, start = [], 0
    for number in GROUPS:
        some = values[start : start + number]
        n = round(float(np.mean(sizes[start : start + number])))
        points.append(Point(n, float(np.mean(some)), _sd(some)))
        start += number
    return tuple(points)


def _fit(sizes: list[int], values: list[float], degree: int) -> list[float]:
    """Least squares through (1/n, FID), each weighed by its rows: the coefficients of 1/n^k."""
    n = np.array(sizes, dtype=np.float64)
    roots, powers = np.sqrt(n / n.sum()), np.arange(degree + 1)
    columns = (n.max() / n[:, None]) ** powers * roots[:, None]
    found = np.linalg.lstsq(columns, np.array(values) * roots, rcond=None)[0]
    return (found * n.max() ** powers).tolist()


def _sum(moments: Sequence[Moments]) -> Moments:
    first, *rest = moments
    return sum(rest, start=first)


def _sd(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
