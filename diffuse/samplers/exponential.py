"""Samplers that take the part of x that decays exactly, and model how the estimate of x0 changes.

With u = -log sigma the ODE is dx / du = D - x. Over a step h that is x' = exp(-h) x +
(1 - exp(-h)) D, plus what the differences of D along the last levels add. The step to sigma = 0 is
of first order: it ends at D.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import exp, expm1, factorial, log, sqrt

import numpy as np
import torch
from torch import Tensor

from diffuse.denoiser import Denoise
from diffuse.samplers.ancestral import check_eta
from diffuse.samplers.multistep import Past


@torch.no_grad()
def dpmpp_2m(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    randn: Callable[[], Tensor],
    history: Sequence[Past] = (),
) -> Iterator[tuple[Tensor, Tensor]]:
    """Lu et al. (2022b), algorithm 2: "DPM-Solver++(2M)"."""
    seen = _seen(history, 2)
    for sigma, sigma_next in pairwise(sigmas):
        denoised = denoise(x, sigma)
        seen.appendleft((sigma.item(), denoised))
        if sigma_next > 0:
            h = log(sigma / sigma_next)
            x = torch.lerp(denoised, x, exp(-h))
            if len(seen) == 2:
                x = x - expm1(-h) / 2 * _slope(seen, 0, h)
        else:
            x = denoised
        yield x, denoised


@torch.no_grad()
def dpmpp_3m(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    randn: Callable[[], Tensor],
    curvature: float,  # weight of the second difference: 1 as published, 2 = third order
    history: Sequence[Past] = (),
) -> Iterator[tuple[Tensor, Tensor]]:
    """Lu et al. (2022b), appendix B.2: "DPM-Solver++(3M)".

    The second difference stands for h^2 D'' and is half of it, so the published method is of second
    order, with a smaller error than 2M's; curvature = 2 makes it third.
    """
    seen = _seen(history, 3)
    for sigma, sigma_next in pairwise(sigmas):
        denoised = denoise(x, sigma)
        seen.appendleft((sigma.item(), denoised))
        if sigma_next > 0:
            h = log(sigma / sigma_next)
            x = torch.lerp(denoised, x, exp(-h))
            if len(seen) == 2:
                x = x - expm1(-h) / 2 * _slope(seen, 0, h)
            elif len(seen) == 3:
                newer, older = _slope(seen, 0, h), _slope(seen, 1, h)
                ratio = log(seen[1][0] / seen[0][0]) / log(seen[2][0] / seen[0][0])
                curve = (newer - older) * h / log(seen[2][0] / seen[0][0])
                x = x + (expm1(-h) / h + 1) * (newer + ratio * (newer - older))
                x = x - curvature * ((expm1(-h) + h) / h**2 - 0.5) * curve
        else:
            x = denoised
        yield x, denoised


@torch.no_grad()
def dpmpp_2m_sde(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    randn: Callable[[], Tensor],
    eta: float,  # 0 = dpmpp_2m, 1 = the reverse SDE
    noise: float,  # multiplies the fresh noise; only 1 samples the right distribution
    history: Sequence[Past] = (),
) -> Iterator[tuple[Tensor, Tensor]]:
    """Lu et al. (2022b), Eq. 18, "SDE-DPM-Solver++(2M)", with less noise for eta < 1."""
    check_eta(eta)
    seen = _seen(history, 2)
    for sigma, sigma_next in pairwise(sigmas):
        denoised = denoise(x, sigma)
        seen.appendleft((sigma.item(), denoised))
        if sigma_next > 0:
            h = log(sigma / sigma_next)
            decay = h * (1 + eta**2)
            x = torch.lerp(denoised, x, exp(-decay))
            if len(seen) == 2:
                x = x - expm1(-decay) / 2 * _slope(seen, 0, h)
            if eta * noise:
                fresh = sigma_next.item() * sqrt(-expm1(-2 * eta**2 * h))
                x = x + noise * fresh * randn()
        else:
            x = denoised
        yield x, denoised


@torch.no_grad()
def unipc(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    randn: Callable[[], Tensor],
    order: int,
    history: Sequence[Past] = (),
) -> Iterator[tuple[Tensor, Tensor]]:
    """Zhao et al. (2023), algorithms 5 and 6, with B(h) = exp(h) - 1.

    What was predicted for a level is corrected by the estimate made there, at no further call.
    """
    if not 1 <= order <= 4:
        raise ValueError(f"order must be in [1, 4], got {order}")
    seen = _seen(history, order)
    start = x  # where the last step began
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        here = (sigma.item(), denoised)
        if i > 0:
            x = _unified(start, [*seen], here[0], [here])
        seen.appendleft(here)
        start = x
        x = _unified(x, [*seen], sigma_next.item(), []) if sigma_next > 0 else denoised
        yield x, denoised


def _unified(
    x: Tensor, seen: list[tuple[float, Tensor]], target: float, ahead: list[tuple[float, Tensor]]
) -> Tensor:
    """From seen[0] to the level `target`: Zhao et al. (2023), Eq. 3, or with `ahead` Eq. 2."""
    sigma, denoised = seen[0]
    h = log(sigma / target)
    others = [*seen[1:], *ahead]
    ratios = np.array([log(sigma / level) / h for level, _ in others])
    # integrals of exp(-h (1 - r)) r^k / k!, times h: phi_1, phi_2, ...
    phi = [expm1(-h)]
    for k in range(1, len(others) + 1):
        phi.append(phi[-1] / -h - 1 / factorial(k))
    if len(others) == 1:
        weights = [0.5]  # the paper's choice: exact would be phi_2 / phi_1
    elif others:
        powers = np.arange(len(others))
        wanted = [phi[k + 1] * factorial(k + 1) / phi[0] for k in powers]
        weights = np.linalg.solve(ratios ** powers[:, None], wanted)
    else:
        weights = []
    shares = [phi[0] * float(w) / float(r) for w, r in zip(weights, ratios, strict=True)]
    x = exp(-h) * x
    x = x.add_(denoised, alpha=sum(shares) - phi[0])
    for share, (_, other) in zip(shares, others, strict=True):
        x = x.add_(other, alpha=-share)
    return x


def _seen(history: Sequence[Past], most: int) -> deque[tuple[float, Tensor]]:
    """(sigma, denoised) of the last levels, newest first; what is newer goes in front."""
    return deque([(s.item(), denoised) for s, _, denoised in reversed(history)][: most - 1], most)


def _slope(seen: deque[tuple[float, Tensor]], k: int, h: float) -> Tensor:
    """The divided difference of D between two visited levels, for a step of h."""
    (newer, d), (older, before) = seen[k], seen[k + 1]
    return h / log(older / newer) * (d - before)
