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
    zero_snr: bool = False  # the last level has (all but) no signal

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest level."""
        low, high = self.sigma(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
        return low, high


def alpha_bar(sigma: Tensor) -> Tensor:
    """The share of signal variance at a level, the DDPM paper's product of (1 - beta)."""
    return 1 / (1 + sigma**2)


def _from_betas(betas: Tensor, zero_snr: bool) -> Schedule:
    """A table of betas as a continuous schedule, linear in (t, log sigma) between its levels."""
    # 1 - alpha_bar by expm1, so that the first levels keep all their digits
    log_alpha_bar = torch.log1p(-betas).cumsum(0)
    noise = -torch.expm1(log_alpha_bar)
    if zero_snr:
        signal = _without_last_signal((log_alpha_bar / 2).exp())
        # the first level is left as it is, to the last digit
        noise = torch.cat([noise[:1], (1 - signal**2)[1:]])
        table = noise.sqrt() / signal
    else:
        table = noise.sqrt() * (-log_alpha_bar / 2).exp()
    t_table = torch.linspace(0, 1, len(table), dtype=torch.float64)
    return Schedule(
        sigma=lambda t: _interpolate(t, t_table, table.log()).exp(),
        t=lambda sigma: _interpolate(sigma.log(), table.log(), t_table),
        table=table,
        zero_snr=zero_snr,
    )


def _without_last_signal(signal: Tensor) -> Tensor:
    """Lin et al. (2024), algorithm 1: sqrt(alpha_bar) shifted so that it ends at 0.

    sigma = infinity cannot be represented, so it ends at 2^-12 instead (sigma = 4,096), or at what
    it was or half of the last but one if that is less.
    """
    first, last = signal[0], signal[-1]
    shifted = (signal - last) * first / (first - last)
    shifted[-1] = min(2.0**-12, last.item(), shifted[-2].item() / 2)
    return shifted


def _interpolate(x: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """Piecewise linear through (xs, ys), constant outside. xs increases."""
    x = x.to(torch.float64).clamp(xs[0], xs[-1])
    right = torch.searchsorted(xs, x).clamp(1, len(xs) - 1)
    x0, x1, y0, y1 = xs[right - 1], xs[right], ys[right - 1], ys[right]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def linear(betamax: float, betamin: float, T: int, zero_snr: bool) -> Schedule:
    """Ho et al. (2020), section 4: T betas, evenly spaced from betamin to betamax."""
    _check_betas(betamax, betamin, T)
    return _from_betas(torch.linspace(betamin, betamax, T, dtype=torch.float64), zero_snr)


def scaled_linear(betamax: float, betamin: float, T: int, zero_snr: bool) -> Schedule:
    """Rombach et al. (2022): T betas whose square roots are evenly spaced."""
    _check_betas(betamax, betamin, T)
    roots = torch.linspace(betamin**0.5, betamax**0.5, T, dtype=torch.float64)
    return _from_betas(roots**2, zero_snr)


def _check_betas(betamax: float, betamin: float, T: int) -> None:
    if not 0 < betamax < 1:
        raise ValueError(f"betamax must be in (0, 1), got {betamax}")
    if not 0 < betamin <= betamax:
        raise ValueError(f"betamin must be in (0, betamax = {betamax}], got {betamin}")
    if T < 2:
        raise ValueError(f"T must be at least 2, got {T}")


def cosine(s: float, t_min: float, t_max: float) -> Schedule:
    """Nichol & Dhariwal (2021), Eq. 17, continuous: alpha_bar = cos(a)^2 / cos(a_0)^2.

    a = (t + s) / (1 + s) pi / 2. sigma is 0 at one end and infinite at the other, so our [0, 1] is
    the paper's [t_min, t_max]. s = 0 and t_max = 0.999 is the lessons' cosine.
    """
    _check_offset(s)
    _check_ends(t_min, t_max)
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


def cosine_table(s: float, T: int, beta_clip: float, zero_snr: bool) -> Schedule:
    """Nichol & Dhariwal (2021), section 3.2: T betas of the cosine, none above `beta_clip`."""
    _check_offset(s)
    if T < 2:
        raise ValueError(f"T must be at least 2, got {T}")
    if not 0 < beta_clip < 1:
        raise ValueError(f"beta_clip must be in (0, 1), got {beta_clip}")
    t = torch.arange(T + 1, dtype=torch.float64) / T
    kept = torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2
    return _from_betas((1 - kept[1:] / kept[:-1]).clamp(max=beta_clip), zero_snr)


def sigmoid(start: float, end: float, tau: float, t_min: float, t_max: float) -> Schedule:
    """Jabri et al. (2023), algorithm 5: alpha_bar falls as a sigmoid of -u between its values at
    u = start / tau and end / tau. Our [0, 1] is the paper's [t_min, t_max].
    """
    if not start < end:
        raise ValueError(f"start must be less than end, got {start} and {end}")
    if not 0 < tau < math.inf:
        raise ValueError(f"tau must be more than 0, got {tau}")
    least = max(abs(start), abs(end), end - start + abs(abs(end) - abs(start))) / 1400
    if tau < least:  # exp(709) is the largest number
        raise ValueError(f"tau must be at least {least:.3g} from {start} to {end}, got {tau}")
    _check_ends(t_min, t_max)
    low, high = start / tau / 2, end / tau / 2
    width, ratio = high - low, math.cosh(high) / math.cosh(low)

    def sigma(t: Tensor) -> Tensor:
        u = (t_min + t.to(torch.float64) * (t_max - t_min)) * width
        # differences of sigmoids, without the cancellation
        return (ratio * torch.sinh(u) / torch.sinh(width - u)).sqrt()

    def t(sigma: Tensor) -> Tensor:
        # with exp(k) = sigma^2 / ratio: exp(2 u) = (1 + exp(k + width)) / (1 + exp(k - width))
        k = 2 * sigma.to(torch.float64).log() - math.log(ratio)
        zero = torch.zeros_like(k)
        u = (torch.logaddexp(zero, k + width) - torch.logaddexp(zero, k - width)) / 2
        return ((u / width - t_min) / (t_max - t_min)).clamp(0, 1)

    return Schedule(sigma, t)


def flow(shift: float, t_min: float, t_max: float) -> Schedule:
    """The straight path (1 - t) x0 + t eps: Liu et al. (2023), Eq. 1; so sigma = t / (1 - t).

    `shift` multiplies sigma: Esser et al. (2024), Eq. 23. Our [0, 1] is the paper's [t_min, t_max].
    """
    if not 0 < shift < math.inf:
        raise ValueError(f"shift must be more than 0, got {shift}")
    _check_ends(t_min, t_max)

    def sigma(t: Tensor) -> Tensor:
        t = t_min + t.to(torch.float64) * (t_max - t_min)
        return shift * t / (1 - t)

    def t(sigma: Tensor) -> Tensor:
        sigma = sigma.to(torch.float64) / shift
        return ((sigma / (1 + sigma) - t_min) / (t_max - t_min)).clamp(0, 1)

    return Schedule(sigma, t)


def ve(sigma_min: float, sigma_max: float) -> Schedule:
    """Evenly spaced in log sigma: Song et al. (2021), appendix C, "variance exploding"."""
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(f"need 0 < sigma_min < sigma_max < inf, got {sigma_min} and {sigma_max}")
    span = math.log(sigma_max / sigma_min)
    return Schedule(
        sigma=lambda t: sigma_min * (t.to(torch.float64) * span).exp(),
        t=lambda sigma: ((sigma.to(torch.float64) / sigma_min).log() / span).clamp(0, 1),
    )


def _check_offset(s: float) -> None:
    if not 0 <= s < 1:
        raise ValueError(f"s must be in [0, 1), got {s}")


def _check_ends(t_min: float, t_max: float) -> None:
    if not 0 < t_min < t_max < 1:
        raise ValueError(f"need 0 < t_min < t_max < 1, got {t_min} and {t_max}")
