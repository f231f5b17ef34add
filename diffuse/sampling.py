"""Images by number: image k of a seed is the same whichever others are drawn with it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffuse.data import ImageSpec, to_uint8, unfit
from diffuse.denoiser import Denoiser, clipped, counted
from diffuse.errors import DivergedError
from diffuse.samplers import Sampler
from diffuse.seeds import generator

STARTS = ("vp", "ve", "moments")


@dataclass(frozen=True)
class Plan:
    """Everything that decides how an image is drawn, besides the weights."""

    sampler: Sampler
    sigmas: Tensor  # the grid [steps + 1], float64, ends at 0
    range: tuple[float, float]  # of the pixels the network knows
    clip: bool  # hold every estimate of x0 in the range
    start: str  # vp | ve | moments
    seed: int
    batch: int  # images the network sees at once, always: the last batch is filled up
    moments: tuple[float, float] = field(default=(0.0, 0.0))  # mean and std of the data, in range


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


def draw(
    denoiser: Denoiser, spec: ImageSpec, plan: Plan, indices: Sequence[int], labels: Tensor
) -> tuple[Tensor, int]:
    """Images uint8 [n c h w] at the data's own size, and the calls of the network per image."""
    fill = [indices[-1]] * (plan.batch - len(indices))
    device = next(denoiser.parameters()).device
    noise = Noise(plan.seed, [*indices, *fill], spec.shape)
    label = torch.cat([labels, labels[-1:].expand(len(fill))]).to(device)

    denoise = counted(lambda x, sigma: denoiser(x, sigma, label))
    estimate = clipped(denoise, *plan.range) if plan.clip else denoise
    x = first_state(plan, noise()).to(device)
    walk = plan.sampler(estimate, x, plan.sigmas, randn=lambda: noise().to(device))
    for state, _ in walk:
        x = state  # only the last one is wanted
    if not x.isfinite().all():
        raise DivergedError(f"sampling: an image is not finite after {len(plan.sigmas) - 1} steps")
    return unfit(to_uint8(x[: len(indices)], plan.range).cpu(), spec), denoise.calls


def images(
    denoiser: Denoiser, spec: ImageSpec, plan: Plan, n: int, label: int | None = None
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Exactly n images, a batch at a time: (uint8 [b c h w], labels [b], calls per image).

    Image k of a conditional model is of class k mod classes, or of the one class `label`.
    """
    denoiser.eval()
    for first in range(0, n, plan.batch):
        indices = range(first, min(n, first + plan.batch))
        labels = torch.tensor(indices) % max(1, len(spec.classes))
        if label is not None:
            labels = torch.full_like(labels, label)
        drawn, calls = draw(denoiser, spec, plan, indices, labels)
        yield drawn, labels, calls
