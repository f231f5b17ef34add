"""Records side by side as a person reads them."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from diffuse import comparison, passport
from diffuse.commands.evaluating import scores
from diffuse.comparison import Comparison, Difference, Line
from diffuse.console import print_columns, print_table
from diffuse.measures import measure
from diffuse.trainings import Pooled

# of what is only noted: said elsewhere, or another one in any two evaluations
TOLD = ("warnings", "command", "folder", "samples", "grid", "pictures", "seconds")
TOLD += ("images_per_second", "features_per_second")
MOST_ACROSS = 50  # characters of values side by side, of more than three


def show(
    found: Comparison,
    names: list[str],
    changed: dict[str, list[Any]],
    over: dict[str, list[Pooled]],
) -> None:
    """A table for each number, then what the records are of, and how they were compared."""
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
        print(f"  -> {one.way.name}: {verdict(name, over[0], one)}")
        if one.note:
            print(f"     {one.note}")
    print()


def verdict(name: str, first: Pooled, other: Pooled) -> str:
    """What the difference of two ways to train means, in plain words."""
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
        "reference": ", ".join(filter(None, map(reference.get, ("dataset", "path", "split")))),
    }
    rows |= {"over trainings": _how_over(over)} if over else {}
    if found.unrecorded:
        rows["not recorded"] = f"{', '.join(found.unrecorded)} (in some of them)"
    if noted := [m.field for m in found.noted if m.field.partition(".")[0] not in TOLD]:
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
    ends = [scale * bound for bound in (found.value, found.low, found.high)]
    digits = scores.decimals(ends[2] - ends[1]) if max(map(abs, ends)) < 100 else 0
    return "{} ({} to {})".format(*(_signed(end, digits) for end in ends))


def _signed(value: float, digits: int) -> str:
    """Without the sign of what rounds to nothing."""
    text = f"{value:+.{digits}f}"
    return text if text.strip("+-0.") else f"{0:.{digits}f}"
