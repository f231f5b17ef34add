"""Weightings: how much each level counts in the loss.

A loss is w(sigma) |D - x0|^2 whatever the network predicts; since D - x0 = c_out (F - target), that
is w c_out^2 times the network's own mse. So a weighting is a function of (sigma, c_out) that gives
this product, and the same w means the same training for every objective.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Weighting = Callable[[Tensor, Tensor], Tensor]  # (sigma, c_out) -> factor on the mse of F, float64


def uniform() -> Weighting:
    """Every level alike in the network's own space: for eps, Ho et al. (2020), Eq. 14."""
    return lambda sigma, c_out: torch.ones_like(sigma)


def snr() -> Weighting:
    """w = 1 / sigma^2: the mse of eps, whatever the network predicts."""
    return lambda sigma, c_out: (c_out / sigma) ** 2


def min_snr(gamma: float) -> Weighting:
    """w = min(1 / sigma^2, gamma): Hang et al. (2023), Eq. 5.

    On the network's own mse that is min(SNR, gamma) / SNR for eps and / (SNR + 1) for v.
    """
    if not gamma > 0:
        raise ValueError(f"gamma must be more than 0, got {gamma}")
    return lambda sigma, c_out: c_out**2 * (sigma**-2).clamp(max=gamma)


def p2(gamma: float, k: float) -> Weighting:
    """w = SNR / (k + SNR)^gamma: Choi et al. (2022), Eq. 8. gamma = 0 is `snr`."""
    if not (0 <= gamma < math.inf and 0 < k < math.inf):
        raise ValueError(f"need gamma in [0, inf) and k in (0, inf), got {gamma} and {k}")
    return lambda sigma, c_out: (c_out / sigma) ** 2 / (k + sigma**-2) ** gamma


def edm(sigma_data: float | None) -> Weighting:
    """w = 1/sigma^2 + 1/sigma_data^2: Karras et al. (2022), table 1; `uniform` for edm itself."""
    if sigma_data is None or not sigma_data > 0:
        raise ValueError(f"sigma_data must be more than 0, got {sigma_data}")
    return lambda sigma, c_out: (c_out / sigma) ** 2 * (1 + (sigma / sigma_data) ** 2)
