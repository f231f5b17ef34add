"""Inception-v3 (Szegedy et al., 2016) in the edition that FID is defined by, as a table.

Its weights are those of TensorFlow's `inception-2015-12-05`. It differs from torchvision's network:
1,008 logits, average pools that leave the padding out of their mean, and a maximum instead of an
average in the pool of the last block. Names are those of the published file of weights.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE, FEATURES, LOGITS = 299, 2048, 1008
EPS = 1e-3  # of every batch normalisation


class Conv(NamedTuple):
    """Convolution, normalisation, ReLU."""

    name: str
    channels: int
    height: int = 1
    width: int = 1
    stride: int = 1
    padded: bool = True  # so that the side stays; never where the stride is 2


class Fork(NamedTuple):
    """Two convolutions of the same input, one output after the other."""

    one: Conv
    other: Conv


Branch = list[Conv | Fork | str]  # "mean" and "max" are pools of 3x3; "reduce" halves the side
STEM: Branch = [
    Conv("Conv2d_1a_3x3", 32, 3, 3, stride=2),
    Conv("Conv2d_2a_3x3", 32, 3, 3, padded=False),
    Conv("Conv2d_2b_3x3", 64, 3, 3),
    "reduce",
    Conv("Conv2d_3b_1x1", 80),
    Conv("Conv2d_4a_3x3", 192, 3, 3, padded=False),
    "reduce",
]


def narrow(pool: int) -> list[Branch]:
    """35x35: Fig. 5 of the paper, with one 5x5 left."""
    double = [Conv("branch3x3dbl_1", 64)]
    double += [Conv(f"branch3x3dbl_{i}", 96, 3, 3) for i in (2, 3)]
    return [
        [Conv("branch1x1", 64)],
        [Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, 5, 5)],
        [*double],
        ["mean", Conv("branch_pool", pool)],
    ]


def factored(middle: int) -> list[Branch]:
    """17x17: Fig. 6, 7x7 as 1x7 and 7x1."""
    wide, tall = (1, 7), (7, 1)
    return [
        [Conv("branch1x1", 192)],
        [
            Conv("branch7x7_1", middle),
            Conv("branch7x7_2", middle, *wide),
            Conv("branch7x7_3", 192, *tall),
        ],
        [
            Conv("branch7x7dbl_1", middle),
            Conv("branch7x7dbl_2", middle, *tall),
            Conv("branch7x7dbl_3", middle, *wide),
            Conv("branch7x7dbl_4", middle, *tall),
            Conv("branch7x7dbl_5", 192, *wide),
        ],
        ["mean", Conv("branch_pool", 192)],
    ]


def spread(pool: str) -> list[Branch]:
    """8x8: Fig. 7, with forks."""

    def fork(name: str) -> Fork:
        return Fork(Conv(f"{name}a", 384, 1, 3), Conv(f"{name}b", 384, 3, 1))

    return [
        [Conv("branch1x1", 320)],
        [Conv("branch3x3_1", 384), fork("branch3x3_2")],
        [
            Conv("branch3x3dbl_1", 448),
            Conv("branch3x3dbl_2", 384, 3, 3),
            fork("branch3x3dbl_3"),
        ],
        [pool, Conv("branch_pool", 192)],
    ]


TO_17: list[Branch] = [
    [Conv("branch3x3", 384, 3, 3, stride=2)],
    [
        Conv("branch3x3dbl_1", 64),
        Conv("branch3x3dbl_2", 96, 3, 3),
        Conv("branch3x3dbl_3", 96, 3, 3, stride=2),
    ],
    ["reduce"],
]
TO_8: list[Branch] = [
    [Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, 3, 3, stride=2)],
    [
        Conv("branch7x7x3_1", 192),
        Conv("branch7x7x3_2", 192, 1, 7),
        Conv("branch7x7x3_3", 192, 7, 1),
        Conv("branch7x7x3_4", 192, 3, 3, stride=2),
    ],
    ["reduce"],
]
BLOCKS: dict[str, list[Branch]] = {
    **{"Mixed_5b": narrow(32), "Mixed_5c": narrow(64), "Mixed_5d": narrow(64)},
    "Mixed_6a": TO_17,
    **{f"Mixed_6{x}": factored(m) for x, m in zip("bcde", (128, 160, 160, 192), strict=True)},
    "Mixed_7a": TO_8,
    **{"Mixed_7b": spread("mean"), "Mixed_7c": spread("max")},
}


class Mixed(nn.Module):
    """Branches side by side; their outputs one after the other are the channels that follow."""

    def __init__(self, c_in: int, branches: list[Branch]) -> None:
        super().__init__()
        self.branches, self.channels = branches, 0
        for branch in branches:
            c = c_in
            for step in branch:
                for conv in _convs(step):
                    self.add_module(conv.name, _layer(c, conv))
                c = sum(conv.channels for conv in _convs(step)) or c
            self.channels += c

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._along(branch, x) for branch in self.branches], 1)

    def _along(self, branch: Branch, x: Tensor) -> Tensor:
        if branch[0] == "mean":
            # of fewer channels: a 1x1 convolution of a mean is the mean of the 1x1 convolution
            (conv,) = _convs(branch[1])
            return F.relu_(_pooled(getattr(self, conv.name)(x), "mean"))
        for step in branch:
            if isinstance(step, str):
                x = _pooled(x, step)
            else:
                parts = [F.relu_(getattr(self, conv.name)(x)) for conv in _convs(step)]
                x = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return x


class Inception(nn.Module):
    """Float images [b 3 299 299] in about [-1, 1] -> pool3 [b 2048]; `head` makes 1,008 logits.

    Each normalisation is part of its convolution: its statistics are fixed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = Mixed(3, [STEM])
        channels, blocks = self.stem.channels, {}
        for name, branches in BLOCKS.items():
            blocks[name] = Mixed(channels, branches)
            channels = blocks[name].channels
        self.blocks = nn.ModuleDict(blocks)
        self.head = nn.Linear(FEATURES, LOGITS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks.values():
            x = block(x)
        return x.mean((2, 3))


def with_weights(published: Mapping[str, Tensor]) -> Inception:
    """The network with the weights of a file in the published layout; ValueError if it has another.

    Each normalisation, y = (x - mean) / sqrt(var + eps) * weight + bias, goes into the weights and
    the bias of the convolution before it, in float64.
    """
    with torch.device("meta"):  # numbers that would be overwritten take a second
        net = Inception()
    net = net.to_empty(device="cpu").to(memory_format=torch.channels_last)
    left = {key for key in published if not key.endswith("num_batches_tracked")}

    def take(key: str, like: tuple[int, ...]) -> Tensor:
        if key not in published:
            raise ValueError(f"{key} is missing")
        if tuple(published[key].shape) != like:
            raise ValueError(f"{key} is {[*published[key].shape]}, not {[*like]}")
        value = published[key].double()
        if not value.isfinite().all() or (key.endswith("running_var") and (value < 0).any()):
            raise ValueError(f"{key} holds what cannot be")
        left.discard(key)
        return value

    with torch.no_grad():
        for name, layer in net.named_modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                key = name.removeprefix("stem.").removeprefix("blocks.")
                shape = (len(layer.bias),)
                words = ("running_mean", "running_var", "weight", "bias")
                mean, var, gain, shift = (take(f"{key}.bn.{word}", shape) for word in words)
                gain = gain / (var + EPS).sqrt()
                kernel = take(f"{key}.conv.weight", tuple(layer.weight.shape))
                layer.weight.copy_(kernel * gain[:, None, None, None])
                layer.bias.copy_(shift - mean * gain)
        net.head.weight.copy_(take("fc.weight", (LOGITS, FEATURES)))
        net.head.bias.copy_(take("fc.bias", (LOGITS,)))
    if left:
        raise ValueError(f"{sorted(left)[0]} has no place in it")
    return net.eval().requires_grad_(False)


def _convs(step: Conv | Fork | str) -> tuple[Conv, ...]:
    if isinstance(step, str):
        return ()
    return (step,) if isinstance(step, Conv) else (step.one, step.other)


def _layer(c_in: int, conv: Conv) -> nn.Conv2d:
    kernel = (conv.height, conv.width)
    same = conv.padded and conv.stride == 1
    padding: Any = (conv.height // 2, conv.width // 2) if same else 0
    return nn.Conv2d(c_in, conv.channels, kernel, conv.stride, padding)


def _pooled(x: Tensor, how: str) -> Tensor:
    if how == "mean":
        return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    return F.max_pool2d(x, 3, 1, 1) if how == "max" else F.max_pool2d(x, 3, 2)
