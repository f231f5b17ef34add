"""States on the way between data and noise, as sheets of images."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffuse.data import to_uint8
from diffuse.objectives import Objective

TARGETS = (-2.5, 2.5)  # shown of a target: noise has a deviation of 1


def times(sigma: Tensor, t: Tensor) -> tuple[list[str], str]:
    """What stands above the column of each level, and what the lines of it are."""
    return [f"{u:.2f}\n{short(s)}" for u, s in zip(t.tolist(), sigma.tolist(), strict=True)], (
        "t\nsigma"
    )


def short(number: float) -> str:
    """Three digits, without an exponent where it can be."""
    return f"{number:.3g}" if number < 1000 else f"{number:.0f}"


def scaled(x: Tensor, sigma: Tensor, objective: Objective) -> Tensor:
    """x [... c h w] at levels sigma [...] as a network sees it, c_in x; unscaled at sigma = 0.

    Only EDM's c_in is not 1 there; an image without noise is shown as it is with every objective.
    """
    sigma = sigma.double()
    at_data = objective.coefficients(torch.zeros_like(sigma))[2]
    c_in = objective.coefficients(sigma)[2] / at_data
    return c_in.to(x.dtype).to(x.device)[..., None, None, None] * x


def noised(x0: Tensor, eps: Tensor, sigma: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    """x = x0 + sigma eps and the network's target for n images at each level: [n levels c h w].

    The target is ((1 - c_skip) x0 - c_skip sigma eps) / c_out.
    """
    signal, noise = objective.target(sigma.double())
    x0, eps = x0[:, None], eps[:, None]
    over = lambda row: row.to(x0.dtype)[:, None, None, None]  # noqa: E731
    return x0 + over(sigma) * eps, over(signal) * x0 + over(noise) * eps


def beside(*rows: Tensor, range: Sequence[float]) -> Tensor:
    """States [n columns c h w] of each kind -> uint8 rows: each image's kinds one after another."""
    kinds = torch.stack(rows, dim=1)
    return to_uint8(kinds.flatten(0, 1), range)
