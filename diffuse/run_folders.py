"""Run folders by what they are called: which there are, and which one a word means."""

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffuse import checkpoints, runs
from diffuse.errors import ConfigError, DataError, nearest


def every(outputs: Path, verb: str) -> list[Path]:
    """All runs of a verb, oldest first, sweeps' jobs included."""
    found = [p.parent for p in (outputs / verb).glob("*/v*/run.json")]
    found += [p.parent for p in (outputs / verb).glob("*/v*/*/run.json")]
    facts = []
    for folder in found:
        with contextlib.suppress(DataError):
            facts.append((str(runs.read(folder).get("started", "")), str(folder), folder))
    return [folder for _, _, folder in sorted(facts)]


def parted(ref: str) -> tuple[str, int | str | None]:
    """A run and the checkpoint of it: run@500, run@best, or run/checkpoints/step_00000500."""
    inside = re.fullmatch(r"(.+?)(?:@|/checkpoints/(?:step_)?)(\d+|best|latest)/?", ref)
    if inside is None or inside[2] == "latest":
        return (inside[1] if inside else ref), None
    return inside[1], int(inside[2]) if inside[2].isdigit() else inside[2]


def find(outputs: Path, ref: str | None, or_else: str = "") -> Path:
    """The training run that `run=` names: a path, name, name/v003, name/v003/0; null = newest.

    "The newest" has a valid checkpoint and is no smoke run, unless nothing else exists. Of a sweep
    one job has to be named, `or_else` what is said before that can be done with all of them.
    """
    if ref is None:
        return _newest(outputs)
    found = meant(outputs, ref)
    if len(found) == 1:
        return found[0]
    if found:
        one = f"name one: run={typed(outputs, found[0])}"
        raise ConfigError(f"run: {ref} is a sweep of {len(found)} jobs: {or_else}{one}")
    root = outputs / "train"
    names = [str(r.relative_to(root)) for r in every(outputs, "train")]
    raise ConfigError(f"run: no run {ref!r} in {root}; {nearest(ref, names)}")


def _newest(outputs: Path) -> Path:
    known = every(outputs, "train")[::-1]
    known.sort(key=lambda r: bool(runs.read(r).get("smoke")))  # stable: newest first within each
    for run in known:
        if checkpoints.newest(run / "checkpoints"):
            return run
    raise ConfigError(f"no training run with a checkpoint in {outputs}: start with diffuse train")


def meant(outputs: Path, ref: str) -> list[Path]:
    """The training runs that a word means: of a sweep every job; none if there is no such run."""
    root = outputs / "train"
    for folder in map(_pinned, (Path(ref), root / ref)):
        if not _is_run(folder):  # maybe a name: its newest version, damaged too
            folder = next((v for v in newest_first(folder) if _trains(v)), folder)
        if found := [folder] if _is_run(folder) else jobs(folder):
            return found
    return []


def typed(outputs: Path, run: Path) -> str:
    """A training run as `run=` takes it, e.g. "name/v003/0"."""
    root = outputs / "train"
    return str(run.relative_to(root) if run.is_relative_to(root) else run)


def _is_run(folder: Path) -> bool:
    """Also without a whole run.json: its checkpoints may be whole."""
    return (folder / "run.json").exists() or (folder / "checkpoints").is_dir()


def _trains(version: Path) -> bool:
    """A training or a sweep of them, damaged or not, and nothing of another command."""
    found = [version] if _is_run(version) else jobs(version)
    return any(runs.facts_of(run).get("command", "train") == "train" for run in found)


def jobs(version: Path) -> list[Path]:
    """The runs of a sweep, in their order."""
    found = [job for job in version.glob("*") if job.name.isdigit() and _is_run(job)]
    return sorted(found, key=lambda job: int(job.name))


def newest_first(name: Path) -> list[Path]:
    """The versions of a named run."""
    return sorted(name.glob("v*"), key=runs.number, reverse=True)


def _pinned(path: Path) -> Path:
    """Not by way of a `latest`, which may lead elsewhere any moment; other links are left alone.

    In a copy that has followed links it is a folder, and means the newest version beside it.
    """
    if path == path.parent:
        return path
    path = _pinned(path.parent) / path.name
    if path.name != "latest":
        return path
    if path.is_symlink():
        return path.parent / os.readlink(path)
    return next((v for v in newest_first(path.parent) if _is_run(v) or jobs(v)), path)


def of_record(outputs: Path, weights: Any) -> Path | None:
    """The training that a record's `weights` name, wherever `outputs` has been moved since.

    None of images that no run here has drawn, and of weights that are damaged.
    """
    if not isinstance(weights, Mapping) or not isinstance(weights.get("run"), str):
        return None
    path = Path(weights["run"])
    if path.is_dir() or "train" not in path.parts:
        return path
    behind = len(path.parts) - 1 - path.parts[::-1].index("train")
    moved = Path(outputs, *path.parts[behind:])
    return moved if moved.is_dir() else path


def title(trained: str | Path) -> str:
    """What to call a training run: its name; of a sweep's job, e.g. "abl/v001/3"."""
    path = Path(trained)
    of_sweep = re.fullmatch(r"v\d+", path.parent.name)
    return "/".join(path.parts[-3:]) if of_sweep else path.parent.name


def versions(outputs: Path, verb: str, name: str) -> list[Path]:
    """Those of a named run, newest first."""
    return [version for version in newest_first(outputs / verb / name) if _is_run(version)]


def latest(outputs: Path, verb: str, name: str) -> Path | None:
    """The newest version of a named run, or None."""
    return next(iter(versions(outputs, verb, name)), None)
