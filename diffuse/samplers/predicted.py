"""A sampler for networks that are not told the noise level: somebody sees it in the image."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from math import sqrt

import torch
from torch import Tensor

from diffuse.denoiser import Denoise, like
from diffuse.samplers.ancestral import check_eta

LevelOf = Callable[[Tensor], Tensor]  # x / sqrt(1 + sigma^2) [b ...] -> sigma [b], float64, CPU
LEVELS = ("image", "median")


@torch.no_grad()
def ddim_predicted(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    randn: Callable[[], Tensor],
    level_of: LevelOf,
    eta: float,  # as in `ddim`
    noise: float,
    guard: float | None,  # largest ratio of a predicted alpha_bar to the batch's median; null: any
    level: str,  # image | median: each has its own, or all have the batch's median
) -> Iterator[tuple[Tensor, Tensor]]:
    """Song et al. (2021), Eq. 12 and 16, with the estimates of another level: fast.ai's lesson 22.

    The network sees y = x / sqrt(1 + sigma^2). At the level s that is predicted for it the state is
    y sqrt(1 + s^2), and D and eps are those of this state; how much of eps is kept and how much
    noise is fresh is for the levels of the grid to say.
    """
    check_eta(eta)
    _check(guard, level)
    for sigma, sigma_next in pairwise(sigmas):
        y = x / sqrt(1 + sigma.item() ** 2)
        seen = level_of(y)
        if level == "median":
            seen = seen.median().expand_as(seen)
        elif guard is not None:
            seen = guarded(seen, guard)
        state = y * like(y, (1 + seen**2).sqrt())
        denoised = denoise(state, seen)
        eps = (state - denoised) / like(y, seen)
        rest = 1 - (sigma_next / sigma).item() ** 2
        x = denoised + sigma_next.item() * sqrt(1 - eta**2 * rest) * eps
        if fresh := noise * eta * sigma_next.item() * sqrt(rest):
            x = x + fresh * randn()
        yield x, denoised


def guarded(sigma: Tensor, guard: float) -> Tensor:
    """Levels [b] whose alpha_bar is within a factor of the median of the batch."""
    median = (1 / (1 + sigma**2)).median()
    low = (1 / (guard * median) - 1).clamp(min=0).sqrt()
    return sigma.clamp(low, (guard / median - 1).sqrt())


def _check(guard: float | None, level: str) -> None:
    if guard is not None and not guard >= 1:
        raise ValueError(f"guard must be at least 1, or null for none, got {guard}")
    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}, got {level!r}")
