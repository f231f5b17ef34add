"""The losses that a training has seen, as far as they are still needed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from diffuse import checkpoints
from diffuse.divergence import Spikes
from diffuse.training_state import Step


class Window:
    """The mean loss of some steps; it stays on the device until somebody asks."""

    def __init__(self, device: torch.device, total: float = 0.0, count: int = 0) -> None:
        self.total = torch.tensor(total, dtype=torch.float32, device=device)
        self.count = count

    def add(self, loss: Tensor) -> None:
        self.total += loss
        self.count += 1

    def close(self) -> float:
        """The mean; the next window begins."""
        mean = self.total.item() / max(1, self.count)
        self.total.zero_()
        self.count = 0
        return mean


class Seen:
    """The losses so far, as far as they are still needed; all of it is in a checkpoint."""

    def __init__(self, device: torch.device, state: Mapping[str, Any] | None = None) -> None:
        state = state or {}
        self.device = device
        self.step, self.images = state.get("step", 0), state.get("images_seen", 0)  # to go on from
        self.window = Window(device, *state.get("window", ()))
        self.losses = Spikes(**state.get("losses", {}))

    @classmethod
    def of(cls, checkpoint: Path, device: torch.device) -> Self:
        return cls(device, checkpoints.load_state(checkpoint))

    def add(self, step: Step) -> None:
        if not step.skipped:
            self.window.add(step.loss)
            self.losses.add(step.number, step.loss)

    def state(self) -> dict[str, Any]:
        window = [self.window.total.item(), self.window.count]
        return {"window": window, "losses": self.losses.state()}
