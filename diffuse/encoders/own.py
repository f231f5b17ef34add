"""Modules from outside as encoders: what they say of themselves, and what is not believed.

A module maps images [b c h w] to features [b d]. It may carry these attributes:

    range = (-1, 1)   the interval that [0, 255] is mapped to, float32; (0, 255) for the levels
    range = "uint8"   the levels as they are, uint8, rounded where the size is another
    size = 32         the side it wants, or (height, width); without it, the data's own
    channels = 3      gray images are then repeated; without it, the data's own
"""

import hashlib
import inspect
import logging
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffuse import sealed
from diffuse.data import ImageSpec
from diffuse.encoders.encoder import ANTIALIASED, Encoder, Preparation, wrong_channels
from diffuse.seeds import seed_of

log = logging.getLogger("diffuse.encoders")
RANGE = (-1.0, 1.0)  # of a module that names none
MOST_PIXELS = 2**22  # at once


def wrapped(make: Callable[[], Any], name: str, spec: ImageSpec) -> Encoder:
    """Call `make` for a module of someone else's and make it an encoder; ValueError if it is none.

    Its sha256 is that of its weights and of the file its class is written in. Random weights are
    drawn from a seed of its own, so that a net without a file of weights is the same every time.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(0, "encoder"))
        net = make()
    if isinstance(net, Encoder):
        return net
    if not isinstance(net, nn.Module):
        raise ValueError(f"{name} must be or return a torch.nn.Module, got {type(net).__name__}")
    net.cpu().eval().requires_grad_(False)
    channels, sides = _channels(net, name, spec), _sides(net, name, spec)
    preparation = _preparation(net, name, channels // spec.channels)
    dim = _dim(net, name, preparation, (spec.channels, *sides))
    size = (spec.channels, *sides)
    most = max(1, min(256, MOST_PIXELS // (sides[0] * sides[1])))
    how: dict[str, Any] = {"preparation": preparation, "layer": "output", "most": most}
    return Encoder(net, name, _sha256(net), size, dim, **how)


def _channels(net: nn.Module, name: str, spec: ImageSpec) -> int:
    """As the module sees them: the data's own, or three of gray ones."""
    channels = getattr(net, "channels", spec.channels)
    if channels not in (spec.channels, 3 if spec.channels == 1 else spec.channels):
        raise ValueError(wrong_channels(name, channels, f"{spec.name} has {spec.channels}"))
    return channels


def _sides(net: nn.Module, name: str, spec: ImageSpec) -> tuple[int, int]:
    size = getattr(net, "size", (spec.native_height, spec.native_width))
    sides = (size, size) if isinstance(size, int) else size
    try:
        height, width = (int(side) for side in sides)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 1:
        raise ValueError(f"{name}: size must be a side or (height, width), got {size!r}")
    return height, width


def _preparation(net: nn.Module, name: str, repeat: int) -> Preparation:
    wanted, filter = getattr(net, "range", None), ANTIALIASED.filter
    if wanted is None:
        log.warning("encoder %s names no range: it gets images in [-1, 1]", name)
        wanted = RANGE
    if wanted == "uint8":
        return Preparation(f"{filter}, rounded", ANTIALIASED.resize, _levels, (0, 255), repeat)
    try:
        low, high = (float(end) for end in wanted)
    except (TypeError, ValueError):
        low = high = 0.0
    if not (isfinite(low) and isfinite(high) and low < high):
        raise ValueError(f"{name}: range must be (low, high) or 'uint8', got {wanted!r}")

    def scale(levels: Tensor) -> Tensor:
        return levels * ((high - low) / 255) + low

    return Preparation(filter, ANTIALIASED.resize, scale, (low, high), repeat)


def _levels(x: Tensor) -> Tensor:
    return x.round().clamp(0, 255).to(torch.uint8)


@torch.no_grad()
def _dim(net: nn.Module, name: str, how: Preparation, size: tuple[int, int, int]) -> int:
    """How many features it makes of two images, if features is what it makes."""
    x = how.scale(torch.full((2, *size), 128.0)).repeat(1, how.repeat, 1, 1)
    shape = [*x.shape]
    try:
        features = net(x)
    except Exception as error:  # code of others may raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{name} failed on images {shape} {x.dtype}: {reason}") from error
    if not isinstance(features, Tensor) or not features.is_floating_point():
        kind = features.dtype if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"{name} must return a float tensor of features, got {kind}")
    if features.ndim != 2 or len(features) != 2 or not features.shape[1]:
        got = [*features.shape]
        raise ValueError(f"{name} must map images [b c h w] to [b d]: {shape} gave {got}")
    if not features.isfinite().all():
        raise ValueError(f"{name} makes features that are not finite of a gray image")
    return features.shape[1]


def _sha256(net: nn.Module) -> str:
    """Of the weights, and of the code, without which the same weights mean something else."""
    digest = hashlib.sha256(sealed.digest(net.state_dict()).encode())
    for part in sorted({type(module) for module in net.modules()}, key=lambda t: t.__qualname__):
        digest.update(f"{part.__module__}.{part.__qualname__}".encode())
        if not part.__module__.startswith("torch."):
            digest.update(_source(part))
    return digest.hexdigest()


def _source(part: type) -> bytes:
    try:
        return Path(inspect.getfile(part)).read_bytes()
    except (TypeError, OSError):  # typed into a notebook
        return b""
