"""Samplers of one call a step that remember the noise of earlier ones: x += sum_j w_j eps_j."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from diffuse.denoiser import Denoise

Past = tuple[Tensor, Tensor, Tensor]  # (sigma [], x, denoised) of a level that was visited
Weights = Callable[[list[float], float], list[float]]  # (levels, newest first; next) -> w


def lms(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    randn: Callable[[], Tensor],
    order: int,
    history: Sequence[Past] = (),
) -> Iterator[tuple[Tensor, Tensor]]:
    """Adams-Bashforth on any grid: eps is a polynomial of sigma through the last levels."""
    _check_order(order)

    def weights(levels: list[float], following: float) -> list[float]:
        return _integrals(levels, levels[0], following, lambda s: np.ones_like(s))

    return _walk(denoise, x, sigmas, order, weights, history)


def deis(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    randn: Callable[[], Tensor],
    order: int,
    history: Sequence[Past] = (),
) -> Iterator[tuple[Tensor, Tensor]]:
    """Zhang & Chen (2023), Eq. 15: eps is a polynomial of log sigma through the last levels."""
    _check_order(order)

    def weights(levels: list[float], following: float) -> list[float]:
        if following == 0:
            return [-levels[0]]
        logs = [math.log(level) for level in levels]
        return _integrals(logs, logs[0], math.log(following), np.exp)

    return _walk(denoise, x, sigmas, order, weights, history)


EVEN = (  # Adams-Bashforth's weights for even steps
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def ipndm(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    randn: Callable[[], Tensor],
    order: int,
    history: Sequence[Past] = (),
) -> Iterator[tuple[Tensor, Tensor]]:
    """Zhang & Chen (2023), Eq. 22: Adams-Bashforth as if steps were even (Liu et al., 2022)."""
    _check_order(order)

    def weights(levels: list[float], following: float) -> list[float]:
        even = EVEN[len(levels) - 1] if following else EVEN[0]
        return [(following - levels[0]) * w for w in even]

    return _walk(denoise, x, sigmas, order, weights, history)


@torch.no_grad()
def _walk(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    order: int,
    weights: Weights,
    history: Sequence[Past],
) -> Iterator[tuple[Tensor, Tensor]]:
    before = [(s.item(), (y - d) / s.item()) for s, y, d in reversed(history)]
    past = deque(before[: order - 1], maxlen=order)
    for sigma, sigma_next in pairwise(sigmas):
        denoised = denoise(x, sigma)
        past.appendleft((sigma.item(), (x - denoised) / sigma.item()))
        levels = [level for level, _ in past]
        for weight, (_, eps) in zip(weights(levels, sigma_next.item()), past, strict=False):
            x = x.add(eps, alpha=weight)
        yield x, denoised


PLACES, WEIGHTS = np.polynomial.legendre.leggauss(16)  # Gauss and Legendre's, on [-1, 1]


def _integrals(
    nodes: list[float], start: float, end: float, density: Callable[[np.ndarray], np.ndarray]
) -> list[float]:
    """Of each Lagrange polynomial through the nodes times a density, by quadrature."""
    u = (start + end) / 2 + (end - start) / 2 * PLACES
    scale = (end - start) / 2 * WEIGHTS * density(u)
    return [
        float((scale * np.prod([(u - b) / (a - b) for b in nodes if b != a], axis=0)).sum())
        for a in nodes
    ]


def _check_order(order: int) -> None:
    if not 1 <= order <= len(EVEN):
        raise ValueError(f"order must be in [1, {len(EVEN)}], got {order}")
