"""What an image depends on, written down: its sha256 is the name of a folder of shards.

Two plans have one name only if they draw the same images to the last bit. What is not known to
change nothing is part of it, so a doubt costs a second drawing and never a wrong image. What code
from outside reads is not known: its images have a name that no other command has.
"""

import inspect
import math
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import cache, partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from diffuse import conditions, sealed
from diffuse.data import ImageSpec
from diffuse.denoiser import Denoiser
from diffuse.noise_level import Predictor
from diffuse.sampling import Plan

SCHEMA = 1
# The files and folders of ours that take part in drawing; a test watches a drawing for others.
SOURCES = (
    "conditions.py", "data/images.py", "denoiser.py", "guidance.py", "hardware.py", "models",
    "noise_level.py", "objectives.py", "reuse.py", "samplers", "sampling.py", "seeds.py", "shards",
)  # fmt: skip
# Every command restores the network that it draws with, so this is a word for each command.
COMMANDS: WeakKeyDictionary[Denoiser, str] = WeakKeyDictionary()


def describe(
    denoiser: Denoiser,
    spec: ImageSpec,
    plan: Plan,
    label: int | None,
    weights: str,  # sha256
    network: Mapping[str, Any],  # model and objective: all of the config that changes the forward
) -> dict[str, Any]:
    """Everything that the images of a plan depend on, as JSON can hold it.

    TypeError names what nobody has said how to write down.
    """
    device = next(denoiser.parameters()).device
    found = {
        "schema": SCHEMA,
        "weights": weights,
        "network": plain(network),
        "precision": plain(denoiser.precision),
        "compiled": getattr(denoiser.net, "_compiled_call_impl", None) is not None,
        "spec": asdict(spec),
        "plan": {field.name: plain(getattr(plan, field.name)) for field in fields(plan)},
        "label": "number mod classes" if label is None else label,
        "machine": conditions.machine(device),
        "objective": plain(denoiser.objective),
        "code": {"ours": code(), "outside": _parts(denoiser)},
    }
    word = COMMANDS.setdefault(denoiser, secrets.token_hex(8)) if outside(found) else None
    return found | {"command": word}


def outside(description: Mapping[str, Any]) -> list[str]:
    """The names of all code from outside that takes part in a drawing."""
    made = description["network"].get("model", {}).get("name")  # it may put anything into ours
    found = [made] if ":" in str(made) else []
    found += [name for part in ("plan", "objective", "code") for name in _names(description[part])]
    return list(dict.fromkeys(found))


def _names(value: Any) -> Iterator[str]:
    """Whatever is said to come from outside, anywhere in a description."""
    if isinstance(value, Mapping):
        if isinstance(others := value.get("outside"), Mapping):
            yield from others
        value = list(value.values())
    if isinstance(value, list):
        for entry in value:
            yield from _names(entry)


def _parts(denoiser: Denoiser) -> dict[str, dict[str, str]]:
    """The modules of its network that are not ours."""
    return conditions.of_others(*map(type, denoiser.net.modules()))


@cache
def code() -> str:
    """sha256 of our own sources that take part in drawing."""
    return conditions.code(SOURCES)


def plain(value: Any) -> Any:
    """A value as JSON can hold it, so that other values look different."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return {"dtype": str(value.dtype), "values": value.tolist()}
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, Sequence):
        return [plain(entry) for entry in value]
    if isinstance(value, torch.dtype | torch.device):
        return str(value)
    if isinstance(value, partial):
        return {"call": plain(value.func), "args": plain(value.args),
                "options": plain(value.keywords)}  # fmt: skip
    if isinstance(value, Predictor):  # wherever it lies
        return {"sha256": value.sha256, "range": [*value.range], "levels": [*value.levels]}
    if isinstance(value, Denoiser):  # a weaker one, for guidance
        forward = {key: plain(getattr(value, key)) for key in ("objective", "precision")}
        weights = sealed.digest(value.net.state_dict())
        net = {"net": plain(type(value.net)), "outside": _parts(value)}
        return {**net, "weights": weights, **forward}
    if is_dataclass(value) and not isinstance(value, type):
        named = {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        return {**plain(type(value)), "fields": named}
    if inspect.isroutine(value) or isinstance(value, type):
        return _called(value)
    raise TypeError(f"a plan holds a {type(value).__name__}, which has no written form")


def _called(function: Callable[..., Any]) -> dict[str, Any]:
    """A function: its name, the code of those that are not ours, and what it closes over."""
    cells = getattr(function, "__closure__", None) or ()
    return {
        "name": _name(function),
        "outside": conditions.of_others(function),
        "holds": [plain(cell.cell_contents) for cell in cells],
    }


def _name(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"
