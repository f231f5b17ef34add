"""Schedules: how the noise level sigma = b/a grows with t, from data (t = 0) to noise (t = 1).

A schedule says nothing of training or sampling: a noise law (noise_laws.py) draws its levels, a
grid (grids.py) walks down them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """An increasing function sigma(t) on [0, 1] with its inverse, in float64.

    `table` holds the levels of a discrete process, lowest first; a continuous one has none.
    """

    sigma: Callable[[Tensor], Tensor]
    t: Callable[[Tensor], Tensor]
    table: Tensor | None = None

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest level."""
        low, high = self.sigma(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
        return low, high


def alpha_bar(sigma: Tensor) -> Tensor:
    """The share of signal variance at a level, the DDPM paper's product of (1 - beta)."""
    return 1 / (1 + sigma**2)


def _from_betas(betas: Tensor) -> Schedule:
    """A table of betas as a continuous schedule, linear in (t, log sigma) between its levels."""
    # 1 - alpha_bar by expm1, so that the first levels keep all their digits
    log_alpha_bar = torch.log1p(-betas).cumsum(0)
    table = (-torch.expm1(log_alpha_bar)).sqrt() * (-log_alpha_bar / 2).exp()
    t_table = torch.linspace(0, 1, len(table), dtype=torch.float64)
    return Schedule(
        sigma=lambda t: _interpolate(t, t_table, table.log()).exp(),
        t=lambda sigma: _interpolate(sigma.log(), table.log(), t_table),
        table=table,
    )


def _interpolate(x: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """Piecewise linear through (xs, ys), constant outside. xs increases."""
    x = x.to(torch.float64).clamp(xs[0], xs[-1])
    right = torch.searchsorted(xs, x).clamp(1, len(xs) - 1)
    x0, x1, y0, y1 = xs[right - 1], xs[right], ys[right - 1], ys[right]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def linear(betamax: float, betamin: float, T: int) -> Schedule:
    """Ho et al. (2020), section 4: T betas, evenly spaced from betamin to betamax."""
    if not 0 < betamax < 1:
        raise ValueError(f"betamax must be in (0, 1), got {betamax}")
    if not 0 < betamin <= betamax:
        raise ValueError(f"betamin must be in (0, betamax = {betamax}], got {betamin}")
    if T < 2:
        raise ValueError(f"T must be at least 2, got {T}")
    return _from_betas(torch.linspace(betamin, betamax, T, dtype=torch.float64))


def cosine(s: float, t_min: float, t_max: float) -> Schedule:
    """Nichol & Dhariwal (2021), Eq. 17, continuous: alpha_bar = cos(a)^2 / cos(a_0)^2.

    a = (t + s) / (1 + s) pi / 2. sigma is 0 at one end and infinite at the other, so our [0, 1] is
    the paper's [t_min, t_max]. s = 0 and t_max = 0.999 is the lessons' cosine.
    """
    if not 0 <= s < 1:
        raise ValueError(f"s must be in [0, 1), got {s}")
    if not 0 < t_min < t_max < 1:
        raise ValueError(f"need 0 < t_min < t_max < 1, got {t_min} and {t_max}")
    a0 = s / (1 + s) * math.pi / 2

    def sigma(t: Tensor) -> Tensor:
        a = (t_min + t.to(torch.float64) * (t_max - t_min) + s) / (1 + s) * math.pi / 2
        # cos(a0)^2 - cos(a)^2, without the cancellation
        return (torch.sin(a - a0) * torch.sin(a + a0)).sqrt() / torch.cos(a)

    def t(sigma: Tensor) -> Tensor:
        a = torch.acos(math.cos(a0) * alpha_bar(sigma.to(torch.float64)).sqrt())
        # acos loses half its digits near 1; there sin(a)^2 is exact
        sine = ((sigma**2 + math.sin(a0) ** 2) / (1 + sigma**2)).sqrt()
        a = torch.where(sine < 0.5, torch.asin(sine.clamp(max=1)), a)
        return ((a * 2 / math.pi * (1 + s) - s - t_min) / (t_max - t_min)).clamp(0, 1)

    return Schedule(sigma, t)
