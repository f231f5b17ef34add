"""Numbers that are not finite, and losses that jump: what is done and what is said."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from diffuse.errors import DivergedError
from diffuse.training_state import Step

IN_A_ROW = 10  # `skip` gives up at so many steps in a row that are not finite
ROLLBACKS = 3  # times that `rollback` begins again


class Diverged(DivergedError):
    """A step whose loss or gradient is not finite, and after which training does not go on."""

    def __init__(self, step: Step, in_a_row: int) -> None:
        many = f"; {in_a_row} steps in a row" if in_a_row > 1 else ""
        super().__init__(f"{said(step)}{many}; the last good step was {step.number - in_a_row}")
        self.step = step


def diagnosis(
    net: nn.Module,  # with the gradient that went wrong
    step: Step,
    images: Tensor,  # their numbers
    sigma: Tensor,  # their levels
) -> dict[str, Any]:
    """What diverged.json says of a step."""
    return {
        "step": step.number,
        "lr": step.lr,
        "loss": finite(step.loss),
        "grad_norm": finite(step.grad_norm),
        "images": images.tolist(),
        "sigmas": [finite(level) for level in sigma],
        "weight_norms": {k: finite(p.norm()) for k, p in net.named_parameters()},
        "grad_norms": {
            k: finite(p.grad.norm()) for k, p in net.named_parameters() if p.grad is not None
        },
    }


def said(step: Step) -> str:
    """A step that went wrong, for people."""
    loss, norm = step.loss.item(), step.grad_norm.item()
    return (
        f"step {step.number}: loss {loss:g}, gradient norm {norm:g} at a learning rate of "
        f"{step.lr:g}"
    )


def finite(value: Tensor) -> float | str:
    """JSON has no word for nan and inf, so they are text."""
    number = value.item()
    return number if math.isfinite(number) else str(number)


@dataclass(frozen=True)
class Spike:
    """A loss far above those before it."""

    step: int
    loss: float
    median: float  # of the losses before it

    def __str__(self) -> str:
        times = self.loss / self.median
        return f"step {self.step}: the loss jumped to {self.loss:.4g}, {times:.3g} times the usual"


class Spikes:
    """Those among the losses of the last steps, each of which it is told.

    They stay on the device until somebody asks; what is found does not depend on when that is.
    """

    BEFORE = 100  # steps that a loss is compared with,
    AT_LEAST = 20  # and how many there have to be
    TIMES = 2.0  # the median, and
    DEVIATIONS = 10.0  # above it: a normal one's, from the median of the absolute deviations
    WAITING = 1000  # on the device

    def __init__(self, before: Sequence[float] = (), found: Sequence[Sequence[float]] = ()) -> None:
        self.before = deque(before, maxlen=self.BEFORE)
        self.found = [Spike(int(step), loss, usual) for step, loss, usual in found]
        self.waiting: list[tuple[int, Tensor]] = []

    def add(self, step: int, loss: Tensor) -> None:
        self.waiting.append((step, loss))
        if len(self.waiting) >= self.WAITING:
            self._settle()

    def spikes(self) -> list[Spike]:
        """Those since the last call."""
        self._settle()
        found, self.found = self.found, []
        return found

    def state(self) -> dict[str, Any]:
        """What `Spikes(**state)` goes on from."""
        self._settle()
        return {"before": [*self.before], "found": [astuple(spike) for spike in self.found]}

    def _settle(self) -> None:
        if not self.waiting:
            return
        values = torch.stack([loss for _, loss in self.waiting]).tolist()
        for (step, _), loss in zip(self.waiting, values, strict=True):
            usual = median(self.before) if len(self.before) >= self.AT_LEAST else math.inf
            if loss > self.TIMES * usual > 0 and loss > usual + self.DEVIATIONS * self._scatter(
                usual
            ):
                self.found.append(Spike(step, loss, usual))
            self.before.append(loss)
        self.waiting.clear()

    def _scatter(self, usual: float) -> float:
        return 1.4826 * median(abs(loss - usual) for loss in self.before)
