"""A guard: two samplers that draw the very same images are one sampler under two names."""

import logging
from pathlib import Path
from typing import Any

from diffuse import run_folders, runs

log = logging.getLogger(__name__)


def warn(folder: Path, outputs: Path) -> None:
    """Name a sampler that drew bit-identical images from the same weights, noise and levels.

    Nothing is said where the yaml declares it (meta.same_as), and of a single step, in which most
    samplers agree.
    """
    ours = runs.read(folder)
    for other in reversed(
        [*run_folders.every(outputs, "sample"), *run_folders.every(outputs, "eval")]
    ):
        theirs = runs.facts_of(other)
        if _is_twin(ours, theirs):
            log.warning(
                "%s and %s drew bit-identical images: %s here, %s in %s; is one of them not what "
                "its name says?",
                ours["sampler"]["choice"], theirs["sampler"]["choice"],
                _call(ours["sampler"]), _call(theirs["sampler"]), other,
            )  # fmt: skip
            return


def _is_twin(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Who is damaged is nobody's."""
    try:
        return (
            theirs["fingerprint"] == ours["fingerprint"]
            and theirs["weights"]["sha256"] == ours["weights"]["sha256"]
            and ours["sampler"]["steps"] != 1
            and not _declared(ours["sampler"], theirs["sampler"])
        )
    except (KeyError, TypeError, AttributeError):
        return False


def _declared(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """The same call, or an alias that says so."""
    if _call(one) == _call(other):
        return True
    names = {one["name"], one["choice"]}, {other["name"], other["choice"]}
    return (one["same_as"] or "").partition(" ")[0] in names[1] or (
        other["same_as"] or ""
    ).partition(" ")[0] in names[0]


def _call(sampler: dict[str, Any]) -> str:
    options = ", ".join(f"{key}={value}" for key, value in sampler["options"].items())
    return f"{sampler['name']}({options})"
