"""Optimizers that torch.optim does not have as we need them; all others are found there by name."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """Jordan et al. (2024) for the convolutions inside the network, AdamW for everything else.

    The momentum of a weight matrix is orthogonalised, so that every direction learns at the same
    speed. torch.optim.Muon takes matrices: a convolution is given to it as [out, h w in], a view of
    its weight, which therefore must be channels_last.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,  # of the convolutions
        momentum: float,
        adam_lr: float,  # of everything else
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        params = [p for p in params if p.requires_grad]
        convolutions = [p for p in params if p.ndim == 4]
        hidden = convolutions[1:-1]  # the first and the last touch pixels, not features
        if not hidden:
            raise ValueError("the model has no hidden convolutions; use optimizer=adamw")
        inside = {id(p) for p in hidden}
        rest = [p for p in params if id(p) not in inside]
        super().__init__([{"params": hidden, "lr": lr}, {"params": rest, "lr": adam_lr}], {})
        self.matrices = [nn.Parameter(_matrix(p.detach())) for p in hidden]
        self.muon = torch.optim.Muon(
            self.matrices, lr=lr, momentum=momentum, weight_decay=weight_decay
        )
        self.adamw = torch.optim.AdamW(
            rest, lr=adam_lr, betas=(betas[0], betas[1]), eps=eps, weight_decay=weight_decay
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        hidden, rest = self.param_groups
        for p, matrix in zip(hidden["params"], self.matrices, strict=True):
            matrix.data = p.detach().permute(0, 2, 3, 1).view(len(p), -1)
            matrix.grad = None if p.grad is None else _matrix(p.grad)
        self.muon.param_groups[0]["lr"] = hidden["lr"]
        self.adamw.param_groups[0]["lr"] = rest["lr"]
        self.muon.step()
        self.adamw.step()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__.copy()  # torch's leaves out what it does not know: `copy.deepcopy`

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])


def _matrix(weight: Tensor) -> Tensor:
    """[out, in, h, w] -> [out, h w in]."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)
