"""Averaged weights, of one half-life or of several."""

import math
from collections.abc import Sequence
from decimal import Decimal

import torch
from torch import nn


def decay_at(decay: float, step: int) -> float:
    """min(decay, (1 + step) / (10 + step)): early on every average forgets faster."""
    return min(decay, (1 + step) / (10 + step))


def half_life(decay: float, step: int, batch: int) -> float:
    """The images after which a weight's share in an average halves, as it is at a step."""
    now = decay_at(decay, step)
    return round(batch * math.log(0.5) / math.log(now), 1) if now else 0.0


class Ema:
    """Averaged weights in float32, as `decay_at` says."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.now = net.state_dict(keep_vars=True)  # asking for it takes longer than averaging
        self.weights = {k: w.detach().clone() for k, w in self.now.items()}
        self.averaged = [k for k, w in self.now.items() if w.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights that the network has after this step."""
        decay = decay_at(self.decay, step)
        kept, now = ([of[k] for k in self.averaged] for of in (self.weights, self.now))
        torch._foreach_lerp_(kept, now, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        for name in self.now.keys() - set(self.averaged):  # a count, for example
            self.weights[name].copy_(self.now[name])


def file_name(decay: float) -> str:
    """The file of an average that is not the first one: 0.999 -> ema_0.9990, never 1e-05."""
    short = f"{decay:.4f}"
    return f"ema_{short if float(short) == decay else format(Decimal(repr(decay)), 'f')}"


def files(decays: Sequence[float]) -> dict[str, str]:
    """What can be asked for, the first as plain "ema" too -> its file in a checkpoint."""
    first, *others = map(file_name, decays)
    return {"ema": "ema", first: "ema", **{name: name for name in others}}


def names(decays: Sequence[float]) -> list[str]:
    """What can be asked for, as it is typed: ema_0.999."""
    return ["ema", *(f"ema_{format(Decimal(repr(decay)), 'f')}" for decay in decays)]


def find(word: str, decays: Sequence[float]) -> str | None:
    """The file of the average that somebody calls ema, or ema_0.999; None if there is none."""
    name = word if word == "ema" else file_name(float(word.removeprefix("ema_")))
    return files(decays).get(name)
