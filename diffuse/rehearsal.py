"""One step's way there and back on zeros, of which nothing remains."""

import logging

import torch
from torch import nn

from diffuse import conditions
from diffuse.denoiser import Denoiser

log = logging.getLogger(__name__)


class Buffers:
    """The buffers of a network as they are now, e.g. running means."""

    def __init__(self, net: nn.Module) -> None:
        self.kept = [(buffer, buffer.clone()) for buffer in net.buffers()]

    def restore(self) -> None:
        """They are again as they were."""
        for buffer, before in self.kept:
            buffer.copy_(before)


def step(denoiser: Denoiser, shape: tuple[int, int, int, int], device: torch.device) -> None:
    """No weight, count, gradient or random number is another after it."""
    x0, label = torch.zeros(shape, device=device), torch.zeros(shape[0], dtype=torch.long)
    was_training, cuda = denoiser.training, [device] if device.type == "cuda" else []
    buffers = Buffers(denoiser)
    try:
        with torch.random.fork_rng(cuda):
            denoiser.train()
            losses = denoiser.loss(x0, torch.ones(shape[0]), x0 + 1, label.to(device))
            losses.mean().backward()
    finally:
        denoiser.train(was_training)
        for weight in denoiser.parameters():
            weight.grad = None
        buffers.restore()


def repeats(denoiser: Denoiser, image: tuple[int, int, int], device: torch.device) -> bool:
    """Has torch a way to the same bytes every time? If not, one warning says what has none."""
    try:
        with conditions.strict():
            step(denoiser, (2, *image), device)  # some networks cannot learn from one
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        reason = str(error).partition(",")[0]
        log.warning("resuming may differ in the last bits: %s", " ".join(reason.split()))
        return False
    return True
