"""From the config of a training to all that it needs: data, network, optimizer, and its state."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from diffuse import assembly, checkpoints, hardware, planning, schemas
from diffuse.commands import beginning, resuming
from diffuse.commands.beginning import Beginning
from diffuse.data import ImageSet, open_dataset
from diffuse.data.images import moments
from diffuse.errors import ConfigError
from diffuse.journal import Seen
from diffuse.noise_laws import Law
from diffuse.sampling import Plan
from diffuse.training import Recipe, Training, seconds_per_step

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
    seen: Seen  # the losses since the last line of the log, and those before
    initial: Beginning | None  # the run whose weights it began with

    def seconds(self) -> float:
        """Of a step, by doing some."""
        return seconds_per_step(self.training, self.data, self.law, self.recipe)


def prepare(cfg: DictConfig, folder: Path | None) -> Work:
    """Data, network, optimizer; the state of the run if one is continued; the length in steps."""
    if folder is not None:
        cfg = resuming.continued(cfg, folder)
    initial = beginning.find(cfg) if folder is None else None
    device = hardware.device(cfg.device)
    cfg.precision, _ = hardware.precision(cfg.precision, device)
    data = open_dataset(cfg.dataset, "train").to(device)
    test = open_dataset(cfg.dataset, "test").to(device)
    schedule, law = assembly.process(cfg)
    pixels = (cfg.range[0], cfg.range[1])
    mean, std = moments(data.images, pixels)
    assembly.measure(cfg, std)
    denoiser = assembly.denoiser(cfg, data.spec, device)
    if initial is not None:
        initial.give(denoiser.net)
    assembly.compiled(cfg, denoiser, data.spec, device)
    optimizer = assembly.optimizer(cfg, denoiser.net)
    peaks = [group["lr"] for group in optimizer.param_groups]
    training = Training.new(denoiser, optimizer, schemas.decays(cfg.train))
    seen = Seen(device)
    if folder is not None and (checkpoint := checkpoints.newest(folder / "checkpoints")):
        with _fitting(folder):
            training.load(checkpoint, own=resuming.own_settings(cfg))
        seen = Seen.of(checkpoint, device)
    recipe = _recipe(cfg, training, data, law)
    for unit in schemas.LENGTHS:
        cfg.train[unit] = recipe.steps if unit == "steps" else None
    batch = assembly.sampling_batch(None, device)
    plan = planning.plan(cfg, schedule, schedule.range, pixels, batch, (mean, std))
    return Work(
        cfg, data, test, law, plan, schedule.range, training, recipe, peaks, device, seen, initial
    )


@contextmanager
def _fitting(folder: Path) -> Iterator[None]:
    """A state that does not fit can only come from what `resume_allow` let through."""
    try:
        yield
    except (RuntimeError, KeyError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"resume: the checkpoint of {folder} does not fit this config: {reason}"
        ) from error


def _recipe(cfg: DictConfig, training: Training, data: ImageSet, law: Law) -> Recipe:
    """The `train` section with its length as a number of steps."""
    unit, amount = schemas.length(cfg.train)
    words: dict[str, Any] = {k: v for k, v in cfg.train.items() if k in Recipe.__dataclass_fields__}
    words |= {"steps": 1, "range": (cfg.range[0], cfg.range[1]), "seed": cfg.seed}
    words["ema"] = schemas.decays(cfg.train)
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
    return replace(recipe, steps=max(1, round(steps)))
