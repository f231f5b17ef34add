"""Guidance: away from what a weaker network would estimate, by so much, at some levels."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffuse.denoiser import Denoise, Denoiser, like

LABELS = "labels"
UNTOLD = "+labels"  # behind other weights: these, and without a label


def weights_of(guide: str) -> str:
    """Which weights the weak network has, whether or not it is told the class."""
    return guide.removesuffix(UNTOLD)


@dataclass(frozen=True)
class Guidance:
    """D = D_weak + weight (D_strong - D_weak) at levels in [low, high]; weight 1 is none.

    The weak one is the network itself without a label (classifier-free guidance: Ho & Salimans,
    2022, Eq. 6 with w = weight - 1), or one with other weights (autoguidance: Karras et al., 2024,
    Eq. 5), or both. Only some levels: Kynkaanniemi et al. (2024).
    """

    weight: float
    low: float = 0.0  # of sigma
    high: float = math.inf
    weights: str = LABELS  # of the weak one; labels: the strong one's own, without; early+labels
    weak: Denoiser | None = None  # None: the network itself
    sha256: str | None = None  # of the weak one's weights
    step: int | None = None  # of the checkpoint it is from, where that is another one

    @property
    def told(self) -> bool:
        """Is the weak one told the class?"""
        return self.weak is not None and not self.weights.endswith(UNTOLD)

    @property
    def everywhere(self) -> bool:
        """At all levels?"""
        return self.low <= 0 and self.high == math.inf

    def applies(self, sigma: Tensor) -> Tensor:
        """At which levels [b] or [] does it act?"""
        return (self.low <= sigma) & (sigma <= self.high)

    def record(self) -> dict[str, Any]:
        """As it stands in a record; JSON has no word for infinity."""
        high = None if self.high == math.inf else self.high
        weak = {"weights": self.weights, "step": self.step, "sha256": self.sha256}
        return {"weight": self.weight, "levels": [self.low, high], "weak": weak}

    def combined(self, strong: Denoise, weak: Denoise) -> Denoise:
        """Both estimates [b c h w] combined; the weak one is asked for only where it counts."""

        def estimate(x: Tensor, sigma: Tensor) -> Tensor:
            denoised, applies = strong(x, sigma), self.applies(sigma)
            if not applies.any():
                return denoised
            other = weak(x, sigma)
            weight = torch.where(applies, self.weight, 1.0).expand(len(x))
            return other + like(x, weight) * (denoised - other)

        return estimate
