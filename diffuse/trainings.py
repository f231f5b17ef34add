"""Ways to train: what several trainings of each, which differ in their seed alone, say together."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from diffuse.comparison import Difference
from diffuse.metrics import quantile
from diffuse.passport import Differing, shown

# what may differ between two trainings of one config, and the draws from them
APART = {f"weights.{name}" for name in ("run", "step", "sha256", "images_seen", "half_life")}
APART |= {f"sampler.guidance.weak.{name}" for name in ("step", "sha256")}  # of the same training
APART |= {"seeds.seed", "sampler.nfe"}  # calls: how images are drawn says it, or each network
LENGTH = "train.steps"
BY_THE_CLOCK = 0.1  # of their steps: trainings of equal minutes are not of equal steps


@dataclass(frozen=True)
class Way:
    """Trainings that differ in their seed alone, and images drawn from them alike."""

    name: str  # what sets it apart from the others, e.g. "schedule=cosine"
    records: tuple[int, ...]  # which of those that are compared


@dataclass(frozen=True)
class Pooled:
    """One number of a way, over its trainings."""

    way: Way
    mean: float
    sd: float | None  # None of one training
    difference: Difference | None  # of means, from the first way's; None of the first
    borrowed: bool = False  # is a deviation that of other ways, for want of a second training?
    narrower: float | None = None  # times, with one more training of each, which might show it

    @property
    def note(self) -> str:
        """What limits the difference; "" if nothing more than usual does."""
        if self.borrowed:
            return "of a single training the scatter is not known: that of the others is taken"
        if self.narrower:
            times = f"{self.narrower:.1f} times narrower"
            return f"one more training of each would make this interval about {times}"
        return ""


def ways(
    changed: Mapping[str, Sequence[Any]],  # keys of the training configs that differ, by record
    tried: Sequence[Differing],  # and fields of the records
    steps: Sequence[int],  # of each one's weights
) -> list[Way]:
    """The records by the way they were trained and drawn; none if no way was trained twice.

    Two records of one way have to be of two trainings, so of two seeds. Equal minutes are about as
    many steps within a way, and may be any other number in another way, which is faster or slower.
    """
    apart = {key: values for key, values in changed.items() if key not in ("seed", LENGTH)}
    apart |= {one.field: one.values for one in tried if one.field not in APART}
    seeds = changed.get("seed", [None] * len(steps))
    lengths = changed.get(LENGTH, [None] * len(steps))
    for more in ({}, {LENGTH: _about(lengths)}, {LENGTH: lengths}):
        found = _grouped(apart | more, len(steps))
        if all(_is_way(members, seeds, lengths, steps) for members in found):
            apart |= more
            break
    else:
        return []
    if len(found) < 2 or len(found) == len(steps):
        return []
    firsts = [members[0] for members in found]
    return [Way(_name(apart, members[0], firsts), tuple(members)) for members in found]


def _grouped(apart: Mapping[str, Sequence[Any]], number: int) -> list[list[int]]:
    """The records 0, 1, ... in which all of these are the same."""
    found: dict[tuple[str, ...], list[int]] = {}
    for k in range(number):
        found.setdefault(tuple(shown(values[k]) for values in apart.values()), []).append(k)
    return list(found.values())


def _is_way(
    members: Sequence[int], seeds: Sequence[Any], lengths: Sequence[Any], steps: Sequence[int]
) -> bool:
    """Is each of another seed, and are all about as long?"""
    alone = len({seeds[k] for k in members}) == len(members)
    known = [lengths[k] for k in members if lengths[k] is not None]
    return alone and near([steps[k] for k in members]) and near(known)


def near(steps: Sequence[int]) -> bool:
    """Are these lengths of trainings that were given the same minutes?"""
    return not steps or max(steps) - min(steps) <= BY_THE_CLOCK * max(steps)


def _about(lengths: Sequence[Any]) -> list[str]:
    """Each length by those that are near to it, e.g. "1990 to 2010"."""
    groups: list[list[int]] = []
    for length in sorted({one for one in lengths if one is not None}):
        if groups and near([groups[-1][0], length]):
            groups[-1].append(length)
        else:
            groups.append([length])
    ends = {one: dict.fromkeys((group[0], group[-1])) for group in groups for one in group}
    return [" to ".join(map(str, ends.get(one, [shown(one)]))) for one in lengths]


def _name(apart: Mapping[str, Sequence[Any]], k: int, firsts: Sequence[int]) -> str:
    """What sets record k apart from the first ones of all ways.

    Another function has other keys: its name says it, and its keys where two ways share it.
    """
    functions = [key for key in apart if key.endswith(".name")]
    words = []
    for key, values in apart.items():
        around = [f for f in functions if f != key and key.startswith(f.removesuffix("name"))]
        alike = [j for j in firsts if all(apart[f][j] == apart[f][k] for f in around)]
        if not around or any(values[j] != values[k] for j in alike):
            words.append(f"{key.removesuffix('.name')}={shown(values[k])}")
    return ", ".join(words)


def pooled(ways: Sequence[Way], values: Sequence[float]) -> list[Pooled]:
    """A number of each record, over the trainings of each way, and how far from the first way's.

    Each way has a deviation of its own, since that of a FID grows with the FID: Welch's t (1947).
    A way of a single training has none: there it is Student's t (1908), with one deviation for all
    ways, from those that have several. Trainings that agree to the last bit prove nothing: no
    difference then.
    """
    tables = [[values[k] for k in way.records] for way in ways]
    sds = [statistics.stdev(table) if len(table) > 1 else None for table in tables]
    first, *others = [
        Pooled(way, statistics.fmean(table), sd, None)
        for way, table, sd in zip(ways, tables, sds, strict=True)
    ]
    return [first, *(_beside(first, one, tables) for one in others)]


def _beside(first: Pooled, other: Pooled, tables: Sequence[Sequence[float]]) -> Pooled:
    """The other way with its difference from the first."""
    numbers = [len(one.way.records) for one in (first, other)]
    sds = [one.sd for one in (first, other) if one.sd is not None]
    borrowed = len(sds) < 2
    reach = _reach_of_all(tables, numbers) if borrowed else _reach(sds, numbers)
    if not reach:
        return other
    value = other.mean - first.mean
    found = Difference(value, value - reach, value + reach, paired=False)
    other = replace(other, difference=found, borrowed=borrowed)
    if borrowed or found.shown or min(numbers) > 2:
        return other
    with_more = _reach(sds, [k + 1 for k in numbers])
    return replace(other, narrower=reach / with_more) if abs(value) > with_more else other


def _reach(sds: Sequence[float], numbers: Sequence[int]) -> float:
    """Half of the 95% interval of a difference of two means, by Welch's t.

    Its squared error is sd1^2 / k1 + sd2^2 / k2. Satterthwaite's freedom (1946): with p and 1 - p
    for the shares of the two in it, 1 / (p^2 / (k1 - 1) + (1 - p)^2 / (k2 - 1)).
    """
    parts = [sd**2 / k for sd, k in zip(sds, numbers, strict=True)]
    if not (total := sum(parts)):
        return 0.0
    spent = sum((part / total) ** 2 / (k - 1) for part, k in zip(parts, numbers, strict=True))
    return quantile(1 / spent) * math.sqrt(total)


def _reach_of_all(tables: Sequence[Sequence[float]], numbers: Sequence[int]) -> float:
    """The same by Student's t, with one deviation for all ways, from those that have several."""
    several = [table for table in tables if len(table) > 1]
    freedom = sum(len(table) - 1 for table in several)
    squares = sum((len(table) - 1) * statistics.variance(table) for table in several)
    return quantile(freedom) * math.sqrt(squares / freedom * sum(1 / k for k in numbers))
