"""Evaluations that a word means, and how the trainings that they are of were set up."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from diffuse import assembly, evaluations, passport, run_folders, runs
from diffuse.errors import ConfigError, DataError, nearest

log = logging.getLogger(__name__)

# of a training's config: what does not change what is learnt
ASIDE = ("name", "hypothesis", "outputs", "tracker", "resume", "resume_allow", "dry_run", "smoke")


def find(outputs: Path, ref: str, smoke: bool) -> list[Path]:
    """The evaluations that a word means: those of all jobs of a sweep, else one."""
    for folder in (Path(ref), *(outputs / verb / ref for verb in ("eval", "train"))):
        if folder.parent.parent == outputs:  # a name
            folder = next((v for v in run_folders.newest_first(folder) if v.is_dir()), folder)
        if len(jobs := run_folders.jobs(folder)) > 1:
            return [_one(outputs, str(job), smoke) for job in jobs]
    return [_one(outputs, ref, smoke)]


def _one(outputs: Path, ref: str, smoke: bool) -> Path:
    """An evaluation by path, name (its newest), name/v003; or the newest one of a training run."""
    root, done = outputs / "eval", [f for f in run_folders.every(outputs, "eval") if _has_record(f)]
    path = Path(ref).parent if Path(ref).name == evaluations.FILE else Path(ref)
    for folder in (path, root / ref):
        if _has_record(folder):
            _warn_of_another(outputs, ref, folder)
            return folder
    if versions := [f for f in done if f.is_relative_to(root / ref) and f.parent != root]:
        return ([f for f in versions if smoke or not runs.read(f).get("smoke")] or versions)[-1]
    try:
        trained = run_folders.find(outputs, ref)
    except ConfigError:
        names = {str(f.relative_to(root)) for f in done} | _trainings(outputs)
        raise ConfigError(f"compare: no evaluation {ref!r} in {root}; {nearest(ref, names)}") from (
            None
        )
    ours = [f for f in done if _is_of(outputs, f, trained)]
    wanted = [f for f in ours if smoke or not runs.read(f).get("smoke")] or ours
    if not wanted:
        raise ConfigError(f"compare: {trained} was not evaluated: diffuse eval run={ref}")
    return wanted[-1]


def _has_record(folder: Path) -> bool:
    return (folder / evaluations.FILE).is_file()


def _trainings(outputs: Path) -> set[str]:
    return {str(f.relative_to(outputs / "train")) for f in run_folders.every(outputs, "train")}


def _is_of(outputs: Path, folder: Path, trained: Path) -> bool:
    run = run_folders.of_record(outputs, runs.read(folder).get("weights"))
    return run is not None and run.resolve() == trained.resolve()


def _warn_of_another(outputs: Path, ref: str, folder: Path) -> None:
    """Trainings and evaluations are numbered for themselves: a word may mean one of each."""
    trained = outputs / "train" / ref
    if (
        trained.is_dir()
        and folder == outputs / "eval" / ref
        and not _is_of(outputs, folder, trained)
    ):
        run = run_folders.of_record(outputs, runs.facts_of(folder).get("weights"))
        log.warning("%s is the evaluation of this name, of %s, not of %s", ref, run, trained)


def configs(outputs: Path, records: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The keys of the training configs that are not the same in all: what was changed."""
    flat: list[dict[str, Any]] = []
    for record in records:
        run = run_folders.of_record(outputs, record.get("weights"))
        try:
            saved = assembly.saved_config(run) if run else None
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
