"""What changes while training: all that a checkpoint has to hold, and what is seen of a step."""

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffuse import averages, checkpoints
from diffuse.averages import Ema
from diffuse.denoiser import Denoiser

HOW = ("fused", "foreach", "capturable", "differentiable")  # torch computes, not what
COUNTS = ("step", "skipped", "in_a_row", "rollbacks")


@dataclass
class Training:
    """Weights, their averages, the optimizer, and how far it has come."""

    denoiser: Denoiser
    ema: Ema  # what is looked at and sampled from
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler  # for fp16; idle otherwise
    others: Sequence[Ema] = ()  # of other half-lives
    step: int = 0
    skipped: int = 0  # steps left out because a number was not finite,
    in_a_row: int = 0  # and how many of them came last
    rollbacks: int = 0  # each draws the steps that follow anew
    strict: bool = False  # gradients are the same bytes every time, or torch raises
    own: Collection[str] = ()  # settings of the optimizer that no checkpoint changes

    @classmethod
    def new(
        cls,
        denoiser: Denoiser,
        optimizer: torch.optim.Optimizer,
        ema: float | Sequence[float],
        own: Collection[str] = (),
    ) -> "Training":
        """At its beginning: each average is the weights as they are."""
        device = next(denoiser.parameters()).device
        fp16 = denoiser.precision is torch.float16
        scaler = torch.amp.GradScaler(device.type, enabled=fp16)
        decays = [ema] if isinstance(ema, float | int) else ema
        first, *others = [Ema(denoiser.net, decay) for decay in decays]
        return cls(denoiser, first, optimizer, scaler, others, own=own)

    @property
    def averages(self) -> dict[str, Ema]:
        """The averaged weights by the name of their file."""
        return {"ema": self.ema, **{averages.file_name(ema.decay): ema for ema in self.others}}

    def weights(self, name: str) -> dict[str, Tensor]:
        """Those called ema, raw, or ema_0.9998."""
        if name == "raw":
            return self.denoiser.net.state_dict()
        decays = [ema.decay for ema in (self.ema, *self.others)]
        return self.averages[averages.find(name, decays) or ""].weights

    @property
    def has_moments(self) -> bool:
        """Has the optimizer stepped, or one inside it? Then its moments are there."""
        return any(one.state for one in (self.optimizer, *_inside(self.optimizer)))

    def average(self, step: int) -> None:
        """Take the weights of a step into every average."""
        for ema in self.averages.values():
            ema.update(step)

    def tensors(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """The files of tensors of a checkpoint, and what of the state is not a tensor."""
        moments: dict[str, Tensor] = {}
        packed = checkpoints.pack(self.optimizer.state_dict(), moments)
        files = {
            "model": self.denoiser.net.state_dict(),
            **{name: ema.weights for name, ema in self.averages.items()},
            "optimizer": moments,
        }
        counts = {name: getattr(self, name) for name in COUNTS}
        return files, counts | {"optimizer": packed, "scaler": self.scaler.state_dict()}

    def load(self, path: Path) -> None:
        """Go back to a checkpoint that was verified."""
        state = checkpoints.load_state(path)
        self.denoiser.net.load_state_dict(checkpoints.load_tensors(path, "model"))
        for file, ema in self.averages.items():
            averaged = checkpoints.load_tensors(path, file)
            for name, weight in ema.weights.items():
                weight.copy_(averaged[name])
        moments = checkpoints.load_tensors(path, "optimizer")
        saved = checkpoints.unpack(state["optimizer"], moments)
        _keep_own(saved, self.optimizer, {*HOW, *self.own})
        self.optimizer.load_state_dict(saved)
        for optimizer in (self.optimizer, *_inside(self.optimizer)):
            _lay_out(optimizer)
        if state["scaler"]:  # else the training was not in fp16
            self.scaler.load_state_dict(state["scaler"])
        for name in COUNTS:
            setattr(self, name, state[name])


def settings(optimizer: torch.optim.Optimizer) -> set[str]:
    """What it, and those inside it, were told when they were made; of AdamW, that it is no Adam.

    What else stands in its groups it may count there, as some that need no schedule do.
    """
    kinds = {kind for one in (optimizer, *_inside(optimizer)) for kind in type(one).__mro__}
    return {key for kind in kinds for key in inspect.signature(kind.__init__).parameters}


def _inside(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    """The ones inside it, as in Muon."""
    parts = vars(optimizer).values()
    return [part for part in parts if isinstance(part, torch.optim.Optimizer)]


def _keep_own(
    saved: dict[str, Any], optimizer: torch.optim.Optimizer, own: Collection[str]
) -> None:
    """Settings of a saved state that become the optimizer's own, before it is loaded.

    How it computes belongs to this device: a fused one keeps its counts there.
    """
    parts = [saved] if "param_groups" in saved else saved.values()
    there = [group for part in parts for group in part["param_groups"]]
    here = [g for one in _inside(optimizer) or [optimizer] for g in one.param_groups]
    for theirs, ours in zip(there, here, strict=True):
        for key in ours.keys() - {"params"}:
            if key in own:
                theirs[key] = ours[key]


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Moments as their weights lie in memory: a fused optimizer goes through both side by side."""
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                state[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


@dataclass(frozen=True)
class Step:
    """What the caller of fit() sees. `loss` stays on the device until somebody asks."""

    number: int
    loss: Tensor
    lr: float
    grad_norm: Tensor
    last: bool
    why: Mapping[str, Any] | None = None  # a number was not finite, so no weight was changed

    @property
    def skipped(self) -> bool:
        """Was it left out?"""
        return self.why is not None

    def every(self, n: int | None) -> bool:
        """Is it time for something that happens every n steps, and at the end?"""
        return due(self.number, n, self.last)


def due(number: int, n: int | None, last: bool) -> bool:
    """Does this step do what happens every n steps, and at the end?"""
    return bool(n) and (number % n == 0 or last)
