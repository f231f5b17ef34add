"""FID along a walk: what the estimates and the states of each step score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffuse.encoders import Encoder, encode
from diffuse.metrics import Estimate, Moments, blocks_for, fid_estimate

TOGETHER = 256  # images that the encoder sees at once, as in an evaluation


@dataclass(frozen=True)
class Point:
    """A step of a walk."""

    step: int  # from 1
    sigma: float  # the level that it begins at
    calls: int  # of the network for an image, so far
    denoised: Estimate  # FID of the estimates of x0 that led there
    x: Estimate  # FID of the states it led to

    def record(self) -> dict[str, Any]:
        """As it stands in a record."""
        kinds = {"denoised": self.denoised.record(), "x": self.x.record()}
        return {"step": self.step, "sigma": self.sigma, "calls": self.calls} | kinds


def spread(steps: int, most: int) -> list[int]:
    """So many steps, evenly spaced; the first and the last are among them, of one the last."""
    if most == 1:
        return [steps]
    if steps <= most:
        return list(range(1, steps + 1))
    return [1 + round(k * (steps - 1) / (most - 1)) for k in range(most)]


class Along:
    """Features of some steps of a walk that is taken batch by batch; of images, few at a time."""

    def __init__(self, encoder: Encoder, steps: Sequence[int]) -> None:
        self.encoder = encoder
        self.pixels: dict[tuple[int, int], list[Tensor]] = {
            (step, kind): [] for step in steps for kind in (0, 1)
        }
        self.features: dict[tuple[int, int], list[Tensor]] = {key: [] for key in self.pixels}
        self.calls = dict.fromkeys(steps, 0)

    def add(self, step: int, denoised: Tensor, x: Tensor, calls: int) -> None:
        """uint8 images [b c h w] of a step: the estimates, and the states it led to."""
        for kind, images in enumerate((denoised, x)):
            waiting = self.pixels[step, kind]
            waiting.append(images)
            if sum(map(len, waiting)) >= TOGETHER:
                self._encode(step, kind)
        self.calls[step] = calls

    def points(self, sigmas: Sequence[float], reference: Moments) -> list[Point]:
        """Every step that was watched; `sigmas` are the levels of the grid."""
        return [
            Point(step, sigmas[step - 1], calls, *(self._fid(step, k, reference) for k in (0, 1)))
            for step, calls in self.calls.items()
        ]

    def _encode(self, step: int, kind: int) -> None:
        waiting = self.pixels[step, kind]
        self.features[step, kind].append(encode(self.encoder, torch.cat(waiting), TOGETHER))
        waiting.clear()

    def _fid(self, step: int, kind: int, reference: Moments) -> Estimate:
        if self.pixels[step, kind]:
            self._encode(step, kind)
        table = torch.cat(self.features[step, kind])
        return fid_estimate(table, reference, blocks_for(len(table)))
