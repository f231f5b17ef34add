"""How many images and how many trainings it takes to tell two runs' FIDs apart."""

import math
from typing import NamedTuple

from scipy.special import nctdtr, stdtrit

from diffuse.metrics.intervals import BLOCKS


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


def power_of(delta: float, spread: Spread, n: int, seeds: int) -> float:
    """How often a 95% interval for a difference delta excludes 0, on the side where delta is.

    Student's t-test of two means of `seeds` values each; its power is a tail of the noncentral t
    distribution: Cohen (1988), Chapter 2. With several trainings the deviation is estimated from
    them. With one, it is the jackknives' over BLOCKS blocks, and the verdict is on these two
    checkpoints only: what trainings differ by is in neither interval.
    """
    if not delta > 0:  # NaN is not, either
        raise ValueError(f"delta must be > 0, got {delta}")
    if n < 2 or seeds < 1:
        raise ValueError(f"power needs n of at least 2 and a seed, got n={n} and seeds={seeds}")
    alone = spread._replace(seeds=0.0) if seeds == 1 else spread
    error = math.sqrt(2 * alone.variance(n) / seeds)
    freedom = 2 * (BLOCKS - 1) if seeds == 1 else 2 * (seeds - 1)
    if error == 0:
        return 1.0
    # `compare` adds the jackknives' intervals up in quadrature
    reach = float(stdtrit(BLOCKS - 1 if seeds == 1 else freedom, 0.975))
    return 1 - float(nctdtr(freedom, min(delta / error, 30.0), reach))  # beyond 30 it is 1


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
