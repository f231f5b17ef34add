"""Samplers of several calls a step: Heun's rule, and one that chooses its steps itself."""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from diffuse.denoiser import Denoise, like
from diffuse.errors import DivergedError


@torch.no_grad()
def heun(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    randn: Callable[[], Tensor],
    churn: float,  # noise added again, all steps together; 0 = deterministic
    churn_min: float,  # the levels at which it is added
    churn_max: float,
    noise: float,  # multiplies it
) -> Iterator[tuple[Tensor, Tensor]]:
    """Karras et al. (2022), algorithm 2; 2 n - 1 calls. Churn never goes above sigmas[0]."""
    if churn < 0:
        raise ValueError(f"churn must be at least 0, got {churn}")
    gamma = min(churn / max(1, len(sigmas) - 1), math.sqrt(2) - 1)
    for sigma, sigma_next in pairwise(sigmas):
        if gamma and churn_min <= sigma <= churn_max:
            raised = torch.minimum(sigma * (1 + gamma), sigmas[0])
            fresh = noise * (raised**2 - sigma**2).sqrt().item()
            x, sigma = x + fresh * randn(), raised
        denoised = denoise(x, sigma)
        slope = (x - denoised) / sigma.item()
        step = (sigma_next - sigma).item()
        if sigma_next > 0:
            euler = x + step * slope
            slope = (slope + (euler - denoise(euler, sigma_next)) / sigma_next.item()) / 2
            x = x + step * slope
        else:
            x = denoised
        yield x, denoised


# Dormand & Prince (1980), table 2: nodes, stages, fifth order minus fourth
NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
SHORTEST = 1e-5  # of a step in log sigma


@torch.no_grad()
def rk45(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    randn: Callable[[], Tensor],
    rtol: float,
    atol: float,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Dormand & Prince (1980), with a step of its own for every image.

    Of the grid only the ends count. The ODE is dx / d log sigma = x - D; images that are done wait
    for the others. Raises DivergedError if a step would have to be shorter than 1e-5.
    """
    if not (rtol > 0 and atol > 0):
        raise ValueError(f"rtol and atol must be more than 0, got {rtol} and {atol}")
    if len(sigmas) < 2:
        return

    def slope(x: Tensor, u: Tensor) -> Tensor:
        return x - denoise(x, u.exp())

    u, end = sigmas[0].log().expand(len(x)).clone(), sigmas[-2].log()
    length = torch.full_like(u, 0.05)
    first = slope(x, u)
    while bool((u > end).any()):
        length = torch.minimum(length, u - end)
        stages, ahead = [first], x
        for node, weights in zip(NODES, STAGES, strict=True):
            push = sum(w * k for w, k in zip(weights, stages, strict=True))
            ahead = x - like(x, length) * push
            stages.append(slope(ahead, u - node * length))
        error = like(x, length) * sum(w * k for w, k in zip(ERROR, stages, strict=True))
        scale = atol + rtol * torch.maximum(x.abs(), ahead.abs())
        size = (error / scale).square().flatten(1).mean(1).sqrt().cpu().double()
        accepted = size <= 1
        x = torch.where(like(x, accepted).bool(), ahead, x)
        first = torch.where(like(x, accepted).bool(), stages[-1], first)
        u = torch.where(accepted, u - length, u)
        u = torch.where(u - end < 1e-12, end, u)
        grown = length * (0.9 * size.clamp(min=1e-10) ** -0.2).clamp(0.2, 5)
        if not bool((grown[~accepted] >= SHORTEST).all()):  # nan is not, either
            raise DivergedError(
                f"rk45: no step is short enough at sigma = {u[~accepted].max().exp():.3g}; "
                "use a larger rtol and atol, or precision=fp32"
            )
        length = torch.where(u > end, grown.clamp(min=SHORTEST), grown)
        yield x, x - first
    denoised = x - first
    yield denoised, denoised
