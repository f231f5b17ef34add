"""Draw images from a training run."""

import logging
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from diffuse import assembly, config, hardware, plots, runs, schemas
from diffuse.assembly import Trained
from diffuse.config import Job
from diffuse.console import Meter, clock, print_json, print_table
from diffuse.errors import ConfigError, nearest
from diffuse.interrupts import Interrupts
from diffuse.sampling import Plan, images
from diffuse.trackers import Quiet

log = logging.getLogger(__name__)


def main(cfg: DictConfig, job: Job) -> int:
    """Check the config, find and restore the run, then claim a folder and draw."""
    check(cfg)
    trained, plan = restore(cfg)
    label = class_number(cfg, trained)
    if cfg.dry_run:
        planned = facts(cfg, trained, plan)
        print_json(planned) if job.json else print_table("Plan (nothing is written)", planned)
        return 0
    folder, run = begin("sample", cfg, job, trained)
    tracker = Quiet(config.build("tracker", cfg.tracker))
    with run.logged(), run.watched(), Interrupts(at_once=True):
        tracker.start(folder, cfg.name, dict(run.facts))
        drawn, labels, calls, seconds = draw(trained, plan, cfg.n, label)
        grid = save_grid(folder, trained, drawn, labels)
        tracker.image(0, "samples", grid)
        rows = facts(cfg, trained, plan) | {
            "calls": f"{calls} an image",
            "speed": f"{cfg.n / seconds:.1f} images/s, {clock(seconds)}",
            "grid": str(grid),
        }
        if cfg.save:
            rows["saved"] = str(save(folder, cfg.save, drawn, labels))
        run.finish(
            "done", n=cfg.n, nfe=calls, images_per_second=round(cfg.n / seconds, 2),
            sampler=how(cfg, plan, calls),
            grid=rows["grid"], saved=rows.get("saved"),
        )  # fmt: skip
        tracker.finish()
    if job.json:
        print_json(run.facts | {"folder": str(folder)})
    else:
        print_table("Sampled", rows)
    return 0


def check(cfg: DictConfig) -> None:
    """Everything that can be wrong without looking at a run."""
    assembly.sampler(cfg)
    config.bind("grid", cfg.grid, "steps", "schedule")
    config.build("tracker", cfg.tracker)
    hardware.device(cfg.device)


def restore(cfg: DictConfig) -> tuple[Trained, Plan]:
    """The run that `run=` names and how its images are drawn."""
    folder = runs.find(Path(cfg.outputs), cfg.run)
    trained = assembly.restore(folder, cfg.checkpoint, cfg.weights, cfg)
    device = next(trained.denoiser.parameters()).device
    batch = assembly.sampling_batch(cfg.batch, device)
    mean, std = trained.state["moments"]
    plan = assembly.plan(cfg, trained.schedule, trained.levels, trained.range, batch, (mean, std))
    return trained, plan


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
        "ema": cfg.weights == "ema",
        "sha256": trained.sha256,
    }


def how(cfg: DictConfig, plan: Plan, calls: int) -> dict[str, object]:
    """How images were drawn, as it stands in a record."""
    return {
        "name": cfg.sampler.name,
        "options": {k: v for k, v in cfg.sampler.items() if k not in ("name", "meta")},
        "grid": dict(cfg.grid),
        "steps": len(plan.sigmas) - 1,
        "nfe": calls,
        "start": plan.start,
        "clip": "range" if plan.clip else "none",
        "batch": plan.batch,
        "label": cfg.label,
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


def facts(cfg: DictConfig, trained: Trained, plan: Plan) -> dict[str, str]:
    steps = len(plan.sigmas) - 1
    return {
        "run": f"{trained.folder}, step {trained.state['step']:,}, {cfg.weights} weights",
        "images": f"{cfg.n}, seed {plan.seed}" + (f", class {cfg.label}" if cfg.label else ""),
        "sampler": f"{cfg.sampler.name}, {steps} steps, grid {cfg.grid.name}, start {plan.start}",
        "levels": f"sigma from {plan.sigmas[0]:.3g} to {plan.sigmas[-2]:.3g}, then 0",
    }


def draw(
    trained: Trained, plan: Plan, n: int, label: int | None
) -> tuple[Tensor, Tensor, int, float]:
    """n images [n c h w] with their labels, the calls per image, and the seconds it took."""
    drawn, labels, calls = [], [], set()
    with Meter("sample", n) as meter:
        for batch, of_class, nfe in images(trained.denoiser, trained.spec, plan, n, label):
            drawn.append(batch)
            labels.append(of_class)
            calls.add(nfe)
            done = sum(map(len, drawn))
            if meter.due() or done == n:
                log.debug(meter.show(done))
        seconds = meter.seconds
    if len(calls) != 1:
        raise RuntimeError(f"batches differ in calls of the network: {sorted(calls)}")
    return torch.cat(drawn), torch.cat(labels), calls.pop(), seconds


def save_grid(folder: Path, trained: Trained, drawn: Tensor, labels: Tensor) -> Path:
    """samples.png: up to 100 images, a class a row if the model knows classes."""
    first, of_class = drawn[:100], labels[:100]
    grid = plots.by_class(first, of_class) if trained.conditional else plots.grid(first)
    return plots.save(grid, folder / "samples.png")


def save(folder: Path, form: str, drawn: Tensor, labels: Tensor) -> Path:
    """Every image: PNG files, or one uint8 array N x H x W [x C] (.npz with the labels)."""
    if form == "png":
        target = folder / "images"
        for k, image in enumerate(drawn):
            plots.save(plots.picture(image), target / f"{k:06d}.png")
        return target
    array = drawn.permute(0, 2, 3, 1).numpy()
    array = array[..., 0] if array.shape[-1] == 1 else array
    target = folder / f"images.{form}"
    if form == "npy":
        np.save(target, array)
    else:
        np.savez_compressed(target, images=array, labels=labels.numpy())
    return target
