"""Evaluations side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from diffuse import comparison, evaluations, passport, trainings
from diffuse.commands.evaluating import comparisons, evaluated
from diffuse.comparison import Comparison, Difference
from diffuse.config import Job
from diffuse.console import print_json
from diffuse.errors import ConfigError
from diffuse.trainings import Pooled


def main(cfg: DictConfig, job: Job) -> int:
    """Find the records, refuse what cannot be compared, then print."""
    outputs = Path(cfg.outputs)
    folders = [folder for ref in cfg.runs for folder in evaluated.find(outputs, ref, cfg.smoke)]
    _refuse_one_twice(cfg.runs, folders)
    if len(folders) < 2:
        raise ConfigError("compare takes two evaluations or more: diffuse compare mine theirs")
    records = [evaluations.read(folder) for folder in folders]
    found = comparison.compare(records)
    if found.mismatches and not cfg.force:
        raise ConfigError(_refusal(found))
    names = _names(folders, outputs)
    changed = evaluated.configs(outputs, records)
    over = _over_trainings(found, changed)
    if job.json:
        print_json(_as_json(found, folders, changed, over))
    else:
        comparisons.show(found, names, changed, over)
    return 0


def _refuse_one_twice(words: Sequence[str], folders: Sequence[Path]) -> None:
    """An evaluation does not differ from itself: the word meant something else."""
    seen: set[Path] = set()
    for folder in folders:
        if folder.resolve() in seen:
            raise ConfigError(
                f"compare: {', '.join(words)}: that is {folder} more than once; paths tell "
                "trainings from evaluations of their name"
            )
        seen.add(folder.resolve())


def _refusal(found: Comparison) -> str:
    fields = "; ".join(map(str, found.mismatches))
    return (
        f"compare: these evaluations are not comparable: {fields}; evaluate them alike, or "
        "add force=true to print them with that beside them"
    )


def _names(folders: Sequence[Path], outputs: Path) -> list[str]:
    """Short names that tell them apart."""
    root = outputs / "eval"
    names = [str(f.relative_to(root) if f.is_relative_to(root) else f) for f in folders]
    short = [name if len(name) <= 24 else f"...{name[-21:]}" for name in names]
    alike = len(set(short)) < len(short)
    return [f"{k} {name}" for k, name in enumerate(short, 1)] if alike else short


def _over_trainings(found: Comparison, changed: dict[str, list[Any]]) -> dict[str, list[Pooled]]:
    """Each number over the trainings of each way to train, where one was trained several times."""
    weights = [record.get("weights") for record in found.records]
    steps = [one["step"] for one in weights if one]
    if not changed or len(steps) < len(weights) or found.mismatches:
        return {}
    if not (ways := trainings.ways(changed, found.tried, steps)):
        return {}
    values: dict[str, list[float]] = {}
    for line in found.lines:
        values.setdefault(line.name, []).append(line.score["value"])
    return {name: trainings.pooled(ways, row) for name, row in values.items()}


def _as_json(
    found: Comparison,
    folders: Sequence[Path],
    changed: dict[str, list[Any]],
    over: dict[str, list[Pooled]],
) -> dict[str, Any]:
    measures: dict[str, list[dict[str, Any]]] = {}
    for line in found.lines:
        entry: dict[str, Any] = {"folder": str(folders[line.record]), **line.score}
        if line.difference:
            entry["difference"] = _difference(line.difference, line.verdict)
        measures.setdefault(line.name, []).append(entry)
    return {
        "comparable": not found.mismatches,
        "mismatches": _fields(found.mismatches),
        "measures": measures,
        "over_trainings": {
            name: [
                {
                    "way": one.way.name,
                    "folders": [str(folders[k]) for k in one.way.records],
                    "mean": one.mean,
                    "sd": one.sd,
                    "difference": one.difference
                    and _difference(one.difference, comparisons.verdict(name, rows[0], one)),
                    "note": one.note or None,
                }
                for one in rows
            ]
            for name, rows in over.items()
        },
        "differs": _fields(found.tried),
        "training": changed,
        "noted": _fields(found.noted),
        "unrecorded": found.unrecorded,
        "left_out": found.left_out,
        "seeds": [comparison.used_seeds(record) for record in found.records],
        "warnings": [list(record.get("warnings", ())) for record in found.records],
    }


def _difference(found: Difference, verdict: str) -> dict[str, Any]:
    about = {"value": found.value, "ci95": [found.low, found.high], "paired": found.paired}
    return about | ({"how": found.how} if found.how else {}) | {"verdict": verdict}


def _fields(differing: Sequence[passport.Differing]) -> dict[str, list[Any]]:
    """As JSON: what a record does not have is null."""
    return {
        one.field: [None if v is passport.NOT_RECORDED else v for v in one.values]
        for one in differing
    }
