"""Records side by side: how far apart their numbers are, and whether that is more than chance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffuse.measures import measure, rank, scores
from diffuse.metrics import Seeds, over_seeds, reach_of
from diffuse.passport import NOTED, SAME, TRIED, Differing, differing, unrecorded

Record = Mapping[str, Any]
OF_NEIGHBOURS = ("precision", "recall", "density", "coverage")
# measured against them, or against as many test images
OF_TRAINING_IMAGES = ("gap", "fid_train", "fid_test", "authenticity", "closer")
OF_COPIES = ("authenticity", "closer")  # to which mirror images belong that a network has seen
ROUNDING = 1e-9  # of a difference

# how a difference got its interval
BY_SEED = "seed by seed (Student's t)"
BY_BLOCK = "block by block (jackknife)"
IN_QUADRATURE = "two independent 95% intervals, in quadrature"


@dataclass(frozen=True)
class Difference:
    """A number minus the first record's, with its 95% interval."""

    value: float
    low: float
    high: float
    paired: bool  # is image k of both from the same noise, and does the interval know it?
    how: str = ""  # BY_SEED, BY_BLOCK or IN_QUADRATURE; of means over trainings nothing

    @property
    def shown(self) -> bool:
        """Is it more than chance?"""
        return self.low > 0 or self.high < 0

    @property
    def said(self) -> str:
        """How it got its interval, in words."""
        if self.how == IN_QUADRATURE:
            return self.how
        return f"{'paired' if self.paired else 'unpaired'}, {self.how}"


def difference(
    first: Mapping[str, Any], other: Mapping[str, Any], same_seeds: bool, same_n: bool = True
) -> Difference:
    """How far `other` is from `first`, both {value, ci95, per_seed, jackknife} of one measure.

    With the same seeds image k of both starts from the same noise. More than one: Student's t of
    the differences seed by seed, and what no seed changes. One: the jackknife of the difference,
    since the same images are in the same block of both. It covers images that were drawn apart as
    well, but then it gains nothing. Seeds that agree to the last bit, as shares of 0 do, say
    nothing of the difference, either. Else, without the values of a jackknife, the intervals count
    as independent and their reaches add up in quadrature, each side with the ends that face each
    other.
    """
    value = other["value"] - first["value"]
    gaps = _gaps(first, other, "per_seed")
    if same_seeds and gaps and any(len({*one["per_seed"]}) > 1 for one in (first, other)):
        found = over_seeds(gaps)
        if _scatters(found.sd, found.mean):
            ends = _with_what_is_fixed(found, first, other)
            return Difference(found.mean, *ends, paired=True, how=BY_SEED)
    if same_n and (gaps := _gaps(first, other, "jackknife")):
        reach = reach_of(gaps)
        if _scatters(reach, value):
            return Difference(value, value - reach, value + reach, same_seeds, BY_BLOCK)
    (low, high), (first_low, first_high) = other["ci95"], first["ci95"]
    down = math.hypot(other["value"] - low, first_high - first["value"])
    up = math.hypot(high - other["value"], first["value"] - first_low)
    return Difference(value, value - down, value + up, paired=False, how=IN_QUADRATURE)


def _with_what_is_fixed(
    found: Seeds, first: Mapping[str, Any], other: Mapping[str, Any]
) -> tuple[float, float]:
    """An interval of differences seed by seed, and what no seed changes in either number.

    The real images are the same for both, but each gap takes its own part of their chance: about
    2 (mu_test - mu_train) . mu, with the mean mu of the images drawn. Both parts add up as if
    independent. Of two FIDs at infinite n the difference goes on to that of the parabolas' ends:
    both fits miss alike.
    """
    real = [one.get("real_reach", 0.0) for one in (first, other)]
    reach = math.hypot(found.high - found.mean, *real)
    ours, theirs = (one.get("parabola", one["value"]) - one["value"] for one in (other, first))
    bent = ours - theirs
    return found.mean - reach + min(0.0, bent), found.mean + reach + max(0.0, bent)


def _scatters(spread: float, value: float) -> bool:
    """By more than rounding? Differences that are all alike, as those of shares may be, prove
    nothing; of the same images there is none.
    """
    return spread > ROUNDING * abs(value) or not value


def _gaps(first: Mapping[str, Any], other: Mapping[str, Any], key: str) -> list[float]:
    """The differences one by one, of two lists as long; none where there is nothing to pair."""
    ours, theirs = other.get(key, []), first.get(key, [])
    alike = len(ours) == len(theirs) > 1
    return [a - b for a, b in zip(ours, theirs, strict=True)] if alike else []


def verdict(name: str, found: Difference, drawn: str) -> str:
    """What a difference means in plain words; `drawn` says how much was, e.g. "n=2048"."""
    if not found.shown:
        return f"no difference that {drawn} can show"
    about = measure(name)
    ends = sorted(abs(bound) * about.scale for bound in (found.low, found.high))
    if about.better == 0:
        word = "higher" if found.low > 0 else "lower"
    else:
        word = "better" if (found.low > 0) == (about.better > 0) else "worse"
    return f"{word} by {brief(ends[0])} to {brief(ends[1])}"


def brief(value: float) -> str:
    """Two digits that say something: 1234, 12, 1.2, 0.12, 0.0012."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{max(0, 1 - math.floor(math.log10(abs(value))))}f}"


@dataclass(frozen=True)
class Line:
    """One number of one record beside the first record's."""

    name: str
    record: int  # which
    score: Mapping[str, Any]
    difference: Difference | None  # None of the first
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Records, the first of which the others are compared with."""

    records: Sequence[Record]
    mismatches: list[Differing]  # that make them incomparable
    tried: list[Differing]
    noted: list[Differing]
    unrecorded: list[str]  # could be a mismatch, nobody knows
    lines: list[Line]
    left_out: dict[str, str]  # measure -> why it is not compared


def drawn(record: Record) -> str:
    """E.g. "n=2048" or "n=2048 x 3 seeds"."""
    count = record["seeds"]["count"] if "seeds" in record else 1
    return f"n={record['n']}" + (f" x {count} seeds" if count > 1 else "")


def used_seeds(record: Record) -> list[int] | None:
    """None of images that another tool made."""
    seeds = record.get("seeds") or {}
    if seeds.get("seed") is None:
        return None
    return list(range(seeds["seed"], seeds["seed"] + seeds["count"]))


def compare(records: Sequence[Record]) -> Comparison:
    """Two records or more. Nothing is refused here: `mismatches` says what should be."""
    tables = [scores(record) for record in records]
    left_out = {}
    lines = []
    for name in sorted({name for table in tables for name in table}, key=rank):
        if reason := _why_not(name, records, tables):
            left_out[name] = reason
        else:
            lines += _lines(name, records, tables)
    return Comparison(
        records, differing(records, SAME), differing(records, TRIED), differing(records, NOTED),
        unrecorded(records), lines, left_out,
    )  # fmt: skip


def _why_not(name: str, records: Sequence[Record], tables: Sequence[Mapping[str, Any]]) -> str:
    """Why a measure cannot be compared though the records can; "" if it can."""
    if any(table.get(name, {}).get("value") is None for table in tables):
        return "not measured in all of them"
    if any("ci95" not in table[name] for table in tables):
        return "without an interval"
    if name in OF_TRAINING_IMAGES:
        real = {(record.get("real") or {}).get("sha256") for record in records}
        if len(real) > 1:
            return "measured against different training images"
    if name in OF_COPIES and len({(r.get("real") or {}).get("flip", False) for r in records}) > 1:
        return "measured against mirrored training images, too, in some of them only"
    if name in OF_NEIGHBOURS:
        near = {(record.get("settings") or {}).get("prdc", {}).get("k") for record in records}
        if len(near) > 1:
            return f"with different neighbours: {' and '.join(map(str, near))}"
    counts = [tuple(table[name]["counts"]) for table in tables if "counts" in table[name]]
    if len(set(counts)) > 1:
        return "of other numbers of images of each class"
    return ""


def _lines(name: str, records: Sequence[Record], tables: Sequence[Mapping[str, Any]]) -> list[Line]:
    first, seeds = tables[0][name], used_seeds(records[0])
    lines = [Line(name, 0, first, None, "")]
    for k, (record, table) in enumerate(zip(records[1:], tables[1:], strict=True), 1):
        same = seeds is not None and seeds == used_seeds(record)
        found = difference(first, table[name], same, records[0]["n"] == record["n"])
        how_many = drawn(record) if drawn(record) == drawn(records[0]) else "so few images"
        lines.append(Line(name, k, table[name], found, verdict(name, found, how_many)))
    return lines
