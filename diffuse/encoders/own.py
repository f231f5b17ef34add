"""Modules from outside as encoders: what they say of themselves, and what is not believed.

A module maps images [b c h w] to features [b d]. It carries these attributes:

    range = (-1, 1)   the interval that [0, 255] is mapped to, float32; (0, 255) for the levels
    range = "uint8"   the levels as they are, uint8, rounded where the size is another
    size = 32         the side it wants, or (height, width); without it, the data's own
    channels = 3      gray images are then repeated; without it, the data's own
"""

import copy
from collections.abc import Callable
from functools import partial
from math import isfinite
from operator import index
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy

from diffuse.data import ImageSpec, as_levels, to_range
from diffuse.encoders import identity
from diffuse.encoders.encoder import ANTIALIASED, Encoder, Preparation, wrong_channels
from diffuse.encoders.probing import probe, quick_layout
from diffuse.errors import DiffuseError, reason
from diffuse.seeds import seeded

MOST_PIXELS = 2**22  # at once
MOST_SHOWN = 60  # letters of an attribute that cannot be


def wrapped(
    make: Callable[[], Any],
    call: partial[Any],  # what `make` calls: the class or function, and what the config gives it
    name: str,
    spec: ImageSpec,
) -> Encoder:
    """Call `make` for a module of someone else's and make it an encoder; ValueError if it is none.

    Random weights are drawn from a seed of their own, so that a net without a file of weights is
    the same every time; those of lazy layers are drawn when it sees its first image.
    """
    with seeded(0, "encoder"):
        net = _made(make, name)
        held = identity.attributes(net, name)
        encoder = _checked(net, name, spec) if isinstance(net, Encoder) else None
        encoder = encoder or _encoder(net, name, spec)
        _without_gradients(net, name)
    encoder.options = call.keywords
    encoder.sha256 = identity.sha256(net, name, call, held)
    return encoder


def _made(make: Callable[[], Any], name: str) -> nn.Module:
    """On the CPU and in evaluation; what torch.export made is in the one mode that it has."""
    try:
        net = make()
    except DiffuseError:
        raise
    except Exception as error:  # code of others may raise anything
        raise ValueError(f"{name} cannot be made: {reason(error)}") from error
    if not isinstance(net, nn.Module):
        raise ValueError(f"{name} must be or return a torch.nn.Module, got {type(net).__name__}")
    for module in net.modules():
        if isinstance(module, fx.GraphModule):
            vars(module).pop("train", None)  # torch.export's, which raise
            vars(module).pop("eval", None)
    try:
        return net.cpu().eval()
    except Exception as error:
        raise ValueError(f"{name} cannot be used on the CPU: {reason(error)}") from error


def _without_gradients(net: nn.Module, name: str) -> None:
    """Parameter by parameter: TorchScript has no `requires_grad_` of a module."""
    for key, parameter in net.named_parameters():
        if is_lazy(parameter):
            raise ValueError(f"{name}: {key} has no shape: no image reaches it")
        parameter.requires_grad_(False)


def _checked(net: Encoder, name: str, spec: ImageSpec) -> Encoder:
    if net.channels != spec.channels:
        given = f"{spec.name} has {spec.channels}"
        raise ValueError(wrong_channels(net.name, net.channels, given))
    dim = probe(net, name, torch.clone, (net.channels, net.height, net.width), net.most)
    if dim != net.dim:
        raise ValueError(f"{name}: encoder {net.name} says dim={net.dim} and makes {dim} features")
    return copy.copy(net)


def _encoder(net: nn.Module, name: str, spec: ImageSpec) -> Encoder:
    channels, sides = _channels(net, name, spec), _sides(net, name, spec)
    preparation = _preparation(net, name, channels // spec.channels)
    size = (spec.channels, *sides)
    most = max(1, min(256, MOST_PIXELS // (sides[0] * sides[1])))

    def prepare(images: Tensor) -> Tensor:
        return preparation.scale(images.float()).repeat(1, preparation.repeat, 1, 1)

    dim = probe(net, name, prepare, size, most)
    how: dict[str, Any] = {"preparation": preparation, "layer": "output", "most": most}
    how["layout"] = quick_layout(net, name, prepare, size, most)
    return Encoder(net, name, "", size, dim, **how)


def _attribute(net: nn.Module, name: str, key: str, default: Any) -> Any:
    try:
        return getattr(net, key, default)
    except Exception as error:  # a property of others may raise anything
        raise ValueError(f"{name}: its attribute {key} cannot be read: {reason(error)}") from error


def _shown(value: Any) -> str:
    shown = " ".join(repr(value).split())
    return shown if len(shown) <= MOST_SHOWN else f"{shown[:MOST_SHOWN]}..."


def _channels(net: nn.Module, name: str, spec: ImageSpec) -> int:
    """As the module sees them: the data's own, or three of gray ones."""
    given = _attribute(net, name, "channels", spec.channels)
    try:
        channels = index(given)
    except TypeError as error:
        said = f"its attribute channels must be a whole number, got {_shown(given)}"
        raise ValueError(f"{name}: {said}") from error
    if channels not in (spec.channels, 3 if spec.channels == 1 else spec.channels):
        wrong = wrong_channels(name, channels, f"{spec.name} has {spec.channels}")
        raise ValueError(
            f"{wrong}: the attribute channels of the module was read, which says how many channels "
            "its images have; one that means something else needs another name"
        )
    return channels


def _sides(net: nn.Module, name: str, spec: ImageSpec) -> tuple[int, int]:
    size = _attribute(net, name, "size", (spec.native_height, spec.native_width))
    try:
        height, width = _pair(size)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 1:
        raise ValueError(f"{name}: size must be a side or (height, width), got {_shown(size)}")
    return height, width


def _pair(size: Any) -> tuple[int, int]:
    """A whole number of any kind for both sides, or one for each; else TypeError or ValueError."""
    try:
        return index(size), index(size)
    except TypeError:
        height, width = map(index, size)
        return height, width


def _preparation(net: nn.Module, name: str, repeat: int) -> Preparation:
    wanted, filter = _attribute(net, name, "range", None), ANTIALIASED.filter
    if wanted is None:
        raise ValueError(
            f"{name} does not say what its images are mapped to, and a guess would give wrong "
            "numbers: give the module an attribute range = (-1, 1), or (0, 1), or 'uint8'"
        )
    if isinstance(wanted, str) and wanted == "uint8":
        return Preparation(f"{filter}, rounded", ANTIALIASED.resize, as_levels, (0, 255), repeat)
    try:
        low, high = (float(end) for end in wanted)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        low = high = 0.0
    if not (isfinite(low) and isfinite(high) and low < high):
        raise ValueError(f"{name}: range must be (low, high) or 'uint8', got {_shown(wanted)}")
    scale = partial(to_range, range=(low, high))
    return Preparation(filter, ANTIALIASED.resize, scale, (low, high), repeat)
