"""Draw images from a training run."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from diffuse import assembly, config, evaluations, hardware, planning, plots, runs
from diffuse.commands import describing, guiding, restoring, starting
from diffuse.commands.drawing import draw, twins
from diffuse.commands.drawing.saving import save, sheet
from diffuse.config import Job
from diffuse.console import clock, print_dry_run, print_json, print_table, rate
from diffuse.interrupts import Interrupts

log = logging.getLogger(__name__)


def main(cfg: DictConfig, job: Job) -> int:
    """Check the config, find and restore the run, then claim a folder and draw."""
    check(cfg)
    tracker = assembly.tracker(cfg)
    trained, plan = restoring.restore(cfg, job)
    guiding.refuse_idle(cfg, job)
    label = restoring.class_number(cfg, trained)
    about = describing.class_of(trained, label)
    if cfg.dry_run:
        print_dry_run(describing.facts(cfg, job, trained, plan), job.json)
        return 0
    folder, run = starting.of_run("sample", cfg, job, trained)
    with run.logged(), run.watched(), Interrupts(at_once=True):
        tracker.start(folder, cfg.name, dict(run.facts))
        result = draw(trained, plan, cfg.n, label, cfg)
        samples = plots.save(sheet(trained, result), folder / "samples.png")
        tracker.image(0, "samples", samples)
        rows = describing.facts(cfg, job, trained, plan) | {
            "calls": f"{result.nfe:g} an image",
            "speed": f"{rate(result.speed)} images/s, {clock(result.seconds)}",
            "shards": f"{result.drawn} drawn, {result.known} known",
            "samples": str(samples),
        }
        if cfg.save:
            rows["saved"] = str(save(folder, cfg.save, trained, result))
        run.finish(
            "done", n=cfg.n, nfe=result.nfe, images_per_second=evaluations.rounded(result.speed),
            sampler=describing.how(cfg, job, plan, result.nfe, about),
            fingerprint=result.fingerprint, shards=result.shards, samples=rows["samples"],
            saved=rows.get("saved"),
        )  # fmt: skip
        twins.warn(folder, Path(cfg.outputs))
        tracker.finish()
    if job.json:
        print_json(run.facts | {"folder": str(folder)})
    else:
        print_table("Sampled", rows)
    return 0


def check(cfg: DictConfig) -> None:
    """Everything that can be wrong without looking at a run."""
    planning.check_steps(cfg)
    planning.made(cfg, 1)
    config.bind("grid", cfg.grid, "steps", "schedule")
    config.bind("tracker", cfg.tracker)
    hardware.check_devices(cfg.devices, hardware.device(cfg.device))


def summary(folder: Path) -> dict[str, str]:
    """One row of a sweep."""
    facts = runs.read(folder)
    return {"NFE": f"{facts['nfe']:g}", "speed": f"{rate(facts['images_per_second'])} images/s"}
