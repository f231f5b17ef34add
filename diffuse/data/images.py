"""What the rest of the program sees of a data set: uint8 images, labels, and their description."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from diffuse.errors import DivergedError

MULTIPLE = 32  # `pad` and `resize` go to the next multiple of this: five halvings by a UNet
FITS = ("pad", "resize", "none")
BATCH = 1024  # images that are resized at once


@dataclass(frozen=True)
class ImageSpec:
    """What a network has to know of the images, and what a saved run remembers of them."""

    name: str
    channels: int
    height: int  # what the network sees, after `fit`
    width: int
    native_height: int
    native_width: int
    fit: str
    classes: tuple[str, ...]  # empty if unlabelled

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Self:
        """From what `dataclasses.asdict` gives, with lists for tuples as they come out of JSON."""
        return cls(**{**record, "classes": tuple(record["classes"])})

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split of a data set as one uint8 tensor: no files, no workers."""

    spec: ImageSpec
    images: Tensor  # uint8 [n c h w], at the network's size
    labels: Tensor  # int64 [n], all -1 if unlabelled
    sha256: str  # of the images and labels that are used
    source: str  # where they came from, for people
    flip: bool  # may the trainer mirror them?

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor) -> Tensor:
        """The images of some indices, uint8 [b c h w], on the device where the set is."""
        return self.images[indices.to(self.images.device)]

    def to(self, device: torch.device | str) -> Self:
        """The same set with its images and labels on a device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


@dataclass(frozen=True, eq=False)
class Raw:
    """What a function of this room returns: one split at its native size, before any choice."""

    name: str
    images: Tensor  # uint8 [n c h w], c = 1 (gray) or 3 (RGB)
    labels: Tensor | None  # int64 [n], None if unlabelled
    classes: tuple[str, ...]
    source: str


def to_range(images: Tensor, range: Sequence[float]) -> Tensor:
    """Map [0, 255] linearly onto [lo, hi], as float32."""
    low, high = _ends(range)
    return images.to(torch.float32) * ((high - low) / 255) + low


def to_uint8(x: Tensor, range: Sequence[float]) -> Tensor:
    """The inverse of `to_range`, clamped and rounded: truncation would darken 63 of 256 levels."""
    low, high = _ends(range)
    levels = (x.to(torch.float32) - low) * (255 / (high - low))
    if not levels.isfinite().all():  # a NaN would become an arbitrary level
        raise DivergedError("images: some values are not finite, they cannot become pixels")
    return as_levels(levels)


def as_levels(x: Tensor) -> Tensor:
    """Numbers as the nearest of the levels 0 to 255, uint8."""
    return x.round().clamp(0, 255).to(torch.uint8)


def _ends(range: Sequence[float]) -> tuple[float, float]:
    ends = tuple(float(end) for end in range)
    if len(ends) != 2 or not all(map(isfinite, ends)) or not ends[0] < ends[1]:
        raise ValueError(f"range must be [low, high] with low < high, got {list(range)}")
    return ends[0], ends[1]


def fitted(images: Tensor, fit: str) -> Tensor:
    """Bring uint8 [n c h w] to the size the network sees; `unfit` undoes it."""
    height, width = images.shape[-2:]
    target = [-(-side // MULTIPLE) * MULTIPLE for side in (height, width)]
    if fit == "none" or target == [height, width]:
        return images
    if fit == "resize":
        return resized(images, target[0], target[1])
    top, left = (target[0] - height) // 2, (target[1] - width) // 2
    return pad(images, (left, target[1] - width - left, top, target[0] - height - top))


def unfit(images: Tensor, spec: ImageSpec) -> Tensor:
    """Bring uint8 [n c h w] from the network's size back to the data's own: crop, or resize."""
    height, width = spec.native_height, spec.native_width
    if images.shape[-2:] == (height, width):
        return images
    if spec.fit == "resize":
        return resized(images, height, width)
    top, left = (spec.height - height) // 2, (spec.width - width) // 2
    return images[..., top : top + height, left : left + width].contiguous()


def resized(images: Tensor, height: int, width: int) -> Tensor:
    """Bilinear with antialias, rounded; in batches, because it passes through float32."""
    result = images.new_empty((*images.shape[:-2], height, width))
    for i in range(0, len(images), BATCH):
        part = images[i : i + BATCH].to(torch.float32)
        part = interpolate(part, (height, width), mode="bilinear", antialias=True)
        result[i : i + BATCH] = as_levels(part)
    return result


def sha256_of(images: Tensor, labels: Tensor) -> str:
    """sha256 of the pixels, the labels and their shape."""
    digest = hashlib.sha256(repr(tuple(images.shape)).encode())
    digest.update(images.contiguous().numpy().data)
    digest.update(labels.contiguous().numpy().data)
    return digest.hexdigest()


def moments(images: Tensor, range: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of all pixels in `range`, from a count of the 256 levels."""
    low, high = _ends(range)
    counts = torch.bincount(images.reshape(-1), minlength=256).cpu().double()
    values = low + torch.arange(256, dtype=torch.float64) * ((high - low) / 255)
    mean = (counts * values).sum() / counts.sum()
    std = ((counts * (values - mean) ** 2).sum() / counts.sum()).sqrt()
    return mean.item(), std.item()
