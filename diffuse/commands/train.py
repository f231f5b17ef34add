"""Train a diffusion model."""

import copy
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from diffuse import assembly, checkpoints, config, hardware, planning, runs, schemas
from diffuse.checkups import Checkup
from diffuse.commands import resuming
from diffuse.config import Job
from diffuse.console import Meter, clock, print_json, print_table
from diffuse.data import ImageSet, check_dataset, open_dataset
from diffuse.data.images import moments
from diffuse.interrupts import Interrupts
from diffuse.journal import Journal, Window
from diffuse.noise_laws import Law
from diffuse.sampling import Plan
from diffuse.trackers import Quiet
from diffuse.training import Recipe, Training, fit, seconds_per_step

log = logging.getLogger(__name__)


@dataclass
class Work:
    """A training, ready to go."""

    cfg: DictConfig  # resolved: its length is a number of steps
    data: ImageSet
    test: ImageSet
    law: Law
    plan: Plan
    levels: tuple[float, float]
    training: Training
    recipe: Recipe
    peaks: list[float]  # learning rates of the optimizer's groups
    device: torch.device
    window: tuple[float, int]  # the losses since the last line of the log: sum and count


def main(cfg: DictConfig, job: Job) -> int:
    """Check the config, then the run to continue, then the data; then claim a folder and train."""
    _check(cfg)
    folder = resuming.folder(cfg)
    work = _prepare(cfg, folder)
    if work.training.step >= work.recipe.steps:
        done, asked = work.training.step, work.recipe.steps
        print(f"{folder} has {done:,} steps, {asked:,} are asked for; train.steps= extends it")
        return 0
    if cfg.dry_run:
        return _print_plan(work, job)
    text = schemas.as_yaml(work.cfg)
    if folder is None:
        folder = job.folder or runs.claim(Path(cfg.outputs), "train", cfg.name)
        folder.mkdir(parents=True, exist_ok=True)
        run = runs.Run.start(folder, "train", text, job.overrides, **_facts(work))
    else:
        run = runs.Run.reopen(folder)
        run.truncate_log(work.training.step)
        (folder / "config.yaml").write_text(text)
    with run.logged(), run.watched(), Interrupts() as interrupts:
        log.info("%s", folder)
        log.debug("data: %s", work.data.source)
        log.info("on %s, %s", hardware.describe(work.device), work.cfg.precision)
        return _train(work, run, job, interrupts)


def _check(cfg: DictConfig) -> None:
    """Everything that can be wrong without looking at runs or data."""
    schedule, _ = assembly.process(cfg)
    measured = copy.deepcopy(cfg)  # the data's deviation is not known yet
    assembly.measure(measured, 1.0)
    assembly.asked(measured)
    config.bind("optimizer", cfg.optimizer)
    config.bind("model", cfg.model, "channels", "size", "classes")
    side = 64 * int(cfg.model.get("patch", 1))  # fits; the real one comes with the data
    with torch.device("meta"):
        config.build("model", cfg.model, channels=1, size=(side, side), classes=10)
    config.bind("encoder", cfg.encoder, "spec")
    check_dataset(cfg.dataset)
    config.build("tracker", cfg.tracker)
    planning.plan(cfg, schedule, schedule.range, (cfg.range[0], cfg.range[1]), 1, (0.0, 0.0))
    hardware.device(cfg.device)


def _prepare(cfg: DictConfig, folder: Path | None) -> Work:
    """Data, network, optimizer; the state of the run if one is continued; the length in steps."""
    if folder is not None:
        cfg = resuming.continued(cfg, folder)
    device = hardware.device(cfg.device)
    cfg.precision, _ = hardware.precision(cfg.precision, device)
    data = open_dataset(cfg.dataset, "train").to(device)
    test = open_dataset(cfg.dataset, "test").to(device)
    schedule, law = assembly.process(cfg)
    pixels = (cfg.range[0], cfg.range[1])
    mean, std = moments(data.images, pixels)
    assembly.measure(cfg, std)
    denoiser = assembly.denoiser(cfg, data.spec, device)
    optimizer = assembly.optimizer(cfg, denoiser.net)
    peaks = [group["lr"] for group in optimizer.param_groups]
    training, window = Training.new(denoiser, optimizer, cfg.train.ema), (0.0, 0)
    if folder is not None and (checkpoint := checkpoints.newest(folder / "checkpoints")):
        training.load(checkpoint)
        total, count = checkpoints.load_state(checkpoint)["window"]
        window = (total, count)
    recipe = _recipe(cfg, training, data, law)
    for unit in schemas.LENGTHS:
        cfg.train[unit] = recipe.steps if unit == "steps" else None
    batch = assembly.sampling_batch(None, device)
    plan = planning.plan(cfg, schedule, schedule.range, pixels, batch, (mean, std))
    return Work(cfg, data, test, law, plan, schedule.range, training, recipe, peaks, device, window)


def _recipe(cfg: DictConfig, training: Training, data: ImageSet, law: Law) -> Recipe:
    """The `train` section with its length as a number of steps."""
    unit, amount = schemas.length(cfg.train)
    words = {k: v for k, v in cfg.train.items() if k in Recipe.__dataclass_fields__}
    words |= {"steps": 1, "range": (cfg.range[0], cfg.range[1]), "seed": cfg.seed}
    recipe = Recipe(**words)
    if unit == "steps":
        steps = amount
    elif unit == "images":
        steps = amount / recipe.batch
    elif unit == "epochs":
        steps = amount * len(data) / recipe.batch
    else:
        seconds = seconds_per_step(training, data, law, recipe)
        steps = amount * 60 / seconds
        log.info("%.3g ms a step: %g minutes are %d steps", seconds * 1e3, amount, round(steps))
    return Recipe(**{**asdict(recipe), "steps": max(1, round(steps))})


def _print_plan(work: Work, job: Job) -> int:
    """What would happen, with a few steps run to say how long it takes."""
    seconds = seconds_per_step(work.training, work.data, work.law, work.recipe)
    left = work.recipe.steps - work.training.step
    c, h, w = work.data.spec.shape
    facts = _facts(work)
    rows = {
        "data": f"{work.data.spec.name}: {len(work.data):,} images {c}x{h}x{w}, {work.data.source}",
        "model": f"{work.cfg.model.name}, {facts['parameters']:,} parameters, {facts['precision']}",
        "levels": "sigma from {:.3g} to {:.3g}".format(*work.levels),
        "steps": f"{work.recipe.steps:,} of {work.recipe.batch} images, {left:,} to do",
        "grids": f"{work.cfg.n} images, {len(work.plan.sigmas) - 1} steps",
        "device": facts["device"],
        "memory": f"about {hardware.peak_memory(work.device) / 2**20:,.0f} MiB",
        "time": f"about {clock(left * seconds)} ({work.recipe.batch / seconds:.0f} images/s)",
    }
    if job.json:
        print_json(facts | {"plan": rows, "config": OmegaConf.to_container(work.cfg)})
    else:
        print_table("Plan (nothing is written)", rows)
    return 0


def _facts(work: Work) -> dict[str, Any]:
    return {
        "name": work.cfg.name,
        "hypothesis": work.cfg.hypothesis,
        "seed": work.cfg.seed,
        "smoke": work.cfg.smoke,
        "device": hardware.describe(work.device),
        "precision": work.cfg.precision,
        "data": {"source": work.data.source, "sha256": work.data.sha256},
        "parameters": sum(p.numel() for p in work.training.denoiser.parameters()),
        "steps": work.recipe.steps,
    }


def _train(work: Work, run: runs.Run, job: Job, interrupts: Interrupts) -> int:
    """The loop: what happens when."""
    every, recipe, training = work.cfg.train, work.recipe, work.training
    tracker = Quiet(config.build("tracker", work.cfg.tracker))
    settings = OmegaConf.to_container(work.cfg, resolve=True)
    assert isinstance(settings, dict)
    tracker.start(run.folder, work.cfg.name, {str(k): v for k, v in settings.items()})
    about = {
        "spec": asdict(work.data.spec),
        "levels": work.levels,
        "moments": work.plan.moments,
        "device": work.device.type,
    }
    window = Window(work.device, *work.window)
    journal = Journal(run, tracker, training, recipe.batch, every.keep, about, window)
    checkup = Checkup(training, work.test, work.law, work.plan)
    judge = assembly.judge(work.cfg, work.test, work.data) if every.eval_every else None
    meter = Meter("train", recipe.steps, training.step, recipe.batch)
    with meter:
        for step in fit(training, work.data, work.law, recipe, work.peaks):
            window.add(step.loss)
            if meter.due() or step.last:
                log.debug(meter.show(step.number, f"loss {step.loss.item():.4f}"))
            if step.every(every.log_every):
                journal.steps(step)
            if step.every(every.sample_every):
                journal.look(step, checkup.loss(), checkup.grid(work.cfg.n))
            if judge is not None and step.every(every.eval_every):
                journal.score(step, checkup.score(judge, every.eval_n))
            if step.every(every.save_every) or interrupts.caught or step.last:
                journal.save()
            if interrupts.caught:
                break
    tracker.finish()
    if interrupts.caught:
        run.finish("stopped", reason=f"signal {interrupts.caught}")
        log.warning("stopped at step %d; resume=%s continues", training.step, run.folder)
        return interrupts.exit_code
    run.finish(
        "done",
        images_per_second=round(meter.rate(training.step), 1),
        memory=hardware.peak_memory(work.device),
    )
    _print_result(work, run, job)
    return 0


def _print_result(work: Work, run: runs.Run, job: Job) -> None:
    if job.json:
        print_json(run.facts)
        return
    facts = run.facts
    rows = {
        "steps": f"{work.training.step:,} ({facts['images_seen']:,} images)",
        "parameters": f"{facts['parameters']:,}",
        "loss": f"{facts['loss']:.4f}" if "loss" in facts else "",
        "test loss": f"{facts['test_loss']:.4f}" if "test_loss" in facts else "",
        "speed": f"{facts['images_per_second']:,} images/s",
        "memory": f"{facts['memory'] / 2**20:,.0f} MiB",
        "time": clock(facts["seconds"]),
    }
    if work.cfg.train.sample_every:
        rows["grid"] = str(run.folder / "samples" / "latest.png")
    rows["run"] = str(run.folder)
    print_table("Trained", {key: value for key, value in rows.items() if value})


def summary(folder: Path) -> dict[str, str]:
    """One row of a sweep."""
    facts = runs.read(folder)
    return {
        "steps": f"{facts['steps']:,}",
        "loss": f"{facts['loss']:.4f}" if "loss" in facts else "",
        "test loss": f"{facts['test_loss']:.4f}" if "test_loss" in facts else "",
        "best quick FID": f"{facts['best']['fid']:.3f}" if "best" in facts else "",
        "speed": f"{facts['images_per_second']:,} images/s",
        "time": clock(facts["seconds"]),
    }
