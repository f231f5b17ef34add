"""Train the network that sees how noisy an image is, for sampling without being told."""

import logging
from typing import Any

from omegaconf import DictConfig

from diffuse import assembly, conditions, config, hardware, meanings, noise_level, runs
from diffuse.commands import starting
from diffuse.config import Job
from diffuse.console import Meter, clock, print_dry_run, print_json, print_table
from diffuse.data import ImageSet, check_dataset, open_splits
from diffuse.errors import ConfigError
from diffuse.interrupts import Interrupts
from diffuse.noise_level import Regressor
from diffuse.schedules import Schedule

log = logging.getLogger(__name__)

VERB = "noise_level"
LOG_EVERY = 50


def main(cfg: DictConfig, job: Job) -> int:
    """Check everything, then claim a run folder, then train, measure and save."""
    schedule = config.build("schedule", cfg.schedule)
    config.bind("optimizer", cfg.optimizer, "params")
    check_dataset(cfg.dataset)
    device = hardware.device(cfg.device)
    dtype = assembly.settle(cfg, device)
    train, test = (images.to(device) for images in open_splits(cfg.dataset))
    shape = {"channels": train.spec.channels, "width": cfg.width}
    try:
        regressor = noise_level.new_regressor(**shape, seed=cfg.seed, precision=dtype)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    steps = meanings.steps_of(cfg.epochs * len(train), cfg.batch)
    c, h, w = train.spec.shape
    low, high = schedule.range
    plan = {
        "dataset": f"{train.spec.name}: {len(train):,} images {c}x{h}x{w}",
        "levels": f"sigma from {low:.3g} to {high:.3g}",
        "parameters": f"{sum(p.numel() for p in regressor.parameters()):,}",
        "training": f"{steps:,} steps of {cfg.batch} images, {cfg.precision}",
        "device": hardware.describe(device),
    }
    if cfg.dry_run:
        print_dry_run(plan, job.json)
        return 0
    data = {"source": train.source, "sha256": train.sha256}
    folder, run = starting.start(VERB, cfg, job, device=plan["device"], data=data)
    with conditions.repeatable(), run.logged(), run.watched(), Interrupts(at_once=True):
        log.info("%s", folder)
        _train(cfg, run, regressor.to(device), train, schedule, steps)
        scores = _scores(cfg, regressor, test, schedule)
        about = train.spec, cfg.range, schedule.range, shape
        sha256 = noise_level.save(folder, steps, regressor, *about)
        run.finish("done", steps=steps, **scores, sha256=sha256)
    _show(cfg, job, run, plan)
    return 0


def _train(
    cfg: DictConfig,
    run: runs.Run,
    regressor: Regressor,
    images: ImageSet,
    schedule: Schedule,
    steps: int,
) -> None:
    law = noise_level.covering(schedule)
    optimizer = assembly.optimizer(cfg, regressor)
    work = noise_level.train(
        regressor, optimizer, images, law,
        steps=steps, batch=cfg.batch, range=assembly.pixel_range(cfg), seed=cfg.seed,
    )  # fmt: skip
    with Meter("noise_level", steps, images=cfg.batch) as meter:
        for step in work:
            if step.every(LOG_EVERY):
                run.log(step=step.number, loss=step.loss.item(), lr=step.lr)
            if meter.due() or step.last:
                log.debug(meter.show(step.number, f"loss {step.loss.item():.3f}"))


def _scores(
    cfg: DictConfig, regressor: Regressor, test: ImageSet, schedule: Schedule
) -> dict[str, float]:
    """Held-out loss and baseline, by the lessons' levels and by those of a sampler."""
    scores: dict[str, float] = {}
    for ending, law in (("", noise_level.even), ("_visited", noise_level.visited)):
        loss, baseline = noise_level.held_out(regressor, test, law(schedule), cfg.range, cfg.seed)
        scores |= {f"loss{ending}": loss, f"baseline{ending}": baseline}
    return scores


def _show(cfg: DictConfig, job: Job, run: runs.Run, plan: dict[str, str]) -> None:
    facts: dict[str, Any] = run.facts
    if job.json:
        print_json(facts | {"folder": str(run.folder)})
        return
    rows = {
        "loss": f"{facts['loss']:.4f} on the logit, alpha_bar ~ U",
        "  baseline": f"{facts['baseline']:.4f} by always saying 0.5",
        "loss, t ~ U": f"{facts['loss_visited']:.4f}",
        "  baseline ": f"{facts['baseline_visited']:.4f}",
        "time": clock(facts["seconds"]),
        "run": str(run.folder),
        "use it": f"diffuse sample sampler=ddim_predicted noise_level={cfg.name}",
    }
    print_table(f"noise level {cfg.name}", plan | rows)
