"""How many images and how many trainings it takes to tell two runs' FIDs apart."""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.special import chdtr, chdtri, nctdtr, roots_jacobi, stdtrit

from diffuse.metrics.intervals import BLOCKS

NODES = 32  # of the integral over how two deviations may come out: from 16 on, 7 digits stay


class Spread(NamedTuple):
    """How far one run's FID scatters, as measured."""

    images: float  # sd over samples of n images from one checkpoint
    n: int
    seeds: float = 0.0  # sd between trainings that differ in their seed alone, without `images`

    def variance(self, n: int) -> float:
        """Of one training's FID at n images: more of them reduce the first part alone."""
        return self.images**2 * self.n / n + self.seeds**2


class Need(NamedTuple):
    n: int  # images of each training
    seeds: int  # trainings of each run
    power: float  # how often the interval then excludes 0


def at_most(values: int, sure: float) -> float:
    """What a deviation that so many values gave is multiplied by: the true one is at most that,
    with this confidence.

        sqrt((k - 1) / chi2_{1 - sure, k - 1}),  of k values of a normal

    With `sure` = 0.8 it is what to plan with (Browne, 1995: "On the use of a pilot sample for
    sample size determination"): with the deviation as measured a plan promises too much more often
    than not, since half of the deviations of few values are much too small.
    """
    if values < 2 or not 0 < sure < 1:
        raise ValueError(f"it takes 2 values and a share in (0, 1), got {values} and {sure}")
    return math.sqrt((values - 1) / float(chdtri(values - 1, sure)))


def power_of(delta: float, spread: Spread, n: int, seeds: int) -> float:
    """How often a 95% interval for a difference delta excludes 0, on the side where delta is.

    With several trainings it is Welch's t-test (1947) of two means of `seeds` values each, whose
    true deviations are the same. With one it is Student's, of a jackknife over BLOCKS blocks, and
    the verdict is on these two checkpoints only: what trainings differ by is not in the interval.
    """
    if not delta > 0:  # NaN is not, either
        raise ValueError(f"delta must be > 0, got {delta}")
    if n < 2 or seeds < 1:
        raise ValueError(f"power needs n of at least 2 and a seed, got n={n} and seeds={seeds}")
    alone = spread._replace(seeds=0.0) if seeds == 1 else spread
    error = math.sqrt(2 * alone.variance(n) / seeds)
    if error == 0:
        return 1.0
    if seeds == 1:
        return float(_beyond(BLOCKS - 1, delta / error, stdtrit(BLOCKS - 1, 0.975)))
    return _welch(delta / error, seeds)


def _welch(shift: float, number: int) -> float:
    """How often Welch's t exceeds its quantile where the difference is `shift` standard errors.

    Of two deviations from k values each, the freedom depends on their shares b and 1 - b alone,
    (k - 1) / (b^2 + (1 - b)^2), and the error on their sum alone; of normals the two are
    independent. So it is the mean over b, which is Beta((k - 1) / 2, (k - 1) / 2), of tails of the
    noncentral t with 2 (k - 1) degrees of freedom: a Gauss-Jacobi sum.
    """
    reach, weights = _quantiles(number)
    return float(np.average(_beyond(2 * (number - 1), shift, reach), weights=weights))


@cache
def _quantiles(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Of Welch's t at each node, and how much the node counts: [NODES] each."""
    nodes, weights = roots_jacobi(NODES, (number - 3) / 2, (number - 3) / 2)
    share = (1 + nodes) / 2
    return stdtrit((number - 1) / (share**2 + (1 - share) ** 2), 0.975), weights


def _beyond(freedom: int, shift: float, reach: np.ndarray) -> np.ndarray:
    """How often noncentral t exceeds `reach`: Cohen (1988), Chapter 2.

    Beyond a shift of 30 nctdtr may be NaN, and the numerator hardly scatters: chi-square is left.
    """
    if shift > 30:
        with np.errstate(over="ignore"):  # infinity is far enough
            return chdtr(freedom, freedom * (shift / reach) ** 2)
    return 1 - nctdtr(freedom, shift, reach)


def resolved(spread: Spread, n: int, seeds: int, wanted: float = 0.8) -> float:
    """The smallest difference that n images and so many trainings resolve with this power."""
    _check(spread, wanted)
    low, high = 0.0, math.sqrt(spread.variance(n))
    if high == 0:
        return 0.0
    while power_of(high, spread, n, seeds) < wanted:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        enough = middle and power_of(middle, spread, n, seeds) >= wanted
        low, high = (low, middle) if enough else (middle, high)
    return high


def needed(
    delta: float,
    spread: Spread,
    wanted: float = 0.8,  # power
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5, 8, 10, 16),
    most: int = 1_000_000,  # images
) -> list[Need]:
    """The fewest images for each number of trainings, where there are enough; cheapest is the
    caller's to say. It is empty where the trainings alone scatter too much.

    The variance at n images falls as 1/n and the bias cancels, since both runs have the same n and
    reference. One training is left out where trainings scatter: it can resolve two checkpoints, but
    not two ways to train.
    """
    _check(spread, wanted)
    needs = []
    for number in seeds:
        if number == 1 and spread.seeds > 0:
            continue
        low, high = 1, most
        if power_of(delta, spread, high, number) < wanted:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            enough = power_of(delta, spread, middle, number) >= wanted
            low, high = (low, middle) if enough else (middle, high)
        needs.append(Need(high, number, power_of(delta, spread, high, number)))
    return needs


def _check(spread: Spread, wanted: float) -> None:
    if not 0.05 < wanted < 1:
        raise ValueError(f"the power wanted must be in (0.05, 1), got {wanted}")
    if not (spread.images >= 0 and spread.seeds >= 0 and spread.n >= 2):
        raise ValueError(f"deviations must be at least 0, of n of at least 2, got {spread}")
