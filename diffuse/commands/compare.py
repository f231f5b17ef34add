"""Evaluations side by side."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from diffuse import comparison, evaluations, passport, trainings
from diffuse.commands.evaluating import evaluated, scores
from diffuse.comparison import Comparison, Difference, Line
from diffuse.config import Job
from diffuse.console import print_columns, print_json, print_table
from diffuse.errors import ConfigError
from diffuse.measures import measure
from diffuse.trainings import Pooled

# of what is only noted: said elsewhere, or another one in any two evaluations
TOLD = ("warnings", "command", "folder", "grid", "pictures", "seconds")
TOLD += ("images_per_second", "features_per_second")
MOST_ACROSS = 50  # characters of values side by side, of more than three


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
        _show(found, names, changed, over)
    return 0


def _refuse_one_twice(words: Sequence[str], folders: Sequence[Path]) -> None:
    """An evaluation does not differ from itself: the word meant something else."""
    seen: set[Path] = set()
    for folder in folders:
        if folder.resolve() in seen:
            raise ConfigError(
                f"compare: {', '.join(words)}: that is {folder} more than once; name each by its "
                "path, outputs/eval/... or outputs/train/..."
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


def _show(
    found: Comparison,
    names: list[str],
    changed: dict[str, list[Any]],
    over: dict[str, list[Pooled]],
) -> None:
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
        for line in [] if over else lines[1:]:
            print(f"  -> {names[line.record]}: {line.verdict}")
        print()
        if over:
            _show_ways(measured, over[measured])
    print_table("What was evaluated", dict(zip(names, map(_evaluated, found.records), strict=True)))
    print()
    rows = {m.field: _across(m.values) for m in found.tried}
    if rows:
        print_table("What differs in how they were made", rows)
        print()
    if rows := _warned(found.records, names):
        print_table("What was warned of", rows)
        print()
    if changed:
        print_table("What was changed in the training", {k: _across(v) for k, v in changed.items()})
        print()
    print_table("How they were compared", _how(found, over))


def _warned(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, str]:
    """What every record says against its own numbers, once where all say the same."""
    said = ["; ".join(record.get("warnings", ())) for record in records]
    alike = {"all": said[0]} if len(set(said)) == 1 else dict(zip(names, said, strict=True))
    return {name: words for name, words in alike.items() if words}


def _show_ways(name: str, over: Sequence[Pooled]) -> None:
    about, form = measure(name), "{:.3f}"
    rows = {
        one.way.name: {
            "trainings": str(len(one.way.records)),
            "mean": form.format(about.scale * one.mean),
            "sd": "" if one.sd is None else form.format(about.scale * one.sd),
            "minus the first": _minus(one.difference, about.scale),
        }
        for one in over
    }
    print_columns(f"{about.label}, over trainings", rows)
    for one in over[1:]:
        print(f"  -> {one.way.name}: {_verdict(name, over[0], one)}")
        if one.note:
            print(f"     {one.note}")
    print()


def _verdict(name: str, first: Pooled, other: Pooled) -> str:
    if other.difference is None:
        return "trainings that agree to the last bit show nothing"
    many = [len(one.way.records) for one in (first, other)]
    return comparison.verdict(name, other.difference, f"{many[0]} and {many[1]} trainings")


def _evaluated(record: Mapping[str, Any]) -> str:
    """Of which weights, or whose images."""
    if weights := record.get("weights"):
        return f"{weights['run']}, step {weights['step']:,}"
    return str((record.get("source") or {}).get("path", "unknown"))


def _doubtful(line: Line) -> Line:
    """What `force=true` prints is no verdict."""
    return replace(line, verdict=f"not comparable, or else {line.verdict}")


def _how(found: Comparison, over: Mapping[str, Sequence[Pooled]]) -> dict[str, str]:
    first = found.records[0]
    encoder, reference = first["encoder"], first["reference"]
    rows = _methods(found.lines) | {
        "images": ", ".join(dict.fromkeys(map(comparison.drawn, found.records))),
        "seeds": _across([comparison.used_seeds(record) for record in found.records]),
        "encoder": f"{encoder['name']} ({encoder['sha256'][:8]})",
        "reference": f"{reference.get('dataset') or reference.get('path')}, "
        f"{reference.get('split')}",
    }
    rows |= {"over trainings": _how_over(over)} if over else {}
    if found.unrecorded:
        rows["not recorded"] = f"{', '.join(found.unrecorded)} (in some of them)"
    if noted := [m.field for m in found.noted if m.field not in TOLD]:
        rows["also differ"] = _some(noted, ", ")
    for reason in dict.fromkeys(found.left_out.values()):
        names = [measure(name).label for name, why in found.left_out.items() if why == reason]
        rows[reason] = _some(names, "; ")
    return rows


def _methods(lines: Sequence[Line]) -> dict[str, str]:
    """How differences got their intervals; of which numbers, where there are several ways."""
    names: dict[str, dict[str, None]] = {}
    for line in lines:
        if line.difference:
            names.setdefault(line.difference.said, {})[measure(line.name).label] = None
    rows, tail = {}, ""
    for how, labels in names.items():
        rows[f"difference{tail}"] = how
        if len(names) > 1:
            rows[f"  of{tail}"] = _some([*labels], "; ")
        tail += " "  # the keys of a table are different ones
    return rows or {"difference": "none"}


def _how_over(over: Mapping[str, Sequence[Pooled]]) -> str:
    """The numbers of trainings are the same for all measures, and so are the methods."""
    first, *others = next(iter(over.values()))
    alone = [one for one in (first, *others) if one.sd is None]
    if not alone:
        return "Welch's t, a deviation for each way to train"
    if first in alone or others == alone:
        return "Student's t, one deviation for all ways to train"
    return "Welch's t; of a single training Student's, with one deviation for all ways"


def _some(names: Sequence[str], between: str) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 4 else ""
    return between.join(names[:3] if more else names) + more


def _across(values: Sequence[Any]) -> str:
    """One beside the other; many alike are counted, and of many that differ the first are shown."""
    runs = [(word, len([*alike])) for word, alike in itertools.groupby(map(passport.shown, values))]
    words = [w for word, n in runs for w in ([f"{word} x {n}"] if n > 2 else [word] * n)]
    shown = [k for k in range(1, len(words) + 1) if len(" | ".join(words[:k])) <= MOST_ACROSS]
    if len(words) > 3 and len(shown) < len(words):
        words = [*words[: max(1, len(shown) - 1)], f"... ({len(values)} in all)"]
    return " | ".join(words)


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
                    and _difference(one.difference, _verdict(name, rows[0], one)),
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
