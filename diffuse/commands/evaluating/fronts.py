"""The cells of `diffuse pareto` as a person reads them, before and after they are drawn."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from diffuse import evaluations
from diffuse.commands.evaluating import cells, scores
from diffuse.commands.evaluating.cells import Cell, LeftOut
from diffuse.comparison import brief
from diffuse.config import Job
from diffuse.console import WIDTH, clock, print_columns, print_json, print_table
from diffuse.plots.pareto import duration
from diffuse.restored import Trained

Row = Mapping[str, Any]
CHEAPEST, NEAR = "*", "~"


def show_plan(
    cfg: DictConfig, job: Job, trained: Trained, label: int | None, table: Sequence[Cell],
    left_out: Sequence[LeftOut],
) -> int:  # fmt: skip
    """`dry_run=true`: the cells, and how many images of each are to be drawn."""
    rows = []
    for cell in table:
        plans = [*cell.seeds(cfg.seeds)]
        to_draw = sum(cells.missing(cell, plan, trained, label, cfg.n) for plan in plans)
        kept = cells.store(cell, plans[0], trained, label)
        speed = kept.speed() if kept else None
        rows.append({
            "sampler": cell.sampler, "asked": cell.asked, "nfe": cell.calls, "steps": cell.steps,
            "grid": cell.cfg.grid.name, "to_draw": to_draw, "images_per_second": speed,
        })  # fmt: skip
    total = sum(row["to_draw"] for row in rows)
    calls = sum(row["to_draw"] * row["nfe"] for row in rows)
    # what a call took in cells that were drawn before
    each = [1 / (row["images_per_second"] * row["nfe"]) for row in rows if row["images_per_second"]]
    seconds = calls * sum(each) / len(each) if each else None
    if job.json:
        facts = {"to_draw": total, "calls": calls, "seconds": seconds}
        lost = [asdict(one) for one in left_out]
        print_json({"run": str(trained.folder), "n": cfg.n, "cells": rows, **facts,
                    "left_out": lost})  # fmt: skip
        return 0
    _print("Images to draw, by calls (nothing is written)", rows, lambda row: f"{row['to_draw']:,}")
    drawn = f"{total:,} of {len(rows) * cfg.n * cfg.seeds:,}"
    about = {
        "run": f"{trained.title}, {cfg.weights} weights",
        "images to draw": drawn + (f", about {clock(seconds)}" if seconds else ""),
        "calls": f"{calls:,} of the network, all together",
    }
    print()
    print_table("In all", about | _notes(rows, [asdict(one) for one in left_out]))
    return 0


def show(job: Job, folder: Path, record: Row) -> int:
    """FID by sampler and calls, then time, then what is best and what is enough."""
    if job.json:
        print_json({**record, "folder": str(folder)})
        return 0
    rows = record["cells"]
    _print("FID, by network calls an image (+- 95% interval)", rows, _cell)
    print("  * the cheapest that is within noise of the best   ~ within noise, too")
    _print("\nTime an image", rows, lambda r: duration(r["seconds"]) if r["seconds"] else "-")
    best, cheapest = (next(row for row in rows if row[key]) for key in ("best", "cheapest"))
    floor = record["fid_floor"]
    low, high = floor["ci95"]
    encoder, reference, weights = record["encoder"], record["reference"], record["weights"]
    shards = [row["shards"] for row in rows if row["status"] == "done"]
    count = record["seeds"]["count"]
    about = {
        "good enough": f"{named(cheapest)}: {value(cheapest)}, {duration(cheapest['seconds'])}"
        " an image",
        **_at_most(cheapest),
        "best": f"{named(best)}: {value(best)}",
        **_too_few(rows, record["n"]),
        scores.whose(record): f"{floor['value']:.3f} ({low:.3f} to {high:.3f})",
        "n": f"{record['n']:,}" + (f" for each of {count} seeds" if count > 1 else ""),
        "reference": f"{reference['dataset']} {reference['split']}, {reference['n']:,} images",
        "encoder": f"{encoder['name']} ({encoder['sha256'][:8]})",
        "run": f"{weights['run']}, step {weights['step']:,}, {weights['name']} weights",
        **scores.of_class(record["sampler"]),
        "shards": f"{sum(s['drawn'] for s in shards)} drawn, {sum(s['known'] for s in shards)} "
        f"known, in {clock(record['seconds'])}",
        **_notes(rows, record["left_out"]),
        "picture": record["picture"],
        "record": str(folder / evaluations.FILE),
    }
    print()
    print_table("What to use", about)
    return 0


def _print(title: str, rows: Sequence[Row], text: Any) -> None:
    """A row for each sampler, a column for each number of calls; blocks that fit the terminal."""
    asked = sorted({nfe for row in rows for nfe in row["asked"]})
    names = list(dict.fromkeys(row["sampler"] for row in rows))
    found = {(row["sampler"], nfe): text(row) for row in rows for nfe in row["asked"]}
    left = 2 + max(map(len, names))
    block: list[int] = []
    taken = left
    for nfe in [*asked, None]:
        wide = 2 + max((len(found.get((name, nfe), "")) for name in names), default=0)
        wide = max(wide, 2 + len(str(nfe)))
        if block and (nfe is None or taken + wide > WIDTH):
            head = {str(n): n for n in block}
            print_columns(title, {
                name: {said: found.get((name, n), "") for said, n in head.items()} for name in names
            })  # fmt: skip
            title, block, taken = "", [], left
        if nfe is not None:
            block, taken = [*block, nfe], taken + wide


def _cell(row: Row) -> str:
    if row["status"] != "done":
        return "diverged"
    return value(row) + (CHEAPEST if row["cheapest"] else NEAR if row["within_noise"] else "")


def _at_most(row: Row) -> dict[str, str]:
    """How much worse than the best a cell may be though that is not shown; nothing of the best."""
    if row["minus_best"] is None:
        return {}
    return {"  than the best": f"worse by at most {brief(row['minus_best']['ci95'][1])} (95%)"}


def value(row: Row) -> str:
    """E.g. 12.34 +-0.56: as many digits as the interval has two of."""
    reach = row["ci95"][1] - row["value"]  # the lower end may be cut off at 0
    digits = min(3, max(0, 1 - math.floor(math.log10(reach)))) if reach > 0 else 3
    return f"{row['value']:.{digits}f} +-{reach:.{digits}f}"


def named(row: Row) -> str:
    """E.g. heun in 9 calls."""
    return f"{row['sampler']} in {row['nfe']:g} call{'s' * (row['nfe'] != 1)}"


def _notes(rows: Sequence[Row], left_out: Sequence[Row]) -> dict[str, str]:
    """Who made fewer calls than asked for, who is not there, and who did not come to an end."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(row["sampler"] for row in rows):
        ours = [row for row in rows if row["sampler"] == name]
        fewer = [(row["nfe"], nfe) for row in ours for nfe in row["asked"] if nfe != row["nfe"]]
        if fewer:
            found[f"{name} makes"] = ", ".join(f"{made} of {nfe}" for made, nfe in fewer) + " calls"
        if lost := [row for row in ours if row.get("status") == "diverged"]:
            at = ", ".join(str(row["nfe"]) for row in lost)
            found[f"{name} diverged"] = f"in {at} calls: {lost[0]['reason']}"
    for one in left_out:
        key = f"no {one['sampler']}" + (f" at {one['asked']}" if one["asked"] else "")
        found[key] = one["reason"]
    return found


def _too_few(rows: Sequence[Row], n: int) -> dict[str, str]:
    """What would tell more of them apart, where most are within noise of each other."""
    scored = [row for row in rows if row["status"] == "done"]
    near = sum(row["within_noise"] for row in scored)
    if len(scored) == 1 or 2 * near <= len(scored):
        return {}
    return {"within noise": f"{near} of {len(scored)}; n={4 * n} would halve the intervals"}


def why_not(left_out: Sequence[LeftOut]) -> str:
    """In one line."""
    return "; ".join(f"{one.sampler}: {one.reason}" for one in left_out)
