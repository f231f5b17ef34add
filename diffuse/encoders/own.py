"""Modules from outside as encoders: what they say of themselves, and what is not believed.

A module maps images [b c h w] to features [b d]. It may carry these attributes:

    range = (-1, 1)   the interval that [0, 255] is mapped to, float32; (0, 255) for the levels
    range = "uint8"   the levels as they are, uint8, rounded where the size is another
    size = 32         the side it wants, or (height, width); without it, the data's own
    channels = 3      gray images are then repeated; without it, the data's own
"""

import copy
import logging
from collections.abc import Callable
from functools import partial
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from diffuse import conditions, sealed
from diffuse.data import ImageSpec
from diffuse.encoders.encoder import ANTIALIASED, Encoder, Preparation, wrong_channels
from diffuse.errors import DiffuseError, reason
from diffuse.seeds import seed_of

log = logging.getLogger("diffuse.encoders")
RANGE = (-1.0, 1.0)  # of a module that names none
MOST_PIXELS = 2**22  # at once


def wrapped(
    make: Callable[[], Any],
    call: partial[Any],  # what `make` calls: the class or function, and what the config gives it
    name: str,
    spec: ImageSpec,
) -> Encoder:
    """Call `make` for a module of someone else's and make it an encoder; ValueError if it is none.

    Random weights are drawn from a seed of their own, so that a net without a file of weights is
    the same every time.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(0, "encoder"))
        try:
            net = make()
        except DiffuseError:
            raise
        except Exception as error:  # code of others may raise anything
            raise ValueError(f"{name} cannot be made: {reason(error)}") from error
    if not isinstance(net, nn.Module):
        raise ValueError(f"{name} must be or return a torch.nn.Module, got {type(net).__name__}")
    net.cpu().eval().requires_grad_(False)
    attributes = _attributes(net)  # before it has seen an image: a net may keep what it makes of it
    if isinstance(net, Encoder):
        if net.channels != spec.channels:
            given = f"{spec.name} has {spec.channels}"
            raise ValueError(wrong_channels(net.name, net.channels, given))
        encoder = copy.copy(net)
    else:
        encoder = _encoder(net, name, spec)
    encoder.options = call.keywords
    encoder.sha256 = _sha256(net, call, attributes)
    return encoder


def _encoder(net: nn.Module, name: str, spec: ImageSpec) -> Encoder:
    channels, sides = _channels(net, name, spec), _sides(net, name, spec)
    preparation = _preparation(net, name, channels // spec.channels)
    dim = _dim(net, name, preparation, (spec.channels, *sides))
    size = (spec.channels, *sides)
    most = max(1, min(256, MOST_PIXELS // (sides[0] * sides[1])))
    how: dict[str, Any] = {"preparation": preparation, "layer": "output", "most": most}
    return Encoder(net, name, "", size, dim, **how)


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
        raise ValueError(f"{name} failed on images {shape} {x.dtype}: {reason(error)}") from error
    if not isinstance(features, Tensor) or not features.is_floating_point():
        kind = features.dtype if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"{name} must return a float tensor of features, got {kind}")
    if features.ndim != 2 or len(features) != 2 or not features.shape[1]:
        got = [*features.shape]
        raise ValueError(f"{name} must map images [b c h w] to [b d]: {shape} gave {got}")
    if not features.isfinite().all():
        raise ValueError(f"{name} makes features that are not finite of a gray image")
    return features.shape[1]


def _attributes(net: nn.Module) -> dict[str, Tensor]:
    """Tensors that are neither parameters nor buffers, by their names."""
    return {
        f"{path} {key}": value
        for path, module in net.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, Tensor)
    }


def _sha256(net: nn.Module, call: partial[Any], attributes: dict[str, Tensor]) -> str:
    """Of all its tensors, its arguments, and the code, without which they mean something else.

    Code is that of its classes and of the function that makes it.
    """
    stated = [net.sha256, net.record()] if isinstance(net, Encoder) else []
    parts = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in map(type, net.modules())}
    return conditions.key({
        "stated": stated,
        "options": call.keywords,
        "tensors": sealed.digest({**dict(net.named_parameters()), **dict(net.named_buffers())}),
        "attributes": sealed.digest(attributes),
        "code": {
            name: conditions.sources(thing) for name, thing in ({"": call.func} | parts).items()
        },
    })  # fmt: skip
