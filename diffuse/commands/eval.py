"""FID and KID of a training run or of images, beside the same numbers of real images."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from diffuse import (
    assembly,
    evaluations,
    measures,
    sampling,
    scoring,
)
from diffuse.commands import describing, drawing, guiding, restoring, sample, starting
from diffuse.commands.drawing import saving, twins
from diffuse.commands.drawing.saving import Result
from diffuse.commands.evaluating import doubts, judging, known, outside, pictures, scores
from diffuse.config import Job
from diffuse.console import print_dry_run, rate
from diffuse.encoders import check_encoder
from diffuse.interrupts import Interrupts
from diffuse.restored import Trained
from diffuse.sampling import Plan

log = logging.getLogger(__name__)


def main(cfg: DictConfig, job: Job) -> int:
    """Check the config, restore the run, open its data, then claim a folder, draw and compare."""
    check(cfg)
    tracker = assembly.tracker(cfg)
    if cfg.images is not None:
        return outside.main(cfg, job, tracker)
    trained, plan = restoring.restore(cfg, job)
    guiding.refuse_idle(cfg, job)
    label = restoring.class_number(cfg, trained)
    if cfg.dry_run:
        print_dry_run(describing.facts(cfg, job, trained, plan), job.json)
        return 0
    chosen = judging.selected(cfg)
    train, test, moved = judging.sets_of(trained, judging.moved(cfg, job, trained))
    if cfg.known and (found := known.find(cfg, trained, plan, train, test)):
        return known.again(cfg, job, trained, found)
    judge = assembly.judge(cfg, train=train, test=test)
    size = (test.spec.native_height, test.spec.native_width)
    statistics = judging.statistics(cfg, judge.encoder, size)
    real = scoring.real(judge, cfg.n, *judging.moments_and_rows(statistics))
    asked = None
    if trained.of_classes and label is None:
        asked = sampling.classes(trained.spec, range(cfg.n))
    wanted = judging.groups(cfg, job, asked, cfg.n, real)
    by_class = "per_class" in wanted
    folder, run = starting.of_run("eval", cfg, job, trained)
    with run.logged(), run.watched(), Interrupts(at_once=True):
        started = time.monotonic()
        tracker.start(folder, cfg.name, dict(run.facts))
        about = describing.passport_of(  # the code as it is now
            job, trained, plan, judge.encoder, weights=cfg.weights, n=cfg.n, seeds=cfg.seeds
        )
        results = _drawn(cfg, trained, plan, label, folder)
        first = results[0]
        said = doubts.of_numbers(
            judge.encoder, cfg.n, first.images, real, statistics, asked if by_class else None
        )
        said += doubts.of_classes(trained, test, label, statistics)
        record = judging.scored(cfg, wanted, [(r.images, asked) for r in results], real)
        nfe = sum(result.nfe for result in results) / len(results)
        drawn = describing.how(cfg, job, plan, nfe, describing.class_of(trained, label))
        record |= {"n": cfg.n, "warnings": chosen + moved + said} | judging.reference(
            real, statistics, test
        )
        record |= about | {"sampler": drawn}
        record |= _drawing(results)
        record["seconds"] = round(time.monotonic() - started, 1)
        pictures.keep(folder, record, partial(saving.sheet, trained, first), first.images, real)
        values = {name: score["value"] for name, score in measures.scores(record).items()}
        run.log(step=trained.step, n=cfg.n, **values)
        tracker.log(trained.step, values)
        tracker.image(trained.step, "samples", folder / "samples.png")
        images = {"fingerprint": first.fingerprint, "plan": drawing.key(trained, plan, label)}
        run.finish("done", sampler=drawn, **images)
        twins.warn(folder, Path(cfg.outputs))
        tracker.finish()
    return scores.show(job, folder, record, trained.spec.classes)


def check(cfg: DictConfig) -> None:
    """Everything that can be wrong without looking at a run."""
    sample.check(cfg)
    check_encoder(cfg.encoder)
    judging.check(cfg)


def _drawn(
    cfg: DictConfig, trained: Trained, plan: Plan, label: int | None, folder: Path
) -> list[Result]:
    """n images of each seed; those of a seed are in their files before the next one is begun."""
    results: list[Result] = []
    for k in range(cfg.seeds):
        ours = replace(plan, seed=plan.seed + k)
        results.append(drawing.draw(trained, ours, cfg.n, label, cfg))
        if cfg.save:
            home = folder if cfg.seeds == 1 else folder / f"seed_{ours.seed}"
            home.mkdir(exist_ok=True)
            saving.save(home, cfg.save, trained, results[k])
    return results


def _drawing(results: Sequence[Result]) -> dict[str, Any]:
    """What it took to draw the images of all seeds."""
    number = sum(len(result.images) for result in results)
    seconds = sum(len(result.images) / result.speed for result in results)
    shards = [result.shards for result in results]
    return {
        "images_per_second": evaluations.rounded(number / seconds),
        "shards": {key: sum(one[key] for one in shards) for key in shards[0]},
    }


def summary(folder: Path) -> dict[str, str]:
    """One row of a sweep."""
    record = evaluations.read(folder)
    low, high = record["fid"]["ci95"]
    floor = record["fid"].get("floor")
    row = {
        "FID (95%)": f"{record['fid']['value']:.3f} ({low:.2f} to {high:.2f})",
        "real": "" if floor is None else f"{floor:.3f}",
        "n": f"{record['n']:,}",
    }
    if "sampler" in record:
        row["NFE"] = f"{record['sampler']['nfe']:g}"
        row["images/s"] = rate(record["images_per_second"])
    return row
