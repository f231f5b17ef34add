"""The passport of a figure: what it was measured on, and whether two figures may be compared.

A record is plain data, as it stands in record.json: the numbers, and beside them every field that
they depend on. ROLES says of each field what it means if two records differ in it.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffuse import hardware, measures, provenance
from diffuse.data import ImageSet
from diffuse.encoders import Encoder
from diffuse.errors import DataError

SCHEMA = 2
FILE = "record.json"

SAME = "must be the same"  # else the numbers are of different things
TRIED = "may be what is compared"
NOTED = "only noted"

# Of a field by its dotted name; the longest that it begins with counts. A field that no version of
# ours knows must be the same: what nobody has thought about is not put side by side in silence.
ROLES = {
    "n": SAME,  # the bias of FID depends on it
    "seeds": TRIED,
    "seeds.last": NOTED,  # follows from n
    "seeds.count": SAME,  # so does how far the mean over them scatters
    "encoder": SAME,
    "encoder.name": NOTED,  # the sha256 says it better
    "reference": SAME,
    "reference.dataset": NOTED,
    "reference.path": NOTED,
    "real": TRIED,  # training on other images may be the question
    "weights": TRIED,
    "source": TRIED,
    "range": TRIED,
    "sampler": TRIED,
    "sampler.label": SAME,  # one class beside all of them
    "sampler.label_name": NOTED,
    "sampler.batch": NOTED,
    "sampler.choice": NOTED,  # a yaml's name; what it calls is compared
    "sampler.same_as": NOTED,
    "dtype": TRIED,
    "settings": NOTED,  # of one measure: comparison leaves out those that they change
    **dict.fromkeys(
        ("schema", "device", "threads", "revision", "code", "versions", "seconds"),
        NOTED,
    ),
    **dict.fromkeys(
        ("images_per_second", "features_per_second", "command", "folder", "grid", "pictures"), NOTED
    ),
    **dict.fromkeys(("shards", "floor_n", "warnings"), NOTED),
}
# what others read of a record, and take for this; a table stands before what is in it
KINDS = {
    "schema": "a whole number", "n": "a whole number", "command": "text",
    "images_per_second": "a number", "features_per_second": "a number",
    **dict.fromkeys(("encoder", "reference", "metrics", "seeds"), "a table"),
    **dict.fromkeys(("weights", "real", "settings", "settings.prdc", "sampler"), "a table"),
    "encoder.name": "text", "encoder.sha256": "text",
    "seeds.seed": "a whole number or null", "seeds.count": "a whole number",
    "weights.run": "text", "weights.step": "a whole number",
}  # fmt: skip
SCORE = {
    "value": "a number", "ci95": "two numbers", "floor": "a number", "floor_ci95": "two numbers",
    "per_seed": "numbers", "per_seed_ci95": "pairs of numbers",
}  # fmt: skip
NEEDED = ("n", "encoder.name", "encoder.sha256", "reference", "fid", "fid.value", "fid.ci95")
RESULTS = ("fid", "kid", "metrics", "curves")  # what was measured: no field of the passport


def role(field: str) -> str:
    """What it means if two records differ in this field, e.g. `encoder.sha256`."""
    parts = field.split(".")
    for k in range(len(parts), 0, -1):
        if (prefix := ".".join(parts[:k])) in ROLES:
            return ROLES[prefix]
    return SAME


def fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Every field of a passport by its dotted name; a list is one value."""
    return dict(_leaves({k: v for k, v in record.items() if k not in RESULTS}, ""))


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Differing:
    """A field that is not the same in all records: `values` are in their order."""

    field: str
    values: tuple[Any, ...]  # NOT_RECORDED where a record does not have it

    def __str__(self) -> str:
        return f"{self.field} is {' and '.join(map(shown, self.values))}"


class _NotRecorded:
    def __repr__(self) -> str:
        return "not recorded"


NOT_RECORDED = _NotRecorded()


def shown(value: Any) -> str:
    """A value as a person reads it; of a digest, what is enough to tell it from another."""
    if isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef"):
        return value[:12]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(shown, value))}]"
    return "none" if value is None else str(value)


def differing(records: Sequence[Mapping[str, Any]], wanted: str) -> list[Differing]:
    """The fields of this role that differ between records.

    A field that a record does not have (an older schema, images of another tool) differs from
    nothing: `unrecorded` names it.
    """
    found = []
    for field, values in _table(records).items():
        known = [value for value in values if value is not NOT_RECORDED]
        if role(field) == wanted and any(value != known[0] for value in known):
            found.append(Differing(field, values))
    return found


def unrecorded(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fields that must be the same and that some record does not have."""
    return [
        field
        for field, values in _table(records).items()
        if role(field) == SAME and NOT_RECORDED in values
    ]


def _table(records: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    flat = [fields(record) for record in records]
    names = {name: None for one in flat for name in one}  # in the order in which they are written
    return {name: tuple(one.get(name, NOT_RECORDED) for one in flat) for name in names}


def read(folder: Path) -> dict[str, Any]:
    """The record in a run folder, of this schema or an older one."""
    path = folder / FILE
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{folder} holds no evaluation: it has no {FILE}") from None
    except ValueError as error:
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
    return upgraded(record)


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
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def _are(each: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(each, value))


IS: dict[str, Callable[[Any], bool]] = {
    "a table": lambda value: isinstance(value, dict),
    "text": lambda value: isinstance(value, str),
    "a whole number": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "a whole number or null": lambda value: value is None or IS["a whole number"](value),
    "a number": _is_number,
    "two numbers": _is_interval,
    "numbers": _are(_is_number),
    "pairs of numbers": _are(_is_interval),
}


def upgraded(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as this version would have written it, as far as the older one says."""
    record = {**record}
    if record.get("schema", 1) < 2:
        # all that schema 1 could do: one seed, [-1, 1] for the encoder, uint8 in between
        record["seeds"] = {"count": 1, **record.get("seeds", {})}
        record["encoder"] = {"range": [-1.0, 1.0], "rounding": "uint8", **record["encoder"]}
        record["reference"] = {"range": [0, 255], **record["reference"]}
    return record


def of_encoder(encoder: Encoder) -> dict[str, Any]:
    """Which features, and what was done to an image before them."""
    return encoder.record() | {"rounding": "uint8"}  # an encoder takes nothing else


def of_images(images: ImageSet, split: str) -> dict[str, Any]:
    """A split of a data set, to the byte."""
    return {
        "dataset": images.spec.name,
        "split": split,
        "n": len(images),
        "sha256": images.sha256,
        "range": [0, 255],
    }


def of_machine(device: torch.device) -> dict[str, Any]:
    """Where it was computed, and by which code."""
    return {
        "device": hardware.describe(device),
        "threads": torch.get_num_threads(),
        "revision": provenance.git_revision(),
        "versions": provenance.versions(),
    }


def half_life(decay: float, batch: int) -> float:
    """The images after which a weight's share in an average has halved."""
    return round(batch * math.log(0.5) / math.log(decay), 1) if decay else 0.0
