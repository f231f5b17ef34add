"""Noise laws: which levels training sees. A law draws n levels, given a generator.

Each is one function of a uniform number. `stratified` spreads the n numbers of a batch evenly, as
in Kingma et al. (2021), appendix I.1: they share one offset and cover (0, 1), which lowers the
variance of the loss and leaves each level's own law as it is.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from diffuse.schedules import Schedule

Law = Callable[[int, Generator], Tensor]  # (n, generator) -> sigma [n], float64 on the CPU


def uniform(schedule: Schedule, stratified: bool) -> Law:
    """t ~ U(0, 1): Ho et al. (2020), algorithm 1."""
    return lambda n, generator: schedule.sigma(_numbers(n, generator, stratified))


def lognormal(schedule: Schedule, mean: float, std: float, stratified: bool) -> Law:
    """ln sigma ~ N(mean, std^2), inside the schedule's levels: Karras et al. (2022), table 1."""
    _check_spread(std)
    ends = torch.tensor(schedule.range, dtype=torch.float64).log()
    low, high = torch.special.ndtr((ends - mean) / std).tolist()
    if not high - low > 1e-6:
        raise ValueError(
            f"ln sigma ~ N({mean:g}, {std:g}^2) has nothing in the schedule's levels, "
            f"{schedule.range[0]:.3g} to {schedule.range[1]:.3g}"
        )

    def draw(n: int, generator: Generator) -> Tensor:
        u = low + (high - low) * _numbers(n, generator, stratified)
        return (mean + std * torch.special.ndtri(u)).clamp(*ends.tolist()).exp()

    return draw


def logit_normal(schedule: Schedule, mean: float, std: float, stratified: bool) -> Law:
    """logit t ~ N(mean, std^2): Esser et al. (2024), Eq. 19."""
    _check_spread(std)

    def draw(n: int, generator: Generator) -> Tensor:
        z = torch.special.ndtri(_numbers(n, generator, stratified))
        return schedule.sigma(torch.sigmoid(mean + std * z).clamp(1e-9, 1 - 1e-9))

    return draw


def triangular(schedule: Schedule, mode: float, stratified: bool) -> Law:
    """t is triangular on (0, 1) with its peak at `mode`: lesson 21 has 0.5."""
    if not 0 <= mode <= 1:
        raise ValueError(f"mode must be in [0, 1], got {mode}")

    def draw(n: int, generator: Generator) -> Tensor:
        u = _numbers(n, generator, stratified)
        t = torch.where(u < mode, (u * mode).sqrt(), 1 - ((1 - u) * (1 - mode)).sqrt())
        return schedule.sigma(t)

    return draw


def _numbers(n: int, generator: Generator, stratified: bool) -> Tensor:
    """n numbers from U(0, 1), never an end."""
    if stratified:
        offset = torch.rand(1, generator=generator, dtype=torch.float64)
        u = (offset + torch.arange(n, dtype=torch.float64) / n) % 1
        u = u[torch.randperm(n, generator=generator)]
    else:
        u = torch.rand(n, generator=generator, dtype=torch.float64)
    return u.clamp(1e-9, 1 - 1e-9)


def _check_spread(std: float) -> None:
    if not 0 < std < math.inf:
        raise ValueError(f"std must be more than 0, got {std}")
