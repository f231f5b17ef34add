"""Grids: which levels a sampler visits, from high to low, then 0."""

import torch
from torch import Tensor

from diffuse.schedules import Schedule


def uniform(steps: int, schedule: Schedule) -> Tensor:
    """Evenly spaced in t, from t = 1 down: DDPM's own levels when steps = T. Shape [steps + 1].

    "Trailing" in the terms of Lin et al. (2024), table 2: on a table the integers
    round(T - i T / steps), which gives exactly `steps` levels for every steps <= T.
    """
    if schedule.table is None:
        levels = schedule.sigma(1 - torch.arange(steps, dtype=torch.float64) / steps)
    else:
        T = len(schedule.table)
        if steps > T:
            raise ValueError(f"steps must be at most T = {T}, the schedule's levels, got {steps}")
        i = torch.arange(steps, dtype=torch.float64)
        levels = schedule.table[(T - i * T / steps).round().long() - 1]
    return torch.cat([levels, levels.new_zeros(1)])


def clipped(sigmas: Tensor, low: float, high: float) -> Tensor:
    """The same grid inside the levels a network was trained on; the final 0 stays."""
    return torch.cat([sigmas[:-1].clamp(low, high), sigmas[-1:]])
