"""Averaged weights, of one half-life or of several."""

from collections.abc import Sequence

import torch
from torch import nn


class Ema:
    """Averaged weights in float32. Early on it forgets faster: decay min(d, (1 + n) / (10 + n))."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.now = net.state_dict(keep_vars=True)  # asking for it takes longer than averaging
        self.weights = {k: w.detach().clone() for k, w in self.now.items()}
        self.averaged = [k for k, w in self.now.items() if w.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights that the network has after this step."""
        decay = min(self.decay, (1 + step) / (10 + step))
        kept, now = ([of[k] for k in self.averaged] for of in (self.weights, self.now))
        torch._foreach_lerp_(kept, now, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        for name in self.now.keys() - set(self.averaged):  # a count, for example
            self.weights[name].copy_(self.now[name])


def file_name(decay: float) -> str:
    """The file of an average that is not the first one: 0.999 -> ema_0.9990."""
    short = f"{decay:.4f}"
    return f"ema_{short if float(short) == decay else repr(decay)}"


def files(decays: Sequence[float]) -> dict[str, str]:
    """What can be asked for, the first as plain "ema" too -> its file in a checkpoint."""
    first, *others = map(file_name, decays)
    return {"ema": "ema", first: "ema", **{name: name for name in others}}


def find(word: str, decays: Sequence[float]) -> str | None:
    """The file of the average that somebody calls ema, or ema_0.999; None if there is none."""
    name = word if word == "ema" else file_name(float(word.removeprefix("ema_")))
    return files(decays).get(name)
