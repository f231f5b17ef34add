"""A network F as a denoiser D(x, sigma) = c_skip x + c_out F(c_in x, c_noise), and its loss."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Coefficients = tuple[Tensor, Tensor, Tensor]  # c_skip, c_out, c_in, each in the shape of sigma


@dataclass(frozen=True)
class Objective:
    """One row of the table in DESIGN section 1: what the network is asked to predict."""

    name: str
    coefficients: Callable[[Tensor], Coefficients]


def eps() -> Objective:
    """The noise: Ho et al. (2020), Eq. 14, "L_simple"."""

    def row(sigma: Tensor) -> Coefficients:
        return torch.ones_like(sigma), -sigma, (1 + sigma**2).rsqrt()

    return Objective("eps", row)


def v() -> Objective:
    """v = a eps - b x0: Salimans & Ho (2022), section 4."""

    def row(sigma: Tensor) -> Coefficients:
        c_in = (1 + sigma**2).rsqrt()
        return c_in**2, -sigma * c_in, c_in

    return Objective("v", row)


class Denoiser(nn.Module):
    """D(x, sigma, label), an estimate of x0, around the backbone `net` (x, c_noise, label) -> F.

    Coefficients are computed per sample in float64 and cast; only `net` runs in low precision.
    """

    def __init__(self, net: nn.Module, objective: Objective, precision: torch.dtype) -> None:
        super().__init__()
        self.net = net
        self.objective = objective
        self.precision = precision

    def _network(self, x: Tensor, sigma: Tensor, c_in: Tensor, label: Tensor | None) -> Tensor:
        scaled = (c_in * x).contiguous(memory_format=torch.channels_last)
        c_noise = (sigma.log() / 4).to(x.device, x.dtype)
        with torch.autocast(
            x.device.type, self.precision, enabled=self.precision is not torch.float32
        ):
            return self.net(scaled, c_noise, label).to(x.dtype)

    def _coefficients(self, x: Tensor, sigma: Tensor) -> list[Tensor]:
        rows = self.objective.coefficients(sigma.to(torch.float64))
        return [c.to(x.device, x.dtype).view(-1, 1, 1, 1) for c in rows]

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """x [b c h w] at levels sigma [b] or [] (float64, on the CPU) -> estimate of x0."""
        sigma = sigma.expand(len(x))
        c_skip, c_out, c_in = self._coefficients(x, sigma)
        return c_skip * x + c_out * self._network(x, sigma, c_in, label)

    def loss(self, x0: Tensor, sigma: Tensor, eps: Tensor, label: Tensor | None = None) -> Tensor:
        """mse(F, ((1 - c_skip) x0 - c_skip sigma eps) / c_out) of each image [b]."""
        c_skip, c_out, c_in = self._coefficients(x0, sigma)
        s = sigma.to(x0.device, x0.dtype).view(-1, 1, 1, 1)
        predicted = self._network(x0 + s * eps, sigma, c_in, label)
        target = ((1 - c_skip) * x0 - c_skip * s * eps) / c_out
        return F.mse_loss(predicted, target, reduction="none").mean(dim=(1, 2, 3))


Denoise = Callable[[Tensor, Tensor], Tensor]  # (x [b c h w], sigma []) -> estimate of x0


class counted:
    """Counts the calls of the network: `calls` is the NFE of every image in the batch."""

    def __init__(self, denoise: Denoise) -> None:
        self.denoise = denoise
        self.calls = 0

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.calls += 1
        return self.denoise(x, sigma)


def clipped(denoise: Denoise, low: float, high: float) -> Denoise:
    """Holds every estimate of x0 in the range of the data."""
    return lambda x, sigma: denoise(x, sigma).clamp(low, high)
