"""Records of evaluations as they are read again, and whole."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diffuse import measures
from diffuse.errors import DataError

SCHEMA = 2  # of every record.json; one of `diffuse pareto`, which older versions call 1, has cells
FILE = "record.json"
RESULTS = ("fid", "kid", "metrics", "curves")  # what was measured: no field of the passport

# what others read of a record, and take for this; a table stands before what is in it
KINDS = {
    "schema": "a whole number", "n": "2 or more", "command": "text",
    "images_per_second": "a number", "features_per_second": "a number",
    **dict.fromkeys(("encoder", "reference", "metrics", "seeds"), "a table"),
    **dict.fromkeys(("weights", "real", "settings", "settings.prdc", "sampler"), "a table"),
    "encoder.name": "text", "encoder.sha256": "text", "encoder.features": "a whole number",
    "reference.sha256": "text", "reference.dataset": "text", "reference.path": "text",
    "reference.split": "text or null", "real.sha256": "text", "warnings": "texts",
    "settings.prdc.k": "a whole number", "weights.name": "text",
    "seeds.seed": "a whole number or null", "seeds.count": "a whole number",
    "weights.run": "text", "weights.step": "a whole number",
}  # fmt: skip
SCORE = {
    "value": "a number", "ci95": "two numbers, the lower one first", "floor": "a number",
    "floor_ci95": "two numbers, the lower one first", "per_seed": "numbers",
    "per_seed_ci95": "pairs of numbers, the lower one first", "counts": "numbers",
    "jackknife": "numbers", "real_reach": "a number", "parabola": "a number",
}  # fmt: skip
NEEDED = ("n", "encoder.name", "encoder.sha256", "reference", "reference.sha256")
NEEDED += ("fid", "fid.value", "fid.ci95")
NEEDED_IN = {"seeds": ("count",), "weights": ("run", "step")}  # where there is such a table


def rounded(rate: float) -> float:
    """A number of images a second, as records have it: four digits, of a slow one too."""
    return float(f"{rate:.4g}")


def read(folder: Path) -> dict[str, Any]:
    """The record in a run folder."""
    path = folder / FILE
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{folder} holds no evaluation: it has no {FILE}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {error}") from None
    if isinstance(record, dict) and "cells" in record:
        raise DataError(f"{folder} holds no evaluation: it is a run of diffuse pareto")
    if not isinstance(record, dict) or "n" not in record or "encoder" not in record:
        raise DataError(f"{path} is damaged: it is no record of an evaluation")
    _check(path, record, {"schema": KINDS["schema"]})
    if record.get("schema", 0) > SCHEMA:
        newer = record["schema"]
        raise DataError(f"{path} is of schema {newer}, this diffuse knows {SCHEMA}: update it")
    _check(path, record, KINDS)
    for name in ("fid", *measures.scores(record)):
        where = name if name in RESULTS else f"metrics.{name}"
        _check(path, record, {where: "a table"} | {f"{where}.{k}": v for k, v in SCORE.items()})
    for name, score in measures.scores(record).items():
        if len({len(score[key]) for key in ("per_seed", "per_seed_ci95") if key in score}) > 1:
            raise DataError(f"{path} is damaged: {name} has more of per_seed or of per_seed_ci95")
    for table, keys in NEEDED_IN.items():
        if lacking := [key for key in keys if table in record and key not in record[table]]:
            raise DataError(f"{path} is damaged: it has no {table}.{lacking[0]}")
    return record


def _check(path: Path, record: Mapping[str, Any], kinds: Mapping[str, str]) -> None:
    """What is read by others, where it is there, is what they take it for: else a DataError."""
    for field, kind in kinds.items():
        *parents, last = field.split(".")
        node: Any = record
        for key in parents:
            node = node.get(key, {})
        if field in NEEDED and last not in node:
            raise DataError(f"{path} is damaged: it has no {field}")
        if last in node and not IS[kind](node[last]):
            given = json.dumps(node[last])[:50]
            raise DataError(f"{path} is damaged: {field} must be {kind}, got {given}")


def _is_number(value: Any) -> bool:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return known and abs(value) <= sys.float_info.max  # NaN is not


def _is_interval(value: Any) -> bool:
    pair = isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))
    return pair and value[0] <= value[1]


def _are(each: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(each, value))


IS: dict[str, Callable[[Any], bool]] = {
    "a table": lambda value: isinstance(value, dict),
    "text": lambda value: isinstance(value, str),
    "text or null": lambda value: value is None or isinstance(value, str),
    "texts": lambda value: isinstance(value, list) and all(isinstance(v, str) for v in value),
    "a whole number": lambda value: isinstance(value, int) and _is_number(value),
    "2 or more": lambda value: IS["a whole number"](value) and value >= 2,
    "a whole number or null": lambda value: value is None or IS["a whole number"](value),
    "a number": _is_number,
    "two numbers, the lower one first": _is_interval,
    "numbers": _are(_is_number),
    "pairs of numbers, the lower one first": _are(_is_interval),
}
