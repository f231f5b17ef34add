"""What the numbers of a record are called, and which way is better."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any


@dataclass(frozen=True)
class Measure:
    """A number of a record, as a person sees it."""

    label: str
    better: int = 0  # -1: lower is better, 1: higher, 0: neither, it says what something is like
    scale: float = 1.0  # what it is multiplied by, in tables only
    least: float = -math.inf  # that it can be at all
    most: float = math.inf


_share = partial(Measure, least=0.0, most=1.0)
_distance = partial(Measure, least=0.0)

MEASURES = {
    "fid": _distance("FID", -1),
    "kid": Measure("KID x 1000", -1, 1e3),
    "fid_infinity": Measure("FID at infinite n", -1),
    "precision": _share("precision", 1),
    "recall": _share("recall", 1),
    "density": _distance("density", 1),
    "coverage": _share("coverage", 1),
    "inception_score": Measure("inception score", 1, least=1.0),
    "agreement": _share("agreement", 1),
    "per_class": _distance("FID within classes", -1),
    "fid_train": _distance("FID against train"),  # lower may be a copy
    "fid_test": _distance("FID against test", -1),
    "gap": Measure("FID train - test"),
    "authenticity": _share("authentic"),
    "closer": _share("closer than test", -1),
    "sliced": _distance("pixels, sliced", -1),
    "pixel_mean": _distance("pixels, mean"),
    "pixel_sd": _distance("pixels, deviation"),
    "pixel_saturated": _share("pixels, saturated"),
}


def measure(name: str) -> Measure:
    """Of a name this version does not know: as it is written, neither way better."""
    return MEASURES.get(name, Measure(name))


def rank(name: str) -> tuple[int, str]:
    """The main ones first, those this version does not know last."""
    names = list(MEASURES)
    return names.index(name) if name in names else len(names), name


def scores(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Every number of a record: name -> value, ci95, floor, and more; the main ones first."""
    main = {name: record[name] for name in ("fid", "kid") if record.get(name)}
    others = record.get("metrics", {})
    return main | {name: others[name] for name in sorted(others, key=rank)}
