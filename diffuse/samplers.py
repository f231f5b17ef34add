"""Samplers: generators that walk from noise to data, one level at a time.

`x` is x0 + sigma eps, [b c h w], at level sigmas[0]. `sigmas` [n + 1] falls to 0. Each step yields
(x, denoised): the state it reached and the estimate of x0 it used.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from diffuse.denoiser import Denoise

Step = tuple[Tensor, Tensor]
Sampler = Callable[..., Iterator[Step]]  # (denoise, x, sigmas, randn), its options bound already


@torch.no_grad()
def ddim(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    randn: Callable[[], Tensor],  # fresh noise in the shape of x
    eta: float,  # 0 = the probability-flow ODE, 1 = DDPM's ancestral sampling
    noise: float,  # multiplies the fresh noise; only 1 samples the right distribution
) -> Iterator[Step]:
    """Song et al. (2021), Eq. 12 and 16, in the variables of this package."""
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be in [0, 1], got {eta}")
    for sigma, sigma_next in pairwise(sigmas):
        denoised = denoise(x, sigma)
        ratio = sigma_next / sigma
        kept = sigma_next * (1 - eta**2 * (1 - ratio**2)).sqrt()
        fresh = noise * eta * sigma_next * (1 - ratio**2).sqrt()
        x = denoised + (kept / sigma).item() * (x - denoised)
        if fresh > 0:
            x = x + fresh.item() * randn()
        yield x, denoised
