"""Objectives: what the network is asked for, as a row (c_skip, c_out, c_in) of functions of sigma.

The denoiser is D(x, sigma) = c_skip x + c_out F(c_in x), so the network F is asked for
((1 - c_skip) x0 - c_skip sigma eps) / c_out.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Coefficients = tuple[Tensor, Tensor, Tensor]  # c_skip, c_out, c_in, each in the shape of sigma


@dataclass(frozen=True)
class Objective:
    """One row of the table; sigma and what comes out are float64."""

    name: str
    coefficients: Callable[[Tensor], Coefficients]

    def target(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(signal, noise), each in the shape of sigma: F is asked for signal x0 + noise eps."""
        c_skip, c_out, _ = self.coefficients(sigma)
        return (1 - c_skip) / c_out, -c_skip * sigma / c_out


def eps() -> Objective:
    """The noise: Ho et al. (2020), Eq. 14, "L_simple"."""

    def row(sigma: Tensor) -> Coefficients:
        return torch.ones_like(sigma), -sigma, (1 + sigma**2).rsqrt()

    return Objective("eps", row)


def x0() -> Objective:
    """The image itself: Ho et al. (2020), section 3.2; Salimans & Ho (2022), section 4."""

    def row(sigma: Tensor) -> Coefficients:
        return torch.zeros_like(sigma), torch.ones_like(sigma), (1 + sigma**2).rsqrt()

    return Objective("x0", row)


def v() -> Objective:
    """v = a eps - b x0 with a^2 + b^2 = 1: Salimans & Ho (2022), section 4."""

    def row(sigma: Tensor) -> Coefficients:
        c_in = (1 + sigma**2).rsqrt()
        return c_in**2, -sigma * c_in, c_in

    return Objective("v", row)


def edm(sigma_data: float | None) -> Objective:
    """What keeps input and target at unit variance: Karras et al. (2022), table 1.

    `sigma_data` is the standard deviation of the data in its range, which training measures if it
    is null; with 1 this is v but for its sign.
    """
    if sigma_data is None or not sigma_data > 0:
        raise ValueError(f"sigma_data must be more than 0, got {sigma_data}")

    def row(sigma: Tensor) -> Coefficients:
        c_in = (sigma**2 + sigma_data**2).rsqrt()
        return (sigma_data * c_in) ** 2, sigma * sigma_data * c_in, c_in

    return Objective("edm", row)


def flow() -> Objective:
    """The velocity eps - x0 of a straight path: Liu et al. (2023), Eq. 1. sigma = t / (1 - t)."""

    def row(sigma: Tensor) -> Coefficients:
        c_in = 1 / (1 + sigma)
        return c_in, -sigma * c_in, c_in

    return Objective("flow", row)
