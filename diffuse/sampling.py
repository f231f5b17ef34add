"""Images by number: image k of a seed is the same whichever others are drawn with it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffuse.data import ImageSpec, to_uint8, unfit
from diffuse.denoiser import Denoise, Denoiser, clipped, counted, reused, thresholded
from diffuse.errors import DivergedError
from diffuse.guidance import Guidance
from diffuse.hardware import sent
from diffuse.noise_level import Predictor
from diffuse.samplers import Sampler
from diffuse.seeds import generator

TOO_LARGE = 1000.0  # times 1 + sigma: no state of a working sampler is there
LOOK_EVERY = 10  # steps between looks at how large the state is: a GPU has to wait for each


@dataclass(frozen=True)
class Plan:
    """Everything that decides how an image is drawn, besides the weights."""

    sampler: Sampler
    sigmas: Tensor  # the grid [steps + 1], float64, ends at 0
    range: tuple[float, float]  # of the pixels the network knows
    clip: str  # hold every estimate of x0 in range: none | range | dynamic | a number
    start: str  # vp | ve | moments
    seed: int
    batch: int  # images the network sees at once, always: the last batch is filled up
    moments: tuple[float, float] = field(default=(0.0, 0.0))  # mean and std of the data, in range
    made: tuple[bool, ...] | None = None  # which calls of the network are made; None = all
    calls: int | None = None  # the calls an image takes; None = the sampler decides
    guidance: Guidance | None = None
    level_of: Predictor | None = None  # for a sampler that is not to know the level


@dataclass(frozen=True)
class Drawn:
    """A batch of images."""

    images: Tensor  # uint8 [b c h w], at the data's own size
    labels: Tensor  # [b]
    calls: int  # of the network, for each image
    state: Tensor  # [b c h w], where the sampler ended, before it was rounded


class Noise:
    """Standard normal noise for some images: a stream for each, drawn on the CPU."""

    def __init__(self, seed: int, indices: Sequence[int], shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.streams = [generator(seed, "image", k) for k in indices]

    def __call__(self) -> Tensor:
        return torch.stack([torch.randn(self.shape, generator=g) for g in self.streams])


def first_state(plan: Plan, noise: Tensor) -> Tensor:
    """x at the highest level: sigma N(0, 1), plus what stands for the data under it."""
    sigma = plan.sigmas[0].item()
    if plan.start == "ve":
        return sigma * noise
    if plan.start == "vp":
        return math.sqrt(1 + sigma**2) * noise
    mean, std = plan.moments
    return mean + math.sqrt(sigma**2 + std**2) * noise


def asked(sampler: Sampler, sigmas: Tensor) -> list[Tensor]:
    """The levels at which a sampler asks for an estimate on a grid: it is watched on a zero."""
    levels: list[Tensor] = []

    def ask(x: Tensor, sigma: Tensor) -> Tensor:
        levels.append(sigma)
        return x

    zero = torch.zeros(1, 1, 1, 1)
    for _ in sampler(ask, zero, sigmas, lambda: zero):
        pass
    return levels


def calls(sampler: Sampler, steps: int) -> int:
    """How often a sampler asks for an estimate in so many steps."""
    return len(asked(sampler, torch.linspace(1, 0, steps + 1).double()))


def _held(denoise: Denoise, plan: Plan) -> Denoise:
    """The estimates of x0 held where the plan says."""
    if plan.clip == "none":
        return denoise
    if plan.clip == "range":
        return clipped(denoise, *plan.range)
    if plan.clip == "dynamic":
        return thresholded(denoise, *plan.range)
    return clipped(denoise, -float(plan.clip), float(plan.clip))


class Watch:
    """Stops a walk whose state is not finite or has grown out of all proportion."""

    def __init__(self, sigmas: Tensor) -> None:
        self.bound = TOO_LARGE * (1 + sigmas[0].item())
        self.levels = sigmas.tolist()
        self.peaks: list[Tensor] = []

    def see(self, x: Tensor) -> None:
        self.peaks.append(x.abs().amax())
        if len(self.peaks) % LOOK_EVERY == 0:
            self.look()

    def look(self) -> None:
        peaks = torch.stack(self.peaks[-LOOK_EVERY:]).cpu()
        bad = ~(peaks <= self.bound)
        if bad.any():
            k = int(bad.nonzero()[0])
            step = max(0, len(self.peaks) - LOOK_EVERY) + k + 1
            # an adaptive sampler takes steps that are not in the grid
            at = f", at sigma = {self.levels[step]:.3g}" if step < len(self.levels) else ""
            raise DivergedError(f"sampling: |x| is {peaks[k]:.3g} after step {step}{at}")


def walk(
    denoiser: Denoiser, spec: ImageSpec, plan: Plan, indices: Sequence[int], labels: Tensor
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """The states [b c h w] that some images go through: (x, denoised, calls so far).

    DivergedError names the step at which a state is not finite or larger than any image's.
    """
    device = next(denoiser.parameters()).device
    noise = Noise(plan.seed, indices, spec.shape)
    label, guidance = labels.to(device), plan.guidance
    network = counted(lambda x, sigma: denoiser(x, sigma, label))
    weak = counted(_weak(denoiser, guidance, label)) if guidance else None
    estimate = guidance.combined(network, weak) if guidance and weak else network
    estimate = reused(estimate, iter(plan.made)) if plan.made else estimate
    watch = Watch(plan.sigmas)
    x = first_state(plan, noise()).to(device)
    randn = lambda: sent(noise(), device)  # noqa: E731
    more = {} if plan.level_of is None else {"level_of": plan.level_of}
    for state, denoised in plan.sampler(_held(estimate, plan), x, plan.sigmas, randn=randn, **more):
        watch.see(state)
        yield state, denoised, network.calls + (weak.calls if weak else 0)
    watch.look()


def _weak(denoiser: Denoiser, guidance: Guidance, label: Tensor) -> Denoise:
    """What guidance moves away from: other weights, or the same without a label, or both."""
    other, told = guidance.weak or denoiser, label if guidance.told else None
    return lambda x, sigma: other(x, sigma, told)


def draw(
    denoiser: Denoiser, spec: ImageSpec, plan: Plan, indices: Sequence[int], labels: Tensor
) -> Drawn:
    """Some images of the plan's seed, of these classes, in one batch of the plan's size."""
    n, fill = len(indices), plan.batch - len(indices)
    everyone = [*indices, *[indices[-1]] * fill]
    every = torch.cat([labels, labels[-1:].expand(fill)])
    state, made = torch.empty(0), 0
    for state, _, made in walk(denoiser, spec, plan, everyone, every):  # noqa: B007
        pass  # only the last one is wanted
    if plan.calls is not None and made != plan.calls:
        raise RuntimeError(f"the sampler made {made} calls of the network, not {plan.calls}")
    pixels = unfit(to_uint8(state[:n], plan.range).cpu(), spec)
    return Drawn(pixels, labels, made, state[:n].cpu())


def classes(spec: ImageSpec, indices: Sequence[int], label: int | None = None) -> Tensor:
    """Image k of a conditional model is of class k mod classes, or of the one class `label`."""
    labels = torch.tensor(indices) % max(1, len(spec.classes))
    return labels if label is None else torch.full_like(labels, label)


def batches(
    spec: ImageSpec, size: int, n: int, label: int | None = None
) -> Iterator[tuple[range, Tensor]]:
    """The numbers and `classes` of exactly n images, a batch at a time."""
    for first in range(0, n, size):
        indices = range(first, min(n, first + size))
        yield indices, classes(spec, indices, label)


def images(
    denoiser: Denoiser, spec: ImageSpec, plan: Plan, n: int, label: int | None = None
) -> Iterator[Drawn]:
    """Exactly n images, a batch at a time: see `batches`."""
    denoiser.eval()
    for indices, labels in batches(spec, plan.batch, n, label):
        yield draw(denoiser, spec, plan, indices, labels)
