"""A record as a person reads it."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffuse import run_folders
from diffuse.commands import describing, guiding
from diffuse.config import Job
from diffuse.console import WIDTH, clock, print_columns, print_json, print_table, rate
from diffuse.measures import measure, scores

MAIN = ("fid", "kid")
MOST_DECIMALS = 12
Table = dict[str, dict[str, str]]
Cells = Callable[[str, Mapping[str, Any]], dict[str, str]]


def show(job: Job, folder: Path, record: Mapping[str, Any], classes: tuple[str, ...]) -> int:
    """The main numbers with what they depend on; the others in a table of their own."""
    if job.json:
        print_json({**record, "folder": str(folder)})
        return 0
    rows = _main(record) | _others(record) | {"record": str(folder / "record.json")}
    if "samples" in record:
        rows["samples"] = record["samples"]
    rows |= record.get("pictures", {})
    print_table(title(record), rows)
    more = {name: score for name, score in scores(record).items() if name not in MAIN}
    if more:
        tables = (
            {measure(n).label: how(n, s) for n, s in more.items()} for how in (_with_floor, cells)
        )
        print_columns("\nMore measures", fitting(*tables))
    if "per_class" in more:
        tables = (_classes(more["per_class"], classes, how) for how in (_with_floor, cells))
        print_columns("\nFID within each class", fitting(*tables))
    if points := record.get("curves", {}).get("fid"):
        row = {f"n={n:,.0f}": f"{mean:.2f}" for n, mean, _ in points}
        print_columns("\nFID at smaller n", {"": row})
    return 0


def title(record: Mapping[str, Any]) -> str:
    """E.g. "FID of quickstart, step 641"; of images that are no run's, "FID of theirs.npz"."""
    if weights := record.get("weights"):
        return f"FID of {run_folders.title(weights['run'])}, step {weights['step']:,}"
    return f"FID of {record['source']['path']}"


def whose(record: Mapping[str, Any]) -> str:
    """What the floor is of; the number is said where it is another one."""
    same = record["floor_n"] == record["n"]
    return "real images" if same else f"{record['floor_n']:,} real images"


def _main(record: Mapping[str, Any]) -> dict[str, str]:
    """Each number beside what as many real images have."""
    found, tail = {}, ""
    for name, score in scores(record).items():
        if name not in MAIN:
            continue
        ours = cells(name, score)
        found[measure(name).label] = f"{ours['value']}  (95%: {ours['95%']})"
        if "sd" in score:
            found[f"  sd of subsets{tail}"] = _number(name, score["sd"], _decimals(name, score))
        if per_seed := score.get("per_seed"):
            values = ", ".join(_number(name, value, _decimals(name, score)) for value in per_seed)
            found[f"  each seed{tail}"] = values
        if ours["real"]:
            found[f"  {whose(record)}{tail}"] = real(name, score, "  (95%: {})")
        tail += " "  # the keys of a table are different ones
    return found


def _others(record: Mapping[str, Any]) -> dict[str, str]:
    """What the numbers depend on."""
    encoder, reference, weights = record["encoder"], record["reference"], record.get("weights")
    seeds = record.get("seeds") or {}
    count = seeds.get("count", 1)
    number = f"{reference['n']:,} images" if reference["n"] else "an unknown number of images"
    what = f"{reference['dataset']} {reference['split']}" if "dataset" in reference else ""
    rows = {
        "n": f"{record['n']:,}" + (f" for each of {count} seeds" if count > 1 else ""),
        "reference": f"{what or reference['path']}, {number}",
        "encoder": f"{encoder['name']} ({encoder['sha256'][:8]})",
    }
    if weights:
        drawn = record["sampler"]
        levels = f"grid {drawn['grid']['name']}" if drawn["grid"] else "its own steps"
        rows |= {
            "weights": f"step {weights['step']:,}, {weights['name']}",
            **of_class(drawn),
            "sampler": f"{describing.named(drawn)}, {levels}, start {drawn['start']}",
            **({"guidance": guiding.said(guidance)} if (guidance := drawn.get("guidance")) else {}),
            "NFE": f"{drawn['nfe']:g}",
            "speed": f"{rate(record['images_per_second'])} images/s",
            "run": weights["run"],
        }
    else:
        rows["images"] = f"{record['source']['path']} ({record['source']['sha256'][:8]})"
    return rows | {"time": clock(record["seconds"])}


def of_class(drawn: Mapping[str, Any]) -> dict[str, str]:
    """The one class that was asked for, if it was one."""
    return {} if drawn.get("label_name") is None else {"class": drawn["label_name"]}


def fitting(*tables: Table) -> Table:
    """The first one that a terminal is wide enough for, or the last."""
    return next((table for table in tables if _width(table) <= WIDTH), tables[-1])


def _width(table: Table) -> int:
    """As `print_columns` sets it."""
    heads = {"": {name: name for name in next(iter(table.values()))}}
    rows = [[head, *cells.values()] for head, cells in (heads | table).items()]
    return sum(2 + max(map(len, column)) for column in zip(*rows, strict=True))


def cells(name: str, score: Mapping[str, Any]) -> dict[str, str]:
    """A row of a table: the value, its interval, and the floor."""
    floor, digits = score.get("floor"), _decimals(name, score)
    return {
        "value": _number(name, score["value"], digits),
        "95%": _ends(name, score["ci95"], digits),
        "real": "" if floor is None else _number(name, floor, digits),
    }


def _with_floor(name: str, score: Mapping[str, Any]) -> dict[str, str]:
    return cells(name, score) | {"real": real(name, score, " ({})")}


def real(name: str, score: Mapping[str, Any], form: str) -> str:
    """The floor, with its interval in this form; records of older versions have none."""
    if score.get("floor") is None:
        return ""
    digits = _decimals(name, score)
    ends = score.get("floor_ci95")
    return _number(name, score["floor"], digits) + (
        form.format(_ends(name, ends, digits)) if ends else ""
    )


def _ends(name: str, ci95: Sequence[float], digits: int) -> str:
    return " to ".join(_number(name, end, digits) for end in ci95)


def _number(name: str, value: float, digits: int) -> str:
    return f"{measure(name).scale * value:.{digits}f}"


def _decimals(name: str, score: Mapping[str, Any]) -> int:
    low, high = score["ci95"]
    return decimals(measure(name).scale * (high - low))


def decimals(width: float) -> int:
    """Three, or as many as two digits of a narrow interval take: some features are tiny."""
    return min(MOST_DECIMALS, max(3, 1 - math.floor(math.log10(width)))) if width > 0 else 3


def _classes(score: Mapping[str, Any], classes: tuple[str, ...], as_cells: Cells) -> Table:
    floors = score.get("floor_classes") or [{}] * len(score["classes"])
    names = classes or tuple(map(str, range(len(score["classes"]))))
    return {
        name: as_cells("fid", {**one, "floor": of.get("value"), "floor_ci95": of.get("ci95")})
        for name, one, of in zip(names, score["classes"], floors, strict=True)
    }
