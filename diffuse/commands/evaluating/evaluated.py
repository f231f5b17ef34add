"""Evaluations that a word means, and how the trainings that they are of were set up."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from diffuse import checkpoints, evaluations, passport, restored, run_folders, runs
from diffuse.errors import ConfigError, DataError, nearest

log = logging.getLogger(__name__)

# of a training's config: what does not change what is learnt
ASIDE = ("name", "hypothesis", "outputs", "tracker", "resume", "resume_allow", "dry_run", "smoke")
ASIDE += ("device", "devices")  # the jobs of a sweep take turns over the GPUs


def find(outputs: Path, ref: str, smoke: bool) -> list[Path]:
    """The evaluations that a word means: those of all jobs of a sweep, else one.

    What was evaluated under this name goes before what was trained under it.
    """
    root, done = outputs / "eval", [f for f in run_folders.every(outputs, "eval") if _has_record(f)]
    found = next(filter(None, (_of_sweep(outputs, at) for at in (Path(ref), root / ref))), [])
    if found := found or _one(root, ref, done, smoke):
        _warn_of_another(outputs, ref, found)
        return found
    return _of_trainings(outputs, ref, done, smoke)


def _of_sweep(outputs: Path, folder: Path) -> list[Path]:
    """Those of a sweep of evaluations, or of the newest one of a name; others have none."""
    if folder.parent.parent == outputs:  # a name
        folder = next((v for v in run_folders.newest_first(folder) if v.is_dir()), folder)
    found = [job for job in run_folders.jobs(folder) if _has_record(job)]
    jobs = range(_number(folder)) if found else ()
    if missing := [str(k) for k in jobs if not _has_record(folder / str(k))]:
        many = "s" * (len(missing) > 1)
        log.warning(
            "%s: job%s %s failed or did not run, and the others are compared; the words of that "
            "sweep with resume=%s do what is missing", folder, many, ", ".join(missing), folder,
        )  # fmt: skip
    return found


def _number(sweep: Path) -> int:
    """Of the jobs that a sweep has, whatever became of them."""
    try:
        return len(json.loads((sweep / "sweep.json").read_text())["jobs"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _one(root: Path, ref: str, done: Sequence[Path], smoke: bool) -> list[Path]:
    """An evaluation by path, name (its newest) or name/v003; none if there is no such one."""
    path = Path(ref).parent if Path(ref).name == evaluations.FILE else Path(ref)
    for folder in (path, root / ref):
        if _has_record(folder):
            return [folder]
    of_name = [f for f in done if f.is_relative_to(root / ref) or f.is_relative_to(path)]
    return _newest([f for f in of_name if f.parent != root and path != root], smoke)


def _newest(found: Sequence[Path], smoke: bool) -> list[Path]:
    """Of evaluations, oldest first: a try-out only if that is all there is."""
    return [*([f for f in found if smoke or not runs.read(f).get("smoke")] or found)][-1:]


def _of_trainings(outputs: Path, ref: str, done: Sequence[Path], smoke: bool) -> list[Path]:
    """The newest evaluation of each training that a word means: a run, or all jobs of a sweep."""
    root, trained = outputs / "eval", run_folders.meant(outputs, ref)
    if not trained:
        names = {str(f.relative_to(root)) for f in done} | _trainings(outputs)
        raise ConfigError(f"compare: no evaluation {ref!r} in {root}; {nearest(ref, names)}")
    if failed := [run for run in trained if runs.facts_of(run).get("command") == "eval"]:
        raise ConfigError(f"compare: {failed[0]} failed or is not done: it has no record.json")
    of = {run: _newest([f for f in done if _is_of(outputs, f, run)], smoke) for run in trained}
    missing = [run for run, found in of.items() if not found]
    if len(missing) < len(trained):  # of a sweep: a failed training cannot be evaluated
        failed = [run for run in missing if not checkpoints.steps(run / "checkpoints")]
        for run in failed:
            log.warning("%s has no checkpoint, and the others are compared", run)
        missing = [run for run in missing if run not in failed]
    if missing:
        raise ConfigError(_not_evaluated(outputs, ref, missing, len(trained)))
    return [folder for found in of.values() for folder in found]


def _not_evaluated(outputs: Path, ref: str, missing: Sequence[Path], jobs: int) -> str:
    names = [run_folders.typed(outputs, run) for run in missing]
    if len(missing) == 1:
        return f"compare: {missing[0]} was not evaluated: diffuse eval run={names[0]}"
    which = ref if len(missing) == jobs else ",".join(names)
    return (
        f"compare: {len(missing)} of the {jobs} jobs of {ref} were not evaluated: "
        f"diffuse eval --multirun run={which}"
    )


def _has_record(folder: Path) -> bool:
    return (folder / evaluations.FILE).is_file()


def _trainings(outputs: Path) -> set[str]:
    return {str(f.relative_to(outputs / "train")) for f in run_folders.every(outputs, "train")}


def _is_of(outputs: Path, folder: Path, trained: Path) -> bool:
    run = run_folders.of_record(outputs, runs.read(folder).get("weights"))
    return run is not None and run.resolve() == trained.resolve()


def _warn_of_another(outputs: Path, ref: str, found: Sequence[Path]) -> None:
    """Trainings and evaluations are numbered for themselves: a word may mean some of each."""
    root, there = outputs / "train", outputs / "train" / ref
    if not there.is_relative_to(root) or not there.is_dir():
        return
    trained = run_folders.meant(outputs, str(there))
    if there.parent == root and len(trained) == 1:  # a name means its newest evaluation
        return
    of = [run_folders.of_record(outputs, runs.facts_of(f).get("weights")) for f in found]
    own = {run.resolve() for run in of if run} <= {run.resolve() for run in trained}
    if own and len(found) >= min(len(trained), 2):
        return
    many = len(found) > 1
    log.warning(
        "%s is the %s of this name, of %s%s, not of %s (say this path for those)", ref,
        "sweep of evaluations" if many else "evaluation", of[0], " ..." if many else "", there,
    )  # fmt: skip


def configs(outputs: Path, records: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The keys of the training configs that are not the same in all: what was changed."""
    flat: list[dict[str, Any]] = []
    for record in records:
        run = run_folders.of_record(outputs, record.get("weights"))
        try:
            saved = restored.saved_config(run) if run else None
        except DataError as error:
            log.warning("what was changed in the training is not known: %s", error)
            return {}
        plain = OmegaConf.to_container(saved) if saved is not None else {}
        assert isinstance(plain, dict)
        kept = {str(key): value for key, value in plain.items() if key not in ASIDE}
        flat.append(passport.fields(kept))
    if not all(flat):  # images of another tool have no config
        return {}
    keys = dict.fromkeys(key for one in flat for key in one if ".meta." not in key)
    values = {key: [one.get(key) for one in flat] for key in keys}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}
