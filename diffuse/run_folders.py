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
            facts.append((runs.read(folder).get("started", ""), str(folder), folder))
    return [folder for _, _, folder in sorted(facts)]


def parted(ref: str) -> tuple[str, int | str | None]:
    """A run and the checkpoint of it: run@500, run@best, or run/checkpoints/step_00000500."""
    inside = re.fullmatch(r"(.+?)(?:@|/checkpoints/(?:step_)?)(\d+|best|latest)/?", ref)
    if inside is None or inside[2] == "latest":
        return (inside[1] if inside else ref), None
    return inside[1], int(inside[2]) if inside[2].isdigit() else inside[2]


def find(outputs: Path, ref: str | None) -> Path:
    """The training run that `run=` names: a path, name, name/v003, name/v003/0; null = newest.

    "The newest" has a valid checkpoint and is no smoke run, unless nothing else exists. Of a sweep
    one job has to be named.
    """
    known = every(outputs, "train")
    if ref is None:
        known.reverse()
        known.sort(
            key=lambda r: bool(runs.read(r).get("smoke"))
        )  # stable: newest first within each
        for run in known:
            if checkpoints.newest(run / "checkpoints"):
                return run
        raise ConfigError(
            f"no training run with a checkpoint in {outputs}: start with diffuse train"
        )
    root = outputs / "train"
    for candidate in map(_pinned, (Path(ref), root / ref)):
        if _is_run(candidate):
            return candidate
        if candidate == root or not candidate.is_relative_to(root):
            continue
        if candidate.parent == root:  # a name: its newest version, damaged or not
            candidate = next((v for v in newest_first(candidate) if _is_run(v) or jobs(v)), root)
        if _is_run(candidate):
            return candidate
        if many := jobs(candidate):
            if len(many) == 1:
                return many[0]
            raise ConfigError(
                f"run: {ref} is a sweep of {len(many)}: name one, or with --multirun several: "
                f"run={_listed(many)}"
            )
    names = [str(r.relative_to(root)) for r in known]
    raise ConfigError(f"run: no run {ref!r} in {root}; {nearest(ref, names)}")


def _is_run(folder: Path) -> bool:
    """Also without a whole run.json: its checkpoints may be whole."""
    return (folder / "run.json").exists() or (folder / "checkpoints").is_dir()


def jobs(version: Path) -> list[Path]:
    """The runs of a sweep, in their order."""
    found = [job for job in version.glob("*") if job.name.isdigit() and _is_run(job)]
    return sorted(found, key=lambda job: int(job.name))


def newest_first(name: Path) -> list[Path]:
    """The versions of a named run."""
    return sorted(name.glob("v*"), key=runs.number, reverse=True)


def _pinned(path: Path) -> Path:
    """Not by way of `latest`, which may lead elsewhere any moment."""
    if path.is_symlink():
        return path.parent / os.readlink(path)
    return _pinned(path.parent) / path.name if path.parent.is_symlink() else path


def _listed(jobs: list[Path], most: int = 20) -> str:
    """E.g. "abl/v001/0,abl/v001/1", as `run=` of a sweep takes them."""
    more = f",... ({len(jobs) - most} more)" if len(jobs) > most else ""
    return ",".join("/".join(job.parts[-3:]) for job in jobs[:most]) + more


def of_record(outputs: Path, weights: Mapping[str, Any] | None) -> Path | None:
    """The training that a record's `weights` name, wherever `outputs` has been moved since.

    None of images that no run here has drawn.
    """
    if not weights:
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
