"""`diffuse pareto`: what each sampler reaches for so many network calls, from one checkpoint."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from diffuse import assembly, evaluations, hardware, runs, scoring
from diffuse.commands import describing, drawing, guiding, restoring, starting
from diffuse.commands.evaluating import cells, doubts, fronts, judging
from diffuse.commands.evaluating.cells import Cell
from diffuse.config import Job
from diffuse.encoders import check_encoder
from diffuse.errors import ConfigError, DivergedError
from diffuse.interrupts import Interrupts
from diffuse.plots.pareto import pareto
from diffuse.restored import Trained
from diffuse.sampling import Plan
from diffuse.scoring import Real, Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bench:
    """What all cells share."""

    cfg: DictConfig
    job: Job
    trained: Trained
    label: int | None
    real: Real
    floor: Mapping[str, Any]  # FID of n real images: value, ci95, n


def main(cfg: DictConfig, job: Job) -> int:
    """Check the config, restore the run, lay out the cells, then draw and score one by one."""
    check(cfg)
    trained = restoring.trained(cfg)
    device = trained.device
    label = restoring.class_number(cfg, trained)
    table, left_out = cells.laid_out(cfg, trained, assembly.sampling_batch(cfg.batch, device))
    guiding.refuse_idle(cfg, job)
    if not table:
        raise ConfigError(f"samplers: none is left: {fronts.why_not(left_out)}")
    if cfg.dry_run:
        return fronts.show_plan(cfg, job, trained, label, table, left_out)
    train, test, moved = judging.sets_of(trained, {})
    judge = assembly.judge(cfg, train=train, test=test)
    real = scoring.real(judge, cfg.n)
    bench = Bench(cfg, job, trained, label, replace(real, floor=None), _floor(real))
    folder, run = starting.of_run("pareto", cfg, job, trained)
    with run.logged(), run.watched(), Interrupts(at_once=True):
        started = time.monotonic()
        shown = real.known_floor().images  # ours cannot have another range: it is the checkpoint's
        said = judging.selected(cfg) + moved
        said += doubts.of_numbers(judge.encoder, cfg.n, shown, real, None)
        said += doubts.of_classes(trained, test, label)
        rows = _all(bench, table)
        cells.mark(rows)
        first = table[0].plan
        record = {"n": cfg.n, "warnings": said} | judging.reference(real, None, test)
        record |= describing.passport_of(
            job, trained, first, judge.encoder, weights=cfg.weights, n=cfg.n, seeds=cfg.seeds
        )
        record["code"] = describing.code(trained, [cell.plan for cell in table], judge.encoder)
        record |= {"sampler": _shared(bench, first), "fid_floor": bench.floor}
        record |= {"floor_n": bench.floor["n"], "cells": rows}
        record |= {"left_out": [asdict(one) for one in left_out]}
        record["seconds"] = round(time.monotonic() - started, 1)
        runs.write_json(folder / evaluations.FILE, record)  # no picture costs the numbers
        picture = pareto(rows, bench.floor, folder / "pareto")[0]
        record["picture"] = str(picture)
        runs.write_json(folder / evaluations.FILE, record)
        for row in rows:
            run.log(**{k: row[k] for k in ("sampler", "nfe", "steps", "value", "seconds")})
        run.finish("done", picture=str(picture))
    return fronts.show(job, folder, record)


def check(cfg: DictConfig) -> None:
    """Everything that can be wrong without looking at a run."""
    check_encoder(cfg.encoder)
    hardware.check_devices(cfg.devices, hardware.device(cfg.device))


def _floor(real: Real) -> dict[str, Any]:
    """FID of as many training images, or of all if there are fewer."""
    rows = real.known_floor()
    found = scoring.measured("fid", [rows], replace(real, floor=None), Settings())["fid"]
    return found | {"n": len(rows)}


def _all(bench: Bench, table: Sequence[Cell]) -> list[dict[str, Any]]:
    """The cells as they stand in a record; one that diverges does not lose the others."""
    rows: list[dict[str, Any]] = []
    trained, seeds = bench.trained, bench.cfg.seeds
    kept = [one for cell in table for one in cells.stores(cell, trained, bench.label, seeds)]
    with drawing.held(kept, trained.spec, bench.cfg.n):
        try:
            for k, cell in enumerate(table, 1):
                log.info("%s (%d of %d)", cell, k, len(table))
                about = {"sampler": cell.sampler, "asked": cell.asked, "steps": cell.steps}
                rows.append(about | {"nfe": cell.calls} | _measured(bench, cell))
        except SystemExit:
            goes_on = ": the same command goes on" * any(store.shared for store in kept)
            log.info("%d of %d are measured%s", len(rows), len(table), goes_on)
            raise
    if not any(row["status"] == "done" for row in rows):
        raise DivergedError(f"no sampler came to an end: {rows[0]['reason']}")
    return rows


def _measured(bench: Bench, cell: Cell) -> dict[str, Any]:
    """Draw what is missing of a cell, and score it."""
    cfg, label = bench.cfg, bench.label
    plans = [*cell.seeds(cfg.seeds)]
    lost: dict[str, Any] = dict.fromkeys(("value", "ci95", "seconds", "images_per_second"))
    try:
        _warm(bench, cell, plans[0])
        results = [drawing.draw(bench.trained, plan, cfg.n, label, cell.cfg) for plan in plans]
    except DivergedError as error:
        log.warning("%s: %s", cell, error)
        return lost | {"status": "diverged", "reason": str(error)}
    encoder = bench.real.encoder
    draws = [scoring.rows_again(encoder, result.images)[0] for result in results]
    score = scoring.measured("fid", draws, bench.real, Settings())["fid"]
    kept = cells.store(cell, plans[0], bench.trained, label)
    # of the drawing itself, whenever that was and however many processes shared in it
    speed = (kept.speed() if kept else None) or results[0].speed
    of_class = describing.class_of(bench.trained, label)
    shards = {key: sum(r.shards[key] for r in results) for key in ("drawn", "known")}
    job = replace(bench.job, choices={**bench.job.choices, "sampler": cell.sampler})
    return {
        "status": "done",
        **score,
        "floor": bench.floor["value"],
        "seconds": 1 / speed,
        "images_per_second": speed,
        "shards": shards,
        "how": describing.how(cell.cfg, job, cell.plan, results[0].nfe, of_class),
    }


def _warm(bench: Bench, cell: Cell, plan: Plan) -> None:
    """A GPU's first call takes long, and should not count for the cell that happens to be first."""
    device = bench.trained.device
    if device.type == "cpu" or not cells.missing(
        cell, plan, bench.trained, bench.label, bench.cfg.n
    ):
        return
    spec = bench.trained.spec
    x = torch.zeros(plan.batch, *spec.shape, device=device)
    classes = torch.zeros(plan.batch, dtype=torch.int64, device=device)
    with torch.no_grad():
        bench.trained.denoiser(x, plan.sigmas[0], classes)


def _shared(bench: Bench, plan: Plan) -> dict[str, Any]:
    """How images of all cells were drawn; what is a sampler's own stands in its cells."""
    guidance = plan.guidance.record() if plan.guidance else None
    return {
        "start": plan.start, "clip": plan.clip, "guidance": guidance, "batch": plan.batch,
        **describing.class_of(bench.trained, bench.label),
    }  # fmt: skip


def summary(folder: Path) -> dict[str, str]:
    """One row of a sweep."""
    rows = json.loads((folder / evaluations.FILE).read_text())["cells"]
    best, cheapest = (next(r for r in rows if r[key]) for key in ("best", "cheapest"))
    return {
        "good enough": fronts.named(cheapest),
        "FID (95%)": fronts.value(cheapest),
        "best": f"{fronts.named(best)}: {fronts.value(best)}",
    }
