"""A network F as a denoiser D(x, sigma) = c_skip x + c_out F(c_in x, c_noise), and its loss."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffuse import hardware
from diffuse.objectives import Objective
from diffuse.weightings import Weighting

DYNAMIC_QUANTILE = 0.995  # Saharia et al. (2022), section 2.3


class Denoiser(nn.Module):
    """D(x, sigma, label), an estimate of x0, around the backbone `net` (x, c_noise, label) -> F.

    Coefficients are computed per sample in float64 and cast; only `net` runs in low precision.
    """

    def __init__(
        self, net: nn.Module, objective: Objective, weighting: Weighting, precision: torch.dtype
    ) -> None:
        super().__init__()
        self.net = net
        self.objective = objective
        self.weighting = weighting
        self.precision = precision

    def _network(self, x: Tensor, c_in: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        scaled = (_wide(x, c_in) * x).contiguous(memory_format=torch.channels_last)
        with hardware.autocast(x.device, self.precision):
            return self.net(scaled, c_noise, label).to(x.dtype)

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """x [b c h w] at levels sigma [b] or [] (float64, on the CPU) -> estimate of x0."""
        sigma = sigma.double().expand(len(x))
        row = self.objective.coefficients(sigma)
        c_skip, c_out, c_in, c_noise = _beside(x, *row, sigma.log() / 4)
        predicted = self._network(x, c_in, c_noise, label)
        return _wide(x, c_skip) * x + _wide(x, c_out) * predicted

    def loss(self, x0: Tensor, sigma: Tensor, eps: Tensor, label: Tensor | None = None) -> Tensor:
        """mse(F, ((1 - c_skip) x0 - c_skip sigma eps) / c_out) of each image, weighted: [b]."""
        sigma = sigma.double()
        _, c_out, c_in = self.objective.coefficients(sigma)
        signal, noise = self.objective.target(sigma)
        factor = self.weighting(sigma, c_out)
        sigma, c_in, c_noise, signal, noise, factor = _beside(
            x0, sigma, c_in, sigma.log() / 4, signal, noise, factor
        )
        predicted = self._network(x0 + _wide(x0, sigma) * eps, c_in, c_noise, label)
        target = _wide(x0, signal) * x0 + _wide(x0, noise) * eps
        return factor * F.mse_loss(predicted, target, reduction="none").mean(dim=(1, 2, 3))


def like(x: Tensor, coefficient: Tensor) -> Tensor:
    """A coefficient [b] where x [b c h w] is, in its dtype, and of a shape to multiply it."""
    return _wide(x, hardware.sent(coefficient.to(x.dtype), x.device))


def _beside(x: Tensor, *coefficients: Tensor) -> Tensor:
    """Some coefficients [b] where x is, in its dtype, sent there at once: [k b]."""
    return hardware.sent(torch.stack(coefficients).to(x.dtype), x.device)


def _wide(x: Tensor, coefficient: Tensor) -> Tensor:
    return coefficient.view(-1, *[1] * (x.ndim - 1))


Denoise = Callable[[Tensor, Tensor], Tensor]  # (x [b c h w], sigma [] or [b]) -> estimate of x0


class counted:
    """Counts the calls of the network: `calls` is the NFE of every image in the batch."""

    def __init__(self, denoise: Denoise) -> None:
        self.denoise = denoise
        self.calls = 0

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.calls += 1
        return self.denoise(x, sigma)


def reused(denoise: Denoise, made: Iterator[bool]) -> Denoise:
    """Makes only some of the calls that a sampler asks for; else the last eps is used again.

    `made` says for each call in turn whether it is made; the first one always is.
    """
    eps: Tensor | None = None

    def estimate(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal eps
        if next(made, True) or eps is None:
            denoised = denoise(x, sigma)
            eps = (x - denoised) / like(x, sigma)
            return denoised
        return x - like(x, sigma) * eps

    return estimate


def clipped(denoise: Denoise, low: float, high: float) -> Denoise:
    """Holds every estimate of x0 between two values."""
    return lambda x, sigma: denoise(x, sigma).clamp(low, high)


def thresholded(denoise: Denoise, low: float, high: float) -> Denoise:
    """Dynamic thresholding: Saharia et al. (2022), section 2.3, for data in [low, high].

    An image of which more than 0.5 % of the values lie outside is shrunk until they do not.
    """
    centre, half = (low + high) / 2, (high - low) / 2

    def estimate(x: Tensor, sigma: Tensor) -> Tensor:
        unit = (denoise(x, sigma) - centre) / half
        reach = unit.flatten(1).abs().quantile(DYNAMIC_QUANTILE, dim=1).clamp(min=1)
        reach = like(x, reach)
        return centre + half * unit.clamp(-reach, reach) / reach

    return estimate
