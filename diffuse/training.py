"""fit(): one generator that trains; its caller decides what happens when."""

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from diffuse import compiling, conditions, memory, rehearsal
from diffuse.data import ImageSet, to_range
from diffuse.divergence import IN_A_ROW, Diverged, diagnosis
from diffuse.hardware import sent
from diffuse.noise_laws import Law
from diffuse.ranks import ALONE, Losses, Ranks
from diffuse.seeds import generator, seed_of
from diffuse.training_state import Step, Training

TIMED = 4.0  # seconds in which the steps are timed that minutes are made into
# how torch says that an optimizer reads on the device whether to step, so that nobody waits for it
TOLD = "_step_supports_amp_scaling"


@dataclass(frozen=True)
class Recipe:
    """How to train: plain numbers, the `train` section of a config once its length is known."""

    steps: int
    batch: int
    lr_schedule: str  # constant | cosine | onecycle
    warmup: int  # steps of linear warm-up
    clip_grad: float | None  # largest norm of the gradient
    label_dropout: float  # share of labels shown as "no class"
    shuffle: bool
    range: tuple[float, float]  # of the pixels the network sees
    seed: int
    micro_batch: int | None = None  # images a network sees at once; None: all of its batch
    on_nan: str = "stop"  # stop | skip | rollback (for who calls `fit`; to it this is stop)


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
    training: Training,
    images: ImageSet,
    law: Law,
    recipe: Recipe,
    peaks: Sequence[float],  # learning rates of the optimizer's groups before the schedule's factor
    ranks: Ranks = ALONE,
    losses: Losses | None = None,  # of training.denoiser, where it is fitted again
) -> Iterator[Step]:
    """Train up to recipe.steps; what is random depends on (seed, step, rollbacks) alone.

    Of several processes each computes its part of every batch, with dropout by its rank, too. A
    step whose loss or gradient is not finite changes no weight: it is left out, or raises Diverged.
    """
    denoiser, optimizer, scaler = training.denoiser, training.optimizer, training.scaler
    weights = [p for p in denoiser.parameters() if p.requires_grad]
    losses = losses or ranks.losses(denoiser)
    size = recipe.micro_batch or recipe.batch // ranks.world
    settled = ranks.world == 1
    can_be_told = not scaler.is_enabled() and getattr(optimizer, TOLD, False)
    batch = batch_of(images, law, recipe, training.step + 1, training.rollbacks, ranks)
    for number in range(training.step + 1, recipe.steps + 1):
        lr = _set_rates(optimizer, peaks, learning_rate(number, recipe))
        gradient = partial(_gradient, training, recipe, number, batch, losses, ranks.rank)
        told = can_be_told and bool(optimizer.state)  # the first step makes moments of what it sees
        watched = partial(_watched, training, gradient, len(batch[0]), size)
        with watched():
            buffers = rehearsal.Buffers(denoiser)  # what a network counts as it goes
            if not settled:  # after its first one DDP settles in which order it adds up gradients,
                gradient(size)  # so a resumed training needs one before it goes on, too
                buffers.restore()
                settled = True
            loss = ranks.mean(gradient(size))
            scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(weights, recipe.clip_grad or math.inf)
            sound = ranks.all(loss.isfinite() & norm.isfinite())
            if told:
                _step_if(sound, optimizer)
            # while a GPU still computes the gradient
            following = batch_of(images, law, recipe, number + 1, training.rollbacks, ranks)
            finite = sound.item()
            if finite:
                if not told:
                    scaler.step(optimizer)
                training.average(number)
            scaler.update()
        # fp16 overflows now and then: the scale is halved, until it cannot be its fault
        overflow = not finite and scaler.is_enabled() and loss.isfinite() and scaler.get_scale() > 1
        left_out = not finite and not overflow
        if not finite:
            buffers.restore()
        step = Step(number, loss, lr, norm, number == recipe.steps)
        training.in_a_row = training.in_a_row + 1 if left_out else 0
        if left_out:
            with watched():
                gradient(size)  # once more: the first one was clipped
            buffers.restore()
            step = _left_out(training, images, law, recipe, step)
        training.step, batch = number, following
        yield step


def _set_rates(optimizer: torch.optim.Optimizer, peaks: Sequence[float], factor: float) -> float:
    """Of each group; returns that of the first one."""
    for group, peak in zip(optimizer.param_groups, peaks, strict=True):
        group["lr"] = peak * factor
    return peaks[0] * factor


def _left_out(training: Training, images: ImageSet, law: Law, recipe: Recipe, step: Step) -> Step:
    """A step that was not finite, with its diagnosis; Diverged if training does not go on."""
    index = batch_indices(step.number, len(images), recipe)
    sigma = batch_of(images, law, recipe, step.number, training.rollbacks)[2]
    step = replace(step, why=diagnosis(training.denoiser.net, step, index, sigma))
    if recipe.on_nan != "skip" or training.in_a_row >= IN_A_ROW:
        raise Diverged(step, training.in_a_row)
    training.skipped += 1
    return step


def _watched(
    training: Training, gradient: Callable[..., Tensor], images: int, size: int
) -> AbstractContextManager[None]:
    """Where there is no room for a gradient, say with which parts there would be."""
    return memory.watched(images, size, partial(_attempt, training, gradient))


def _attempt(training: Training, gradient: Callable[..., Tensor], size: int) -> None:
    """A gradient of parts of another size: no compiled code, which takes one size only.

    Beside it there is room for the optimizer's two moments, if they are not there yet.
    """
    weights = [] if training.has_moments else training.denoiser.parameters()
    moments = [torch.empty_like(weight).fill_(0) for weight in weights for _ in range(2)]
    with compiling.eager(training.denoiser.net):
        gradient(size, shared=False)
    del moments


def _step_if(sound: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Step where `sound` [] is true, as a GradScaler has it done; nobody waits for the device."""
    optimizer.found_inf = (~sound).float()  # pyright: ignore[reportAttributeAccessIssue]
    optimizer.step()
    del optimizer.found_inf  # pyright: ignore[reportAttributeAccessIssue]


def _gradient(
    training: Training,
    recipe: Recipe,
    number: int,  # of the step
    batch: tuple[Tensor, Tensor, Tensor, Tensor],
    losses: Losses,
    rank: int,
    size: int,  # images that the network sees at once
    shared: bool = True,  # the gradient is the mean over all processes
) -> Tensor:
    """The mean loss of a batch [], and its gradient in the weights: part by part, added up."""
    x0, label, sigma, eps = batch
    training.denoiser.train()
    training.optimizer.zero_grad(set_to_none=True)
    again = _again(training.rollbacks)
    torch.manual_seed(seed_of(recipe.seed, "dropout", number, *again, *_others(rank)))
    found: list[Tensor] = []
    for start in range(0, len(x0), size):
        part = slice(start, start + size)
        last = start + size >= len(x0)
        with (
            conditions.strict(training.strict),
            contextlib.nullcontext() if shared and last else losses.unshared(),
        ):
            each = losses(x0[part], sigma[part], eps[part], label[part])
            loss = each.mean() * (len(each) / len(x0))
            training.scaler.scale(loss).backward()
        found.append(loss.detach())
    return found[0] if len(found) == 1 else torch.stack(found).sum()


def _again(rollbacks: int) -> tuple[int, ...]:
    """What a rollback adds to the purpose of random numbers, so that they are others."""
    return (rollbacks,) if rollbacks else ()


def _others(rank: int) -> tuple[str, ...]:
    """What a process adds that is not the first one, for what each draws for itself."""
    return (f"rank {rank}",) if rank else ()


def seconds_per_step(
    training: Training,
    images: ImageSet,
    law: Law,
    recipe: Recipe,
    ranks: Ranks = ALONE,
    seconds: float | None = None,  # that it takes; None: TIMED
) -> float:
    """The median time of the first steps, taken on a throw-away copy.

    Other load comes and goes: a moment of it should not make a training a fraction as long.
    """
    trial = replace(recipe, steps=10**9, warmup=10**9)
    device = images.images.device
    times: list[float] = []
    least = TIMED if seconds is None else seconds
    copied = copy.deepcopy(training)
    if getattr(training.optimizer, TOLD, False):  # a copy forgets it
        setattr(copied.optimizer, TOLD, True)
    started = last = time.perf_counter()
    none = [0.0] * len(training.optimizer.param_groups)
    with compiling.alike(copied.denoiser.net, training.denoiser.net):
        for _ in fit(copied, images, law, trial, none, ranks):
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            now = time.perf_counter()
            times.append(now - last)
            last = now
            if ranks.agree(len(times) >= 8 and now - started > least):
                break
    times = sorted(times[3:])  # the first ones allocate and choose algorithms
    return ranks.agree(times[len(times) // 2])


def batch_of(
    images: ImageSet,
    law: Law,
    recipe: Recipe,
    number: int,
    rollbacks: int = 0,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The batch of a step: x0 [b c h w], labels [b], sigma [b] (float64, CPU) and eps [b c h w].

    Of several processes each gets its part of what one alone would draw. Each rollback draws other
    levels, noise, flips and hidden labels for the same images.
    """
    device, part = images.images.device, ranks.part(recipe.batch)
    index = sent(batch_indices(number, len(images), recipe)[part], device)
    random = generator(recipe.seed, "batch", number, *_again(rollbacks))
    x0 = to_range(images.batch(index), recipe.range)
    if images.flip:
        flipped = torch.rand(recipe.batch, generator=random)[part] < 0.5
        x0 = torch.where(sent(flipped, device)[:, None, None, None], x0.flip(-1), x0)
    label = images.labels[index]
    dropped = torch.rand(recipe.batch, generator=random)[part] < recipe.label_dropout
    label = torch.where(sent(dropped, device), len(images.spec.classes), label)
    sigma = law(recipe.batch, random)[part]
    noise = generator(recipe.seed, "noise", number, *_again(rollbacks), device=device)
    eps = torch.randn((recipe.batch, *x0.shape[1:]), generator=noise, device=device)[part]
    return x0, label, sigma, eps
