"""Grids: which levels a sampler visits, from high to low, then 0. Shape [steps + 1], float64."""

import math

import torch
from torch import Tensor

from diffuse.schedules import Schedule

SPACINGS = ("trailing", "leading", "linspace")


def uniform(steps: int, schedule: Schedule, spacing: str) -> Tensor:
    """Evenly spaced in t: Lin et al. (2024), table 2, with exactly `steps` levels for any steps.

    trailing begins at t = 1 and stops short of 0 (on a table of T: round(T - i T / steps)), leading
    begins short of t = 1 and reaches 0 (Song et al., 2021, DDIM), linspace has both ends.
    """
    if spacing not in SPACINGS:
        raise ValueError(f"spacing must be one of {', '.join(SPACINGS)}, got {spacing!r}")
    T = _size(steps, schedule)
    i = torch.arange(steps, dtype=torch.float64)
    if schedule.table is None:
        if spacing == "trailing":
            t = 1 - i / steps
        elif spacing == "leading":
            t = 1 - (i + 1) / steps
        else:
            t = 1 - i / max(1, steps - 1)
        return _down_to_zero(schedule.sigma(t))
    if spacing == "trailing":
        places = (T - i * T / steps).round() - 1
    elif spacing == "leading":
        places = ((steps - 1 - i) * T / steps).floor()
    else:
        places = ((T - 1) * (1 - i / max(1, steps - 1))).round()
    return _down_to_zero(schedule.table[places.long()])


def quadratic(steps: int, schedule: Schedule, top: float) -> Tensor:
    """t = top (i / (steps - 1))^2: Song et al. (2021), appendix D.2, for CIFAR-10 with top = 0.8.

    On a table levels that would fall together at the end of the data are kept apart.
    """
    if not 0 < top <= 1:
        raise ValueError(f"top must be in (0, 1], got {top}")
    T = _size(steps, schedule)
    rising = torch.linspace(0, 1, steps, dtype=torch.float64) if steps > 1 else torch.ones(1)
    t = top * rising.to(torch.float64) ** 2
    if schedule.table is None:
        return _down_to_zero(schedule.sigma(t).flip(0))
    i = torch.arange(steps)
    places = (t * T).long().clamp(max=T - 1)
    places = torch.minimum((places - i).cummax(0).values + i, T - steps + i)
    return _down_to_zero(schedule.table[places].flip(0))


def karras(
    steps: int,
    schedule: Schedule,
    rho: float,
    sigma_min: float | None,  # null: the schedule's
    sigma_max: float | None,
) -> Tensor:
    """Evenly spaced in sigma^(1/rho): Karras et al. (2022), Eq. 5."""
    if not 0 < rho < math.inf:
        raise ValueError(f"rho must be more than 0, got {rho}")
    low, high = _ends(schedule, sigma_min, sigma_max)
    sigmas = _down_to_zero(_between(high ** (1 / rho), low ** (1 / rho), steps) ** rho)
    if not (sigmas.diff() < 0).all():  # the powers of two levels are one number, or 0
        raise ValueError(f"rho = {rho} leaves no {steps} levels apart")
    return sigmas


def logsnr(
    steps: int, schedule: Schedule, sigma_min: float | None, sigma_max: float | None
) -> Tensor:
    """Evenly spaced in log sigma: Lu et al. (2022), section 3.3."""
    low, high = _ends(schedule, sigma_min, sigma_max)
    return _down_to_zero(_between(math.log(high), math.log(low), steps).exp())


def clipped(sigmas: Tensor, low: float, high: float) -> Tensor:
    """The same grid inside the levels a network was trained on; the final 0 stays."""
    return torch.cat([sigmas[:-1].clamp(low, high), sigmas[-1:]])


def _size(steps: int, schedule: Schedule) -> int:
    """The levels of a table; 0 for a continuous schedule, which has any number of them."""
    if schedule.table is None:
        return 0
    T = len(schedule.table)
    if steps > T:
        raise ValueError(f"steps must be at most T = {T}, the schedule's levels, got {steps}")
    return T


def _ends(schedule: Schedule, low: float | None, high: float | None) -> tuple[float, float]:
    """The lowest and highest level: those asked for, inside those of the schedule."""
    least, most = schedule.range
    low, high = max(low or least, least), min(high or most, most)
    if not low < high:
        raise ValueError(
            f"need sigma_min < sigma_max, got {low:g} and {high:g}; the schedule has "
            f"{least:.3g} to {most:.3g}"
        )
    return low, high


def _between(high: float, low: float, steps: int) -> Tensor:
    if steps == 1:
        return torch.tensor([high], dtype=torch.float64)
    return torch.linspace(high, low, steps, dtype=torch.float64)


def _down_to_zero(levels: Tensor) -> Tensor:
    return torch.cat([levels, levels.new_zeros(1)])
