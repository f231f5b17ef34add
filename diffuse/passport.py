"""The passport of a figure: what it was measured on, and whether two figures may be compared.

A record is plain data, as it stands in record.json: the numbers, and beside them every field that
they depend on. ROLES says of each field what it means if two records differ in it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from diffuse import conditions, hardware, provenance
from diffuse.data import ImageSet
from diffuse.encoders import Encoder
from diffuse.evaluations import RESULTS

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
    "size": SAME,  # of the images: others are resized for the encoder
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
        ("images_per_second", "features_per_second", "command", "folder", "samples", "pictures"),
        NOTED,
    ),
    **dict.fromkeys(("shards", "floor_n", "warnings"), NOTED),
    "grid": NOTED,  # what "samples" was called
}


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
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else str(value)
    return "none" if value is None else str(value)


def differing(records: Sequence[Mapping[str, Any]], wanted: str) -> list[Differing]:
    """The fields of this role that differ between records.

    A field that a record does not have (images of another tool have no sampler) differs from
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
    for one in flat:  # what is null here may be a table there: each entry of it is null here, then
        for name in [name for name, value in one.items() if value is None]:
            inside = [other for other in names if other.startswith(f"{name}.")]
            if inside:
                one |= dict.fromkeys(inside)
                names.pop(name, None)
    return {name: tuple(one.get(name, NOT_RECORDED) for one in flat) for name in names}


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
        **({"flip": True} if images.flip else {}),  # a network has seen mirror images, too
    }


def of_code(encoder: Encoder, *others: Any) -> str:
    """sha256 of all our sources, and of the files that other code which takes part comes from.

    A revision does not say it: outside git there is none, and all changed trees are "+dirty".
    """
    own = conditions.of_others(*map(type, encoder.modules()), *others)
    return conditions.key({"ours": conditions.code(["."]), "own": own})


def of_machine(device: torch.device) -> dict[str, Any]:
    """Where it was computed, and by which code."""
    return {
        "device": hardware.describe(device),
        "threads": torch.get_num_threads(),
        "revision": provenance.git_revision(),
        "versions": provenance.versions(),
    }
