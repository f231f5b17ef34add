"""Samplers of one call a step that may add fresh noise: DDIM, DDPM and their corrector."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from math import sqrt

import torch
from torch import Tensor

from diffuse.denoiser import Denoise


@torch.no_grad()
def ddim(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    randn: Callable[[], Tensor],
    eta: float,  # 0 = the probability-flow ODE, 1 = DDPM's ancestral sampling
    noise: float,  # multiplies the fresh noise; only 1 samples the right distribution
) -> Iterator[tuple[Tensor, Tensor]]:
    """Song et al. (2021), Eq. 12 and 16, in the variables of this package."""
    check_eta(eta)
    for sigma, sigma_next in pairwise(sigmas):
        denoised = denoise(x, sigma)
        ratio = (sigma_next / sigma).item()
        kept = ratio * sqrt(1 - eta**2 * (1 - ratio**2))
        fresh = noise * eta * sigma_next.item() * sqrt(1 - ratio**2)
        x = torch.lerp(denoised, x, kept)
        if fresh:
            x = x.add(randn(), alpha=fresh)
        yield x, denoised


@torch.no_grad()
def ddpm_large(
    denoise: Denoise, x: Tensor, sigmas: Tensor, randn: Callable[[], Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Ho et al. (2020), algorithm 2 with the variance beta: section 3.2, "fixed large"."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised = denoise(x, sigma)
        before, after = sigma.item() ** 2, sigma_next.item() ** 2
        x = torch.lerp(denoised, x, after / before)
        if after:
            # beta over the alpha_bar of the level that is reached
            x = x + sqrt((before - after) * (1 + after) / (1 + before)) * randn()
        yield x, denoised


@torch.no_grad()
def langevin(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    randn: Callable[[], Tensor],
    corrections: int,  # Langevin steps at each level
    snr: float,  # size of such a step, in noise levels
) -> Iterator[tuple[Tensor, Tensor]]:
    """Song et al. (2021b), algorithm 2: an ancestral step, then a corrector at the level reached.

    The corrector's step is 2 (snr sigma)^2. The paper takes the norms of score and noise in a batch
    for this, whose ratio is sigma; here images do not depend on those they are drawn with.
    """
    if corrections < 1 or not 0 < snr < 1:
        raise ValueError(
            f"corrections must be at least 1 and snr in (0, 1), got {corrections} and {snr}"
        )
    for sigma, sigma_next in pairwise(sigmas):
        denoised = denoise(x, sigma)
        ratio = (sigma_next / sigma).item()
        x = torch.lerp(denoised, x, ratio**2)
        if sigma_next > 0:
            x = x + sigma_next.item() * sqrt(1 - ratio**2) * randn()
            for _ in range(corrections):
                denoised = denoise(x, sigma_next)
                x = x - 2 * snr**2 * (x - denoised) + 2 * snr * sigma_next.item() * randn()
        yield x, denoised


def check_eta(eta: float) -> None:
    """ValueError unless eta is in [0, 1]."""
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be in [0, 1], got {eta}")
