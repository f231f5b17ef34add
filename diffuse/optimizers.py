"""Optimizers that torch.optim does not have as we need them; all others are found there by name."""

import math
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from diffuse import hardware

QUINTIC, ITERATIONS = (3.4445, -4.7750, 2.0315), 5  # Jordan et al. (2024)


class Muon(torch.optim.Optimizer):
    """Jordan et al. (2024) for the convolutions inside the network, AdamW for everything else.

    The momentum of a weight, taken as a matrix [out, h w in], is orthogonalised, so that every
    direction learns at the same speed. torch.optim.Muon, whose steps these are, knows matrices
    only, and computes in bfloat16 always: on a CPU without it that is three quarters of a training.
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
        precision: str,  # of the orthogonalisation; in place of fp16 it is float32
    ) -> None:
        if precision not in hardware.PRECISIONS:
            choices = ", ".join(hardware.PRECISIONS)
            raise ValueError(f"precision must be auto or one of {choices}, got {precision!r}")
        for key, value in (("lr", lr), ("adam_lr", adam_lr), ("weight_decay", weight_decay)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{key} must be in [0, inf), got {value}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        params = [p for p in params if p.requires_grad]
        convolutions = [p for p in params if p.ndim == 4]
        hidden = convolutions[1:-1]  # the first and the last touch pixels, not features
        if not hidden:
            raise ValueError("the model has no hidden convolutions; use optimizer=adamw")
        inside = {id(p) for p in hidden}
        rest = [p for p in params if id(p) not in inside]
        super().__init__([{"params": hidden, "lr": lr}, {"params": rest, "lr": adam_lr}], {})
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.muon = Orthogonal(hidden, lr, momentum, weight_decay, dtype)
        self.adamw = torch.optim.AdamW(
            rest, lr=adam_lr, betas=(betas[0], betas[1]), eps=eps, weight_decay=weight_decay,
            fused=rest[0].is_cuda,
        )  # fmt: skip

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        hidden, rest = self.param_groups
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


class Orthogonal(torch.optim.Optimizer):
    """Muon of convolutions [out, in, h, w] alone; those of one shape are done together."""

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        momentum: float,
        weight_decay: float,
        dtype: torch.dtype,  # that is computed in; the momentum is float32
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__.copy()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            weights = sorted((p for p in group["params"] if p.grad is not None), key=_shape)
            gradients = [_matrix(p.grad) for p in weights]
            kept = [self._momentum(p, g) for p, g in zip(weights, gradients, strict=True)]
            torch._foreach_lerp_(kept, gradients, 1 - momentum)  # pyright: ignore[reportPrivateImportUsage]
            ahead = torch._foreach_lerp(gradients, kept, momentum)  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])  # pyright: ignore[reportPrivateImportUsage]
            matrices = iter(ahead)
            for (out, _, h, w), alike in groupby(weights, key=_shape):
                alike = list(alike)
                together = torch.stack([next(matrices) for _ in alike])
                moves = orthogonalised(together.to(self.dtype)).to(together.dtype)
                scale = lr * math.sqrt(max(1, out / moves.shape[-1]))
                for weight, move in zip(alike, moves, strict=True):
                    weight.sub_(move.reshape(out, h, w, -1).permute(0, 3, 1, 2), alpha=scale)

    def _momentum(self, weight: Tensor, gradient: Tensor) -> Tensor:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        return state["momentum_buffer"]


def orthogonalised(matrices: Tensor) -> Tensor:
    """U p(S) V' of each of some matrices U S V' [n a b], where p brings singular values near 1.

    p is Jordan's quintic, five times, after a division by the Frobenius norm.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    rounded = x.dtype == torch.bfloat16 or torch.get_float32_matmul_precision() != "highest"
    x = _iterated(x) if rounded else _polynomial(x @ x.mT) @ x
    return x.mT if tall else x


def _iterated(x: Tensor) -> Tensor:
    """p(X) of X [n a b], each iteration from the last one's: also where products are rounded."""
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _polynomial(gram: Tensor) -> Tensor:
    """Q with p(X) = Q X, from G = X X' [n a a] alone: what convolutions have is wide, and G small.

    An iteration multiplies X by f = a + b G + c G^2, so it makes f G f of G. In float32 the error
    stays below 1e-3, however faint a direction is; products of fewer digits (bfloat16, TF32) give
    G negative eigenvalues, which would grow without bound.
    """
    a, b, c = QUINTIC
    whole = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device).expand_as(gram)
    for _ in range(ITERATIONS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        whole, gram = factor @ whole, factor @ gram @ factor
    return whole


def _matrix(weight: Tensor) -> Tensor:
    """[out, in, h, w] -> [out, h w in]."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


def _shape(weight: Tensor) -> tuple[int, ...]:
    return tuple(weight.shape)
