"""fit(): one generator that trains; its caller decides what happens when."""

import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffuse import checkpoints
from diffuse.data import ImageSet, to_range
from diffuse.denoiser import Denoiser
from diffuse.errors import DivergedError
from diffuse.noise_laws import Law
from diffuse.seeds import generator, seed_of

LR_SCHEDULES = ("constant", "cosine", "onecycle")


@dataclass(frozen=True)
class Recipe:
    """How to train: plain numbers, the `train` section of a config once its length is known."""

    steps: int
    batch: int
    lr_schedule: str  # constant | cosine | onecycle
    warmup: int  # steps of linear warm-up
    clip_grad: float | None  # largest norm of the gradient
    ema: float  # decay of the averaged weights, after its own warm-up
    label_dropout: float  # share of labels shown as "no class"
    shuffle: bool
    range: tuple[float, float]  # of the pixels the network sees
    seed: int


class Ema:
    """Averaged weights in float32. Early on it forgets faster: decay min(d, (1 + n) / (10 + n))."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {k: w.detach().clone() for k, w in net.state_dict().items()}

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        now = list(net.state_dict().values())
        torch._foreach_lerp_(list(self.weights.values()), now, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]


@dataclass
class Training:
    """What changes while training: everything a checkpoint has to hold, besides the step."""

    denoiser: Denoiser
    ema: Ema
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler  # for fp16; idle otherwise
    step: int = 0

    @classmethod
    def new(cls, denoiser: Denoiser, optimizer: torch.optim.Optimizer, ema: float) -> "Training":
        device = next(denoiser.parameters()).device
        fp16 = denoiser.precision is torch.float16
        scaler = torch.amp.GradScaler(device.type, enabled=fp16)
        return cls(denoiser, Ema(denoiser.net, ema), optimizer, scaler)

    def tensors(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """The files of tensors of a checkpoint, and what of the state is not a tensor."""
        moments: dict[str, Tensor] = {}
        packed = checkpoints.pack(self.optimizer.state_dict(), moments)
        files = {
            "model": self.denoiser.net.state_dict(),
            "ema": self.ema.weights,
            "optimizer": moments,
        }
        return files, {"step": self.step, "optimizer": packed, "scaler": self.scaler.state_dict()}

    def load(self, path: Path) -> None:
        """Go back to a checkpoint that was verified."""
        state = checkpoints.load_state(path)
        self.denoiser.net.load_state_dict(checkpoints.load_tensors(path, "model"))
        averaged = checkpoints.load_tensors(path, "ema")
        for name, weight in self.ema.weights.items():
            weight.copy_(averaged[name])
        moments = checkpoints.load_tensors(path, "optimizer")
        self.optimizer.load_state_dict(checkpoints.unpack(state["optimizer"], moments))
        self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]


@dataclass(frozen=True)
class Step:
    """What the caller of fit() sees. `loss` stays on the device until somebody asks."""

    number: int
    loss: Tensor
    lr: float
    grad_norm: Tensor
    last: bool

    def every(self, n: int | None) -> bool:
        """Is it time for something that happens every n steps, and at the end?"""
        return bool(n) and (self.number % n == 0 or self.last)


def learning_rate(step: int, recipe: Recipe) -> float:
    """The factor on the optimizer's learning rate at step 1, 2, ... steps.

    "onecycle" is Smith & Topin (2018), to the digit torch's OneCycleLR without its cycle of the
    momentum: a cosine from 1/25 up to 1 over the first 30 %, then down to 1/250,000.
    """
    done = (step - 1) / max(1, recipe.steps - 1)
    if recipe.lr_schedule == "onecycle":
        top = 0.3 * recipe.steps - 1  # how far into the steps the highest rate lies
        if step - 1 <= top:
            return _cosine_between(1 / 25, 1, (step - 1) / top if top else 1.0)
        return _cosine_between(1, 1 / 250_000, (step - 1 - top) / (recipe.steps - 1 - top))
    rising = min(1.0, step / max(1, recipe.warmup))
    return rising * (_cosine_between(1, 0, done) if recipe.lr_schedule == "cosine" else 1.0)


def _cosine_between(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def batch_indices(step: int, n: int, recipe: Recipe) -> Tensor:
    """The images of a step: each epoch is a fresh permutation, and batches run across epochs."""
    position = torch.arange((step - 1) * recipe.batch, step * recipe.batch)
    epoch, place = position // n, position % n
    if not recipe.shuffle:
        return place
    out = torch.empty_like(place)
    for e in epoch.unique().tolist():
        out[epoch == e] = _epoch_order(recipe.seed, e, n)[place[epoch == e]]
    return out


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, n: int) -> Tensor:
    return torch.randperm(n, generator=generator(seed, "order", epoch))


def fit(
    training: Training, images: ImageSet, law: Law, recipe: Recipe, peaks: Sequence[float]
) -> Iterator[Step]:
    """Train up to recipe.steps; what is random depends on (seed, step) alone.

    `peaks` are the learning rates of the optimizer's groups before the schedule's factor. Raises
    DivergedError before a step that would spoil the weights.
    """
    denoiser, optimizer, scaler = training.denoiser, training.optimizer, training.scaler
    weights = [p for p in denoiser.parameters() if p.requires_grad]
    for number in range(training.step + 1, recipe.steps + 1):
        factor = learning_rate(number, recipe)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        x0, label, sigma, eps = draw(images, law, recipe, number)
        denoiser.train()
        torch.manual_seed(seed_of(recipe.seed, "dropout", number))
        loss = denoiser.loss(x0, sigma, eps, label).mean()
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(weights, recipe.clip_grad or math.inf)
        if not (loss if scaler.is_enabled() else norm).isfinite():  # fp16 overflows now and then
            raise DivergedError(
                f"step {number}: loss {loss.item():g}, gradient norm {norm.item():g} at a learning "
                f"rate of {peaks[0] * factor:g}; the weights are those of step {training.step}"
            )
        scaler.step(optimizer)
        scaler.update()
        training.ema.update(denoiser.net, number)
        training.step = number
        yield Step(number, loss.detach(), peaks[0] * factor, norm, number == recipe.steps)


def seconds_per_step(
    training: Training, images: ImageSet, law: Law, recipe: Recipe, seconds: float = 4.0
) -> float:
    """The median time of the first steps, taken on a throw-away copy."""
    trial = replace(recipe, steps=10**9, warmup=10**9)
    device = images.images.device
    times: list[float] = []
    started = last = time.perf_counter()
    for step in fit(
        copy.deepcopy(training), images, law, trial, [0.0] * len(training.optimizer.param_groups)
    ):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        times.append(now - last)
        last = now
        if step.number >= 8 and now - started > seconds:
            break
    times = sorted(times[3:])  # the first ones allocate and choose algorithms
    return times[len(times) // 2]


def draw(
    images: ImageSet, law: Law, recipe: Recipe, number: int
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """The batch of a step: x0 [b c h w], labels [b], sigma [b] (float64, CPU) and eps [b c h w]."""
    device = images.images.device
    index = batch_indices(number, len(images), recipe).to(device)
    random = generator(recipe.seed, "batch", number)
    x0 = to_range(images.batch(index), recipe.range)
    if images.flip:
        flipped = torch.rand(len(x0), generator=random) < 0.5
        x0 = torch.where(flipped.to(device)[:, None, None, None], x0.flip(-1), x0)
    label = images.labels[index]
    dropped = torch.rand(len(x0), generator=random) < recipe.label_dropout
    label = torch.where(dropped.to(device), len(images.spec.classes), label)
    sigma = law(len(x0), random)
    noise = generator(recipe.seed, "noise", number, device=device)
    eps = torch.randn(x0.shape, generator=noise, device=device)
    return x0, label, sigma, eps
