"""Evaluations side by side."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffuse import assembly, comparison, evaluations, passport, runs
from diffuse.commands import scores
from diffuse.comparison import Comparison, Difference, Line
from diffuse.config import Job
from diffuse.console import print_columns, print_json, print_table
from diffuse.errors import ConfigError, DataError, nearest
from diffuse.measures import measure

log = logging.getLogger(__name__)

# of a training's config: what does not change what is learnt
ASIDE = ("name", "hypothesis", "outputs", "tracker", "resume", "resume_allow", "dry_run", "smoke")


def main(cfg: DictConfig, job: Job) -> int:
    """Find the records, refuse what cannot be compared, then print."""
    if len(cfg.runs) < 2:
        raise ConfigError("compare takes two evaluations or more: diffuse compare mine theirs")
    outputs = Path(cfg.outputs)
    folders = [find(outputs, ref, cfg.smoke) for ref in cfg.runs]
    records = [evaluations.read(folder) for folder in folders]
    found = comparison.compare(records)
    if found.mismatches and not cfg.force:
        raise ConfigError(_refusal(found))
    names = _names(folders, outputs)
    changed = configs(records)
    if job.json:
        print_json(_as_json(found, folders, changed))
    else:
        _show(found, names, changed)
    return 0


def find(outputs: Path, ref: str, smoke: bool) -> Path:
    """An evaluation by path, name (its newest), name/v003; or the newest one of a training run."""
    root, done = outputs / "eval", [f for f in runs.every(outputs, "eval") if _has_record(f)]
    path = Path(ref).parent if Path(ref).name == evaluations.FILE else Path(ref)
    for folder in (path, root / ref):
        if _has_record(folder):
            return folder
    if versions := [f for f in done if f.is_relative_to(root / ref) and f.parent != root]:
        return ([f for f in versions if smoke or not runs.read(f).get("smoke")] or versions)[-1]
    try:
        trained = runs.find(outputs, ref)
    except ConfigError:
        names = {str(f.relative_to(root)) for f in done} | _trainings(outputs)
        raise ConfigError(f"compare: no evaluation {ref!r} in {root}; {nearest(ref, names)}") from (
            None
        )
    ours = [f for f in done if _is_of(f, trained)]
    wanted = [f for f in ours if smoke or not runs.read(f).get("smoke")] or ours
    if not wanted:
        raise ConfigError(f"compare: {trained} was not evaluated: diffuse eval run={ref}")
    return wanted[-1]


def _has_record(folder: Path) -> bool:
    return (folder / evaluations.FILE).is_file()


def _trainings(outputs: Path) -> set[str]:
    return {str(f.relative_to(outputs / "train")) for f in runs.every(outputs, "train")}


def _is_of(folder: Path, trained: Path) -> bool:
    run = runs.read(folder).get("weights", {}).get("run")
    return run is not None and Path(run).resolve() == trained.resolve()


def _refusal(found: Comparison) -> str:
    fields = "; ".join(map(str, found.mismatches))
    return (
        f"compare: these numbers are not of the same thing: {fields}; evaluate them alike, or add "
        "force=true to print them with that beside them"
    )


def configs(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The keys of the training configs that are not the same in all: what was changed."""
    flat: list[dict[str, Any]] = []
    for record in records:
        run = (record.get("weights") or {}).get("run")
        try:
            saved = assembly.saved_config(Path(run)) if run else None
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


def _names(folders: Sequence[Path], outputs: Path) -> list[str]:
    """Short names that tell them apart."""
    root = outputs / "eval"
    names = [str(f.relative_to(root) if f.is_relative_to(root) else f) for f in folders]
    short = [name if len(name) <= 24 else f"...{name[-21:]}" for name in names]
    alike = len(set(short)) < len(short)
    return [f"{k} {name}" for k, name in enumerate(short, 1)] if alike else short


def _show(found: Comparison, names: list[str], changed: dict[str, list[Any]]) -> None:
    if found.mismatches:
        found = replace(found, lines=[_doubtful(line) for line in found.lines])
        rows = {m.field: _across(m.values) for m in found.mismatches}
        print_table("NOT COMPARABLE: these differ, so the numbers are of different things", rows)
        print()
    for measured in dict.fromkeys(line.name for line in found.lines):
        lines = [line for line in found.lines if line.name == measured]
        about = measure(measured)
        way = {-1: ", lower is better", 1: ", higher is better", 0: ""}[about.better]
        tables = ({names[li.record]: _cells(li, form) for li in lines} for form in (" ({})", ""))
        print_columns(f"{about.label}{way}", scores.fitting(*tables))
        for line in lines[1:]:
            print(f"  -> {names[line.record]}: {line.verdict}")
        print()
    rows = {m.field: _across(m.values) for m in found.tried}
    if rows:
        print_table("What differs in how they were made", rows)
        print()
    if changed:
        print_table("What was changed in the training", {k: _across(v) for k, v in changed.items()})
        print()
    print_table("How they were compared", _how(found))


def _doubtful(line: Line) -> Line:
    """What `force=true` prints is no verdict."""
    return replace(line, verdict=f"not comparable, or else {line.verdict}")


def _how(found: Comparison) -> dict[str, str]:
    first = found.records[0]
    paired = {line.difference.paired for line in found.lines if line.difference}
    method = {
        True: "paired, seed by seed (Student's t)",
        False: "two independent 95% intervals, in quadrature",
    }
    encoder, reference = first["encoder"], first["reference"]
    rows = {
        "difference": " and ".join(method[how] for how in sorted(paired)) or "none",
        "images": ", ".join(dict.fromkeys(map(comparison.drawn, found.records))),
        "seeds": _across([comparison.used_seeds(record) for record in found.records]),
        "encoder": f"{encoder['name']} ({encoder['sha256'][:8]})",
        "reference": f"{reference.get('dataset') or reference.get('path')}, "
        f"{reference.get('split')}",
    }
    if found.unrecorded:
        rows["not recorded"] = f"{', '.join(found.unrecorded)} (in some of them)"
    if found.noted:
        rows["also differ"] = ", ".join(m.field for m in found.noted)
    for reason in dict.fromkeys(found.left_out.values()):
        names = [measure(name).label for name, why in found.left_out.items() if why == reason]
        more = f" and {len(names) - 3} more" if len(names) > 4 else ""
        rows[reason] = "; ".join(names[:3] if more else names) + more
    return rows


def _across(values: Sequence[Any]) -> str:
    return " | ".join(passport.shown(value) for value in values)


def _cells(line: Line, form: str) -> dict[str, str]:
    """`form` is how the interval of real images stands in it."""
    return scores.cells(line.name, line.score) | {
        "real": scores.real(line.name, line.score, form),
        "minus the first": _minus(line.difference, measure(line.name).scale),
    }


def _minus(found: Difference | None, scale: float) -> str:
    if found is None:
        return ""
    digits = scores.decimals(scale * (found.high - found.low))
    ends = (_signed(scale * bound, digits) for bound in (found.value, found.low, found.high))
    return "{} ({} to {})".format(*ends)


def _signed(value: float, digits: int) -> str:
    """Without the sign of what rounds to nothing."""
    text = f"{value:+.{digits}f}" if abs(value) < 100 else f"{value:+.0f}"
    return text if text.strip("+-0.") else f"{0:.{digits}f}"


def _as_json(
    found: Comparison, folders: Sequence[Path], changed: dict[str, list[Any]]
) -> dict[str, Any]:
    measures: dict[str, list[dict[str, Any]]] = {}
    for line in found.lines:
        entry: dict[str, Any] = {"folder": str(folders[line.record]), **line.score}
        if line.difference:
            entry["difference"] = {
                "value": line.difference.value,
                "ci95": [line.difference.low, line.difference.high],
                "paired": line.difference.paired,
                "verdict": line.verdict,
            }
        measures.setdefault(line.name, []).append(entry)
    return {
        "comparable": not found.mismatches,
        "mismatches": _fields(found.mismatches),
        "measures": measures,
        "differs": _fields(found.tried),
        "training": changed,
        "noted": _fields(found.noted),
        "unrecorded": found.unrecorded,
        "left_out": found.left_out,
        "seeds": [comparison.used_seeds(record) for record in found.records],
    }


def _fields(differing: Sequence[passport.Differing]) -> dict[str, list[Any]]:
    """As JSON: what a record does not have is null."""
    return {
        one.field: [None if v is passport.NOT_RECORDED else v for v in one.values]
        for one in differing
    }
