"""Draw images from a training run."""

import hashlib
import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from diffuse import assembly, config, files, hardware, noise_level, planning, plots, runs, schemas
from diffuse.assembly import Trained
from diffuse.commands import twins
from diffuse.commands.noise_level import find
from diffuse.config import Job
from diffuse.console import Meter, clock, print_json, print_table
from diffuse.errors import ConfigError, nearest
from diffuse.interrupts import Interrupts
from diffuse.sampling import Drawn, Plan, images
from diffuse.trackers import Quiet

log = logging.getLogger(__name__)


def main(cfg: DictConfig, job: Job) -> int:
    """Check the config, find and restore the run, then claim a folder and draw."""
    check(cfg)
    trained, plan = restore(cfg)
    label = class_number(cfg, trained)
    if cfg.dry_run:
        planned = facts(cfg, job, trained, plan)
        print_json(planned) if job.json else print_table("Plan (nothing is written)", planned)
        return 0
    folder, run = begin("sample", cfg, job, trained)
    tracker = Quiet(config.build("tracker", cfg.tracker))
    with run.logged(), run.watched(), Interrupts(at_once=True):
        tracker.start(folder, cfg.name, dict(run.facts))
        result = draw(trained, plan, cfg.n, label)
        grid = save_grid(folder, trained, result)
        tracker.image(0, "samples", grid)
        rows = facts(cfg, job, trained, plan) | {
            "calls": f"{result.nfe:g} an image",
            "speed": f"{cfg.n / result.seconds:.1f} images/s, {clock(result.seconds)}",
            "grid": str(grid),
        }
        if cfg.save:
            rows["saved"] = str(save(folder, cfg.save, result))
        run.finish(
            "done", n=cfg.n, nfe=result.nfe, images_per_second=result.speed,
            sampler=how(cfg, job, plan, result), fingerprint=result.fingerprint,
            grid=rows["grid"], saved=rows.get("saved"),
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
    planning.chosen_steps(cfg, planning.sampler(cfg), most=None)
    planning.made(cfg, 1)
    config.bind("grid", cfg.grid, "steps", "schedule")
    config.build("tracker", cfg.tracker)
    hardware.device(cfg.device)


def restore(cfg: DictConfig) -> tuple[Trained, Plan]:
    """The run that `run=` names and how its images are drawn."""
    folder = runs.find(Path(cfg.outputs), cfg.run)
    trained = assembly.restore(folder, cfg.checkpoint, cfg.weights, cfg)
    device = next(trained.denoiser.parameters()).device
    return trained, planned(cfg, trained, assembly.sampling_batch(cfg.batch, device))


def planned(cfg: DictConfig, trained: Trained, batch: int) -> Plan:
    """How images are drawn from a run, with the network that sees levels where one is named."""
    seer = find(Path(cfg.outputs), cfg.noise_level) if cfg.noise_level else None
    device = next(trained.denoiser.parameters()).device
    mean, std = trained.state["moments"]
    plan = planning.plan(
        cfg, trained.schedule, trained.levels, trained.range, batch, (mean, std),
        None if seer is None else noise_level.load(seer, device),
    )  # fmt: skip
    if plan.level_of is not None:
        try:
            plan.level_of.check(trained.spec, trained.range, plan.sigmas)
        except ValueError as error:
            raise ConfigError(f"noise_level: {error}") from error
    return plan


def begin(verb: str, cfg: DictConfig, job: Job, trained: Trained) -> tuple[Path, runs.Run]:
    """Claim a folder named after the training run, and note down which one it was."""
    about = runs.read(trained.folder)
    cfg.name = cfg.name or about["name"]
    folder = job.folder or runs.claim(Path(cfg.outputs), verb, cfg.name)
    folder.mkdir(parents=True, exist_ok=True)
    device = next(trained.denoiser.parameters()).device
    run = runs.Run.start(
        folder, verb, schemas.as_yaml(cfg), job.overrides,
        name=cfg.name, hypothesis=cfg.hypothesis, seed=cfg.seed, smoke=cfg.smoke,
        device=hardware.describe(device), weights=weights(cfg, trained),
    )  # fmt: skip
    log.info("%s, step %s of %s", folder, trained.state["step"], trained.folder)
    return folder, run


def weights(cfg: DictConfig, trained: Trained) -> dict[str, object]:
    """Which weights, to the byte."""
    return {
        "run": str(trained.folder),
        "step": trained.state["step"],
        "name": cfg.weights,
        "ema": cfg.weights != "raw",
        "sha256": trained.sha256,
    }


def chosen(cfg: DictConfig, job: Job) -> dict[str, Any]:
    """Which sampler, and which of its calls are made."""
    return {
        "choice": job.choices["sampler"],
        "name": cfg.sampler.name,
        "same_as": planning.meta(cfg).get("same_as"),
        "options": {k: v for k, v in cfg.sampler.items() if k not in ("name", "meta")},
        "reuse": dict(cfg.reuse),
    }


def named(sampler: Mapping[str, Any]) -> str:
    """E.g. "ddim(eta=1.0, noise=1.0), reuse skip(every=3, last=50)"."""
    reuse = dict(sampler["reuse"])
    name = reuse.pop("name")
    calls = [(sampler["choice"], sampler["options"])]
    calls += [(f"reuse {name}", reuse)] if name != "none" else []
    options = [", ".join(f"{k}={v}" for k, v in keys.items()) for _, keys in calls]
    return ", ".join(
        f"{call}({said})" if said else call for (call, _), said in zip(calls, options, strict=True)
    )


def how(cfg: DictConfig, job: Job, plan: Plan, result: "Result") -> dict[str, object]:
    """How images were drawn, as it stands in a record."""
    return chosen(cfg, job) | {
        "grid": dict(cfg.grid) if plan.calls else None,
        "steps": len(plan.sigmas) - 1 if plan.calls else None,
        "nfe": result.nfe,
        "start": plan.start,
        "clip": plan.clip,
        "batch": plan.batch,
        "label": cfg.label,
        "noise_level": plan.level_of.record() if plan.level_of else None,
    }


def class_number(cfg: DictConfig, trained: Trained) -> int | None:
    """`label=` as a number: a class by name or number."""
    if cfg.label is None:
        return None
    if not trained.conditional:
        raise ConfigError(f"label={cfg.label}, but {trained.folder} does not know classes")
    names = trained.spec.classes
    if str(cfg.label) in names:
        return names.index(str(cfg.label))
    if str(cfg.label).isdigit() and int(cfg.label) < len(names):
        return int(cfg.label)
    raise ConfigError(f"label: no class {cfg.label!r}; {nearest(str(cfg.label), names)}")


def facts(cfg: DictConfig, job: Job, trained: Trained, plan: Plan) -> dict[str, str]:
    steps = f"{len(plan.sigmas) - 1} steps, grid {cfg.grid.name}" if plan.calls else "its own steps"
    seen = f", seen by {plan.level_of.folder}" if plan.level_of else ""
    return {
        "run": f"{trained.folder}, step {trained.state['step']:,}, {cfg.weights} weights",
        "images": f"{cfg.n}, seed {plan.seed}" + (f", class {cfg.label}" if cfg.label else ""),
        "sampler": f"{named(chosen(cfg, job))}, {steps}, start {plan.start}",
        "levels": f"sigma from {plan.sigmas[0]:.3g} to {plan.sigmas[-2]:.3g}, then 0{seen}",
    }


@dataclass(frozen=True)
class Result:
    """What was drawn, and at what price."""

    images: Tensor  # uint8 [n c h w]
    labels: Tensor  # [n]
    nfe: float  # calls of the network an image took; a mean where each takes its own
    seconds: float
    fingerprint: str  # of the first images before rounding: equal only if they were drawn alike

    @property
    def speed(self) -> float:
        """Images a second."""
        return round(len(self.images) / self.seconds, 2)


def draw(trained: Trained, plan: Plan, n: int, label: int | None) -> Result:
    """n images, with a line on the console now and then."""
    batches: list[Drawn] = []
    with Meter("sample", n) as meter:
        for batch in images(trained.denoiser, trained.spec, plan, n, label):
            batches.append(batch)
            done = sum(len(b.images) for b in batches)
            if meter.due() or done == n:
                log.debug(meter.show(done))
        seconds = meter.seconds
    return Result(
        torch.cat([b.images for b in batches]),
        torch.cat([b.labels for b in batches]),
        sum(b.calls * len(b.images) for b in batches) / n,
        seconds,
        hashlib.sha256(batches[0].state[:4].numpy().tobytes()).hexdigest(),
    )


def save_grid(folder: Path, trained: Trained, result: Result) -> Path:
    """samples.png: up to 100 images, a class a row if the model knows classes."""
    first, of_class = result.images[:100], result.labels[:100]
    grid = plots.by_class(first, of_class) if trained.conditional else plots.grid(first)
    return plots.save(grid, folder / "samples.png")


def save(folder: Path, form: str, result: Result) -> Path:
    """Every image: PNG files, or one uint8 array N x H x W [x C] (.npz with the labels)."""
    if form == "png":
        target = folder / "images"
        for k, image in enumerate(result.images):
            plots.save(plots.picture(image), target / f"{k:06d}.png")
        return target
    array = result.images.permute(0, 2, 3, 1).numpy()
    array = array[..., 0] if array.shape[-1] == 1 else array
    content = io.BytesIO()
    if form == "npy":
        np.save(content, array)
    else:
        np.savez_compressed(content, images=array, labels=result.labels.numpy())
    return files.replace(folder / f"images.{form}", content.getvalue())


def summary(folder: Path) -> dict[str, str]:
    """One row of a sweep."""
    facts = runs.read(folder)
    return {"NFE": f"{facts['nfe']:g}", "speed": f"{facts['images_per_second']:.1f} images/s"}
