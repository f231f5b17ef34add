"""How sure a number is: what else it might have been with other samples, or with other seeds."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

import torch
from scipy.special import stdtrit
from torch import Tensor

from diffuse.seeds import generator

BLOCKS = 20  # of a jackknife, where there are rows enough
FEW = 5  # rows of a share: of fewer, a jackknife does not know how they scatter


class Interval(NamedTuple):
    low: float
    high: float


class Estimate(NamedTuple):
    """A number and its 95% interval."""

    value: float
    low: float
    high: float

    def record(self) -> dict:
        """As it stands in record.json."""
        return {"value": self.value, "ci95": [self.low, self.high]}


class Jackknifed(Estimate):
    """An estimate whose interval is a jackknife's: it knows what came of each block's absence."""

    left_out: tuple[float, ...] = ()  # the number without each block

    @classmethod
    def of(cls, estimate: Sequence[float], left_out: Iterable[float]) -> Self:
        """The same three numbers, and these."""
        found = cls(*estimate)
        found.left_out = tuple(left_out)
        return found

    def record(self) -> dict:
        """With them, if there are any: their differences are the interval of a difference."""
        more = {"jackknife": [*self.left_out]} if self.left_out else {}
        return super().record() | more


class Seeds(NamedTuple):
    """Several values of one number, and a 95% interval for their mean."""

    mean: float
    sd: float
    low: float
    high: float


def over_seeds(values: Sequence[float]) -> Seeds:
    """Student's t over the same number measured with several seeds (Student, 1908).

    It covers the mean over all seeds of what the seeds change, and nothing else: sampling seeds
    draw other images from one checkpoint, as a jackknife over images does from a single draw, so
    with many images both intervals agree and neither contains what another training would give.
    Values of several trainings cover that, too.
    """
    if len(values) < 2:
        raise ValueError(f"an interval over seeds needs at least 2 values, got {len(values)}")
    if bad := [value for value in values if not math.isfinite(value)]:
        raise ValueError(f"values must be finite, got {bad[0]}")
    mean, sd = statistics.fmean(values), statistics.stdev(values)
    reach = quantile(len(values) - 1) * sd / math.sqrt(len(values))
    return Seeds(mean, sd, mean - reach, mean + reach)


def wilson(share: float, n: float) -> Estimate:
    """A share of n independent rows, with Wilson's (1927) interval: never empty, not even at 0.

    A jackknife says that a share of 0 or 1 is certain, because every block agrees.
    """
    if not 0 <= share <= 1 or n <= 0:
        raise ValueError(f"a share is in [0, 1] of n > 0 rows, got {share} of {n}")
    z = 1.959963984540054
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return Estimate(
        share, max(0.0, min(share, centre - reach)), min(1.0, max(share, centre + reach))
    )


def around(
    value: float,
    draws: Sequence[float],  # with each block left out
    least: float = -math.inf,
    most: float = math.inf,
) -> Jackknifed:
    """The value with its jackknife interval, cut to what the number can be at all."""
    reach = reach_of(draws)
    ends = max(least, value - reach), min(most, value + reach)
    return Jackknifed.of([value, *ends], draws)


def of_share(value: float, draws: Sequence[float], n: int, together: int = 1) -> Estimate:
    """A share of n rows with its jackknife interval; near 0 or 1 it is at least Wilson's.

    Blocks that hold none of what is rare all agree, and prove nothing. `together` rows come into a
    small share at once; out of a large one rows stay one by one.
    """
    found = around(value, draws, 0, 1)
    rows = n / together if value < 0.5 else n
    if min(value, 1 - value) * rows > FEW:
        return found
    least = wilson(value, rows)
    return Estimate(value, min(found.low, least.low), max(found.high, least.high))


def blocks_for(n: int) -> int:
    """Into how many a jackknife divides n rows: of two at least."""
    return min(BLOCKS, n // 2)


def blocks_of(n: int, blocks: int, seed: int) -> tuple[Tensor, ...]:
    """The rows of each block. The division is random: samples may come sorted by class."""
    if not 2 <= blocks <= n // 2:
        raise ValueError(f"blocks must be in [2, n / 2 = {n // 2}], got {blocks}")
    return torch.randperm(n, generator=generator(seed, "jackknife")).tensor_split(blocks)


def reach_of(draws: Sequence[float]) -> float:
    """Half of a 95% interval, from the statistic with each block left out."""
    blocks = len(draws)
    return quantile(blocks - 1) * math.sqrt((blocks - 1) * statistics.pvariance(draws))


def quantile(freedom: float) -> float:
    """Of Student's t: half of a 95% interval in deviations."""
    return float(stdtrit(freedom, 0.975))
