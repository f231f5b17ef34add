"""The numbers of several seeds as one: their means, with an interval over seeds."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from diffuse.measures import measure
from diffuse.metrics import Seeds, over_seeds


def joined(name: str, scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several seeds' numbers as one: their mean, Student's interval over seeds, and each of them.

    Seeds that agree to the last bit, as shares of few images do, are no proof of certainty: then
    the widest of their own intervals stays.
    """
    if len(scores) == 1:
        return dict(scores[0])
    found = over_seeds([score["value"] for score in scores])
    about, parts = measure(name), _parts(scores)
    ends = _with_what_is_fixed(found, parts)
    if found.sd == 0:
        lows, highs = zip(*(score["ci95"] for score in scores), strict=True)
        ends = [min(lows), max(highs)]
    return parts | {
        "value": found.mean,
        "ci95": [max(about.least, ends[0]), min(about.most, ends[1])],
        "per_seed": [score["value"] for score in scores],
        "per_seed_ci95": [score["ci95"] for score in scores],
    }


def _with_what_is_fixed(found: Seeds, parts: Mapping[str, Any]) -> list[float]:
    """An interval over seeds, and what no seed changes: real images, a fit that is no line."""
    reach = math.hypot(found.high - found.mean, parts.get("real_reach", 0.0))
    bent = parts.get("parabola", found.mean) - found.mean
    return [found.mean - reach + min(0.0, bent), found.mean + reach + max(0.0, bent)]


def _parts(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What else numbers say of themselves: means as well. Images have none; they say whose."""
    keys = [key for key in scores[0] if key != "jackknife"]  # it is of one seed, and may be missing
    parts = {key: [score[key] for score in scores] for key in keys}
    found: dict[str, Any] = {}
    for key, values in parts.items():
        if key == "classes":
            each = zip(*values, strict=True)
            found[key] = [joined("per_class", of_a_class) for of_a_class in each]
        elif key == "closest":
            found |= {key: values[0], "closest_of": "the first seed"}
        else:
            found[key] = mean(values)
    return found


def mean(values: Sequence[Any]) -> Any:
    """Of numbers or tables of numbers; what is the same in all stays as it is."""
    if all(value == values[0] for value in values):
        return values[0]
    if isinstance(values[0], list):
        return [mean(row) for row in zip(*values, strict=True)]
    return statistics.fmean(values)
