"""Noise laws: which levels training sees. A law draws n levels, given a generator."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from diffuse.schedules import Schedule

Law = Callable[[int, Generator], Tensor]  # (n, generator) -> sigma [n], float64 on the CPU


def uniform(schedule: Schedule, stratified: bool) -> Law:
    """t ~ U(0, 1) as in Ho et al. (2020); stratified as in Kingma et al. (2021), appendix I.1.

    Stratified, the n levels of a batch share one offset and cover (0, 1) evenly, which lowers the
    variance of the loss and leaves each level's law as it is.
    """

    def draw(n: int, generator: Generator) -> Tensor:
        if stratified:
            offset = torch.rand(1, generator=generator, dtype=torch.float64)
            t = (offset + torch.arange(n, dtype=torch.float64) / n) % 1
            t = t[torch.randperm(n, generator=generator)]
        else:
            t = torch.rand(n, generator=generator, dtype=torch.float64)
        return schedule.sigma(t.clamp(1e-9, 1 - 1e-9))

    return draw
