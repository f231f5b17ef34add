"""From the config of a training to all that it needs: data, network, optimizer, and its state."""

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from diffuse import assembly, checkpoints, config, hardware, meanings, planning, values
from diffuse.commands import guiding
from diffuse.commands.training import beginning, resuming
from diffuse.commands.training.beginning import Beginning
from diffuse.data import ImageSet, open_splits
from diffuse.data.images import moments
from diffuse.divergence import Diverged
from diffuse.errors import ConfigError, DataError, reason
from diffuse.launching import Meet
from diffuse.noise_laws import Law
from diffuse.ranks import Ranks
from diffuse.rehearsal import repeats
from diffuse.sampling import Plan
from diffuse.seen import Seen
from diffuse.training import Recipe, Training, seconds_per_step
from diffuse.training_state import due, settings

log = logging.getLogger(__name__)

ALL_OURS = 0.8  # of the threads' time; a training alone on its machine gets more


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
    ranks: Ranks
    weak_step: int | None  # whose checkpoint images are to be guided away from
    changes: Sequence[str]  # of a run that goes on: what is not as it was
    checkpoints: Sequence[int]  # and which it had when it was looked at

    def seconds(self) -> float:
        """Of a step, by doing some."""
        return seconds_per_step(self.training, self.data, self.law, self.recipe, self.ranks)

    def looks(self) -> list[str]:
        """What is due after the last step: the grid, a quick FID."""
        number, every = self.training.step, self.cfg.train
        last = number == self.recipe.steps
        times = {"look": every.sample_every, "score": every.eval_every}
        return [name for name, n in times.items() if number and due(number, n, last)]

    def begin(self, folder: Path) -> None:
        """Let the others train, too, in the run of this folder."""
        self.ranks.agree(folder)

    def leave(self) -> int:
        """There is nothing to train, for the others neither."""
        self.ranks.agree(None)
        return 0


@dataclass(frozen=True)
class Found:
    """What the first process has found, for all: who looks for himself may find another."""

    cfg: DictConfig
    folder: Path | None
    checkpoint: Path | None  # to go on from, of the run in `folder`
    manifest: str | None  # its sha256
    initial: Beginning | None
    data: tuple[str, str]  # sha256 of the splits
    changes: Sequence[str] = ()
    checkpoints: Sequence[int] = ()

    def check(self, data: ImageSet, test: ImageSet) -> None:
        """DataError if this process sees other files than the first one."""
        if (data.sha256, test.sha256) != self.data:
            raise DataError(f"{data.spec.name}: other images than the first process has")
        if self.checkpoint:
            checkpoints.verify(self.checkpoint)
            if checkpoints.digest(self.checkpoint) != self.manifest:
                raise DataError(f"{self.checkpoint} differs from the one the first process has")
        if self.initial:
            self.initial.check()


def prepare(cfg: DictConfig, folder: Path | None, meet: Meet) -> Work:
    """Data, network, optimizer; the state of the run if one is continued; the length in steps.

    The other processes of the training follow when the data is there.
    """
    changes = [] if folder is None else resuming.continued(cfg, folder)
    device = hardware.device(cfg.device)
    assembly.settle(cfg, device)
    initial = beginning.find(cfg) if folder is None else None
    data, test = open_splits(cfg.dataset)
    if cfg.train.batch > len(data):
        log.warning(
            "train.batch=%d is more than the %d images there are: a step sees some of them twice",
            cfg.train.batch, len(data),
        )  # fmt: skip
    checkpoint, there = None, []
    if folder is not None:
        there = checkpoints.steps(folder / "checkpoints")
        checkpoint = checkpoints.newest(folder / "checkpoints")
        changes += resuming.check_data(cfg, folder, checkpoint, data, test)
        changes += resuming.check_epochs(cfg, folder, len(data))
        if checkpoint:
            resuming.keep_compiled(cfg, folder, checkpoint, device, len(data))
    manifest = checkpoints.digest(checkpoint) if checkpoint else None
    sums = data.sha256, test.sha256
    found = Found(cfg, folder, checkpoint, manifest, initial, sums, changes, there)
    ranks = meet()
    ranks.agree(found)
    return _built(found, data, test, ranks)


def follow(meet: Meet) -> tuple[Work, Path | None]:
    """The same in another process; with the run's folder, once the first one has begun there."""
    ranks = meet()
    found: Found = ranks.agree(None)
    config.trust(found.cfg.trust)
    hardware.device(found.cfg.device)
    data, test = open_splits(found.cfg.dataset)
    found.check(data, test)
    work = _built(found, data, test, ranks)
    if ranks.agree(None):
        work.seconds()
    return work, ranks.agree(None)


def _built(found: Found, data: ImageSet, test: ImageSet, ranks: Ranks) -> Work:
    cfg, initial = found.cfg, found.initial
    values.check_shares(cfg.train.batch, ranks.world)
    values.check_micro_batch(cfg.train.micro_batch, cfg.train.batch // ranks.world)
    device = ranks.device(hardware.device(cfg.device))
    hardware.forget_peak(device)
    data, test = data.to(device), test.to(device)
    schedule, law = assembly.schedule_and_law(cfg)
    pixels = assembly.pixel_range(cfg)
    mean, std = moments(data.images, pixels)
    assembly.fill_sigma_data(cfg, std)
    denoiser = assembly.denoiser(cfg, data.spec, device)
    if initial is not None:
        initial.give(denoiser.net)
    optimizer = assembly.optimizer(cfg, denoiser.net)
    peaks = [group["lr"] for group in optimizer.param_groups]
    own = settings(optimizer)  # what differs there was let through
    training = Training.new(denoiser, optimizer, meanings.decays(cfg.train), own)
    seen = Seen(device)
    if found.folder is not None and found.checkpoint is not None:
        with _fitting(found.folder):
            training.load(found.checkpoint)
            if cfg.resume_allow:
                _try_step(training.optimizer)
        seen = Seen.of(found.checkpoint, device)
    if meanings.length(cfg.train) != ("steps", training.step):  # else there is nothing to train
        lasts = partial(_seconds, cfg, training, data, law, ranks)
        training.strict = device.type == "cuda" and repeats(denoiser, data.spec.shape, device)
        if not cfg.dry_run:
            assembly.compiled(cfg, denoiser, data.spec, device, ranks.world, training.strict, lasts)
    recipe = _recipe(cfg, training, data, law, ranks)
    if recipe.lr_schedule != "onecycle" and recipe.steps < recipe.warmup:
        log.warning(
            "train.warmup=%d is more than the %d steps there are: the learning rate stays below "
            "its full value", recipe.warmup, recipe.steps,
        )  # fmt: skip
    for unit in meanings.UNITS:
        cfg.train[unit] = recipe.steps if unit == "steps" else None
    batch = assembly.sampling_batch(None, device)
    guidance = guiding.of_looks(cfg, denoiser)
    plan = planning.plan(
        cfg,
        schedule,
        schedule.range,
        pixels,
        batch,
        (mean, std),
        denoiser.objective,
        guidance=guidance,
    )
    return Work(
        cfg, data, test, law, plan, schedule.range, training, recipe, peaks, device, seen, initial,
        ranks, guiding.weak_step(cfg, recipe.steps), found.changes, found.checkpoints,
    )  # fmt: skip


def _try_step(optimizer: torch.optim.Optimizer) -> None:
    """A step of a copy, on zeros: some optimizers look at what they have loaded only then."""
    trial = copy.deepcopy(optimizer)
    for weight in (weight for group in trial.param_groups for weight in group["params"]):
        weight.grad = torch.zeros_like(weight)
    trial.step()


@contextmanager
def _fitting(folder: Path) -> Iterator[None]:
    """A state that does not fit can only come from what `resume_allow` let through."""
    try:
        yield
    except (RuntimeError, KeyError, ValueError, TypeError, OSError) as error:
        raise ConfigError(
            f"resume: the checkpoint of {folder} does not fit this config: {reason(error)}"
        ) from error


def _seconds(cfg: DictConfig, training: Training, data: ImageSet, law: Law, ranks: Ranks) -> float:
    """How long the training is going to last, as it is now."""
    unit, amount = meanings.length(cfg.train)
    if unit == "minutes":
        return amount * 60
    recipe = _recipe(cfg, training, data, law, ranks)
    with suppress(Diverged):
        return (recipe.steps - training.step) * seconds_per_step(training, data, law, recipe, ranks)
    return 0.0  # it ends at its first step


def _recipe(cfg: DictConfig, training: Training, data: ImageSet, law: Law, ranks: Ranks) -> Recipe:
    """The `train` section with its length as a number of steps."""
    _, amount = meanings.length(cfg.train)
    words: dict[str, Any] = {k: v for k, v in cfg.train.items() if k in Recipe.__dataclass_fields__}
    words |= {"steps": 1, "range": assembly.pixel_range(cfg), "seed": cfg.seed}
    recipe = Recipe(**words)
    steps = meanings.steps(cfg.train, len(data))
    if steps is None:
        share = hardware.Share()
        try:
            past = replace(recipe, on_nan="skip")  # what may come of a bad step is for later
            seconds = seconds_per_step(training, data, law, past, ranks)
        except Diverged as lost:  # one after the other: in its folder it says why
            return replace(recipe, steps=lost.step.number)
        if data.images.device.type == "cpu" and share.so_far() < ALL_OURS:
            log.warning(
                "something else computes here, too: %.0f %% of the time was ours while steps were "
                "timed, so there will be fewer of them than usual; train.steps= says how many",
                100 * share.so_far(),
            )
        steps = max(1, round(amount * 60 / seconds))
        log.info("%.3g ms a step: %g minutes are %d steps", seconds * 1e3, amount, steps)
    return replace(recipe, steps=steps)
