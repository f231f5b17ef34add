"""A record as a person reads it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffuse.commands import guiding, sample
from diffuse.config import Job
from diffuse.console import clock, print_columns, print_json, print_table
from diffuse.measures import measure, scores

MAIN = ("fid", "kid")


def show(job: Job, folder: Path, record: Mapping[str, Any], classes: tuple[str, ...]) -> int:
    """The main numbers with what they depend on; the others in a table of their own."""
    if job.json:
        print_json({**record, "folder": str(folder)})
        return 0
    rows = _main(record) | _others(record) | {"record": str(folder / "record.json")}
    if "grid" in record:
        rows["grid"] = record["grid"]
    rows |= record.get("pictures", {})
    print_table(title(record), rows)
    more = {name: score for name, score in scores(record).items() if name not in MAIN}
    if more:
        print_columns("\nAnd", {measure(name).label: _cells(name, s) for name, s in more.items()})
    if "per_class" in more:
        print_columns("\nFID within each class", _classes(more["per_class"], classes))
    if points := record.get("curves", {}).get("fid"):
        row = {f"n={n:,.0f}": f"{mean:.2f}" for n, mean, _ in points}
        print_columns("\nFID of fewer of them", {"": row})
    return 0


def title(record: Mapping[str, Any]) -> str:
    if weights := record.get("weights"):
        return f"FID of {Path(weights['run']).parent.name}, step {weights['step']:,}"
    return f"FID of {record['source']['path']}"


def _main(record: Mapping[str, Any]) -> dict[str, str]:
    """Each number beside what as many real images have."""
    found, tail = {}, ""
    same = record["floor_n"] == record["n"]
    real = "real images" if same else f"{record['floor_n']} real images"
    for name, score in scores(record).items():
        if name not in MAIN:
            continue
        cells = _cells(name, score)
        found[measure(name).label] = f"{cells['value']}  (95%: {cells['95%']})"
        if per_seed := score.get("per_seed"):
            values = ", ".join(_number(name, value) for value in per_seed)
            found[f"  each seed{tail}"] = values
        if cells["real"]:
            found[f"  {real}{tail}"] = cells["real"]
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
        "n": f"{record['n']:,}" + (f", of {count} seeds each" if count > 1 else ""),
        "reference": f"{what or reference['path']}, {number}",
        "encoder": f"{encoder['name']} ({encoder['sha256'][:8]})",
    }
    if weights:
        drawn = record["sampler"]
        levels = f"grid {drawn['grid']['name']}" if drawn["grid"] else "its own steps"
        rows |= {
            "weights": f"step {weights['step']:,}, {'ema' if weights['ema'] else 'raw'}",
            "sampler": f"{sample.named(drawn)}, {levels}, start {drawn['start']}",
            **({"guidance": guiding.said(led)} if (led := drawn.get("guidance")) else {}),
            "NFE": f"{drawn['nfe']:g}",
            "speed": f"{record['images_per_second']:.1f} images/s",
            "run": weights["run"],
        }
    else:
        rows["images"] = f"{record['source']['path']} ({record['source']['sha256'][:8]})"
    return rows | {"time": clock(record["seconds"])}


def _cells(name: str, score: Mapping[str, Any]) -> dict[str, str]:
    low, high = score["ci95"]
    floor = score.get("floor")
    return {
        "value": _number(name, score["value"]),
        "95%": f"{_number(name, low)} to {_number(name, high)}",
        "real": "" if floor is None else _number(name, floor),
    }


def _number(name: str, value: float) -> str:
    return f"{measure(name).scale * value:.3f}"


def _classes(score: Mapping[str, Any], classes: tuple[str, ...]) -> dict[str, dict[str, str]]:
    floors = score.get("floor_classes") or [None] * len(score["classes"])
    names = classes or tuple(map(str, range(len(score["classes"]))))
    return {
        name: _cells("fid", {**one, "floor": floor})
        for name, one, floor in zip(names, score["classes"], floors, strict=True)
    }
