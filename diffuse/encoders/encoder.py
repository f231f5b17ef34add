"""What every encoder is: uint8 images in, float32 features out, and nothing left to the caller."""

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffuse.classifier import centred
from diffuse.encoders.resizing import Resize, antialiased
from diffuse.errors import DataError

log = logging.getLogger("diffuse.encoders")
PATIENCE = 10.0  # seconds between two lines that say how far it is


@dataclass(frozen=True)
class Preparation:
    """What happens to the images before `net` sees them."""

    filter: str  # in words, for the record
    resize: Resize  # to another size, unrounded
    scale: Callable[[Tensor], Tensor]  # levels 0..255 -> what `net` wants
    range: tuple[float, float]  # onto which `scale` maps [0, 255]
    repeat: int = 1  # how often each channel: gray for a net that wants three


ANTIALIASED = Preparation("bilinear antialias", antialiased, centred, (-1.0, 1.0))


class Encoder(nn.Module):
    """uint8 images [b c h w] of any size -> float32 features [b dim].

    `head`, where there is one, turns features into logits over `classes`.
    """

    def __init__(
        self,
        net: nn.Module,  # [b channels * repeat height width], prepared -> [b dim]
        name: str,
        sha256: str,  # of the file the weights came from, or of the definition if there are none
        size: tuple[int, int, int],  # channels of the images, height, width
        dim: int,
        head: nn.Module | None = None,
        classes: tuple[str, ...] = (),
        preparation: Preparation = ANTIALIASED,
        layer: str = "last",  # whose outputs the features are
        most: int = 256,  # images at once; more would only take memory
        data: tuple[str, ...] = (),  # sha256 of the splits it was trained on and tested with
        layout: torch.memory_format = torch.preserve_format,  # of what `net` sees
    ) -> None:
        super().__init__()
        self.net, self.head, self.classes, self.layout = net, head, classes, layout
        self.name, self.sha256, self.dim, self.layer = name, sha256, dim, layer
        self.channels, self.height, self.width = size
        self.preparation, self.most, self.data = preparation, most, data
        self.options: dict[str, Any] | None = None  # of code from outside: what it was called with
        self.at_home = False  # is it opened for the data it was trained on?
        self.doubts: tuple[str, ...] = ()  # what is to be said of all numbers in its features
        self.eval()

    @property
    def filter(self) -> str:
        """How images of another size are resized, and what becomes of their levels."""
        return self.preparation.filter

    @property
    def range(self) -> tuple[float, float]:
        return self.preparation.range

    def record(self) -> dict[str, Any]:
        """All that a feature depends on besides the image, as it stands in a record."""
        repeat = self.preparation.repeat
        gray = f"{self.channels}, gray repeated to {repeat}" if repeat > 1 else self.channels
        outside = {} if self.options is None else {"options": self.options}
        return {
            "name": self.name,
            "sha256": self.sha256,
            **outside,
            "size": [self.height, self.width],
            "channels": gray,
            "filter": self.filter,
            "range": list(self.range),
            "layer": self.layer,
            "features": self.dim,
        }

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [b c h w] -> features [b dim], float32."""
        if images.dtype != torch.uint8:
            raise TypeError(
                f"encoder {self.name} takes uint8 images in 0..255, got {images.dtype}: "
                "round with diffuse.data.to_uint8, which knows the range"
            )
        if images.ndim != 4:
            raise ValueError(f"images must be [b c h w], got shape {[*images.shape]}")
        if images.shape[1] != self.channels:
            raise ValueError(wrong_channels(self.name, self.channels, f"{images.shape[1]}"))
        x, size = images.float(), (self.height, self.width)
        if x.shape[-2:] != size:
            x = self.preparation.resize(x, size)
        x = self.preparation.scale(x).repeat(1, self.preparation.repeat, 1, 1)
        return self.net(x.to(memory_format=self.layout)).float()


@torch.no_grad()
def encode(
    encoder: Encoder,
    images: Tensor,  # uint8 [n c h w]
    batch: int = 256,
    numbers: Sequence[int] | None = None,  # of the images, for errors; None: from 0
) -> Tensor:
    """Features [n dim] on the CPU.

    The network always sees `batch` images (or `encoder.most`, if that is less), the last time
    padded with black ones: convolutions of other shapes differ in the last bits, and a feature must
    not depend on how many there are. All arithmetic is float32, on a GPU too: in bfloat16 the
    shipped classifier is twice as fast, and FIDs of n=2,000 moved by up to 0.3%.
    """
    encoder.eval()
    if not len(images):
        raise ValueError("there are no images to encode")
    weights = itertools.chain(encoder.parameters(), encoder.buffers())
    device = next((tensor.device for tensor in weights), images.device)
    features, batch = [], min(batch, encoder.most)
    said = time.monotonic()
    with _exact():
        for number, some in enumerate(images.split(batch)):
            if time.monotonic() - said > PATIENCE:
                log.info("encoder %s: %d of %d images", encoder.name, number * batch, len(images))
                said = time.monotonic()
            full = F.pad(some, [0] * 7 + [batch - len(some)])
            features.append(encoder(full.to(device))[: len(some)].cpu())
    if wrong := [[*f.shape] for f in features if f.shape[1:] != (encoder.dim,)]:
        shape = f"[b {encoder.dim}]"
        raise DataError(f"encoder {encoder.name}: features must be {shape}, got {wrong[0]}")
    found = torch.cat(features)
    if not (finite := found.isfinite().all(1)).all():
        row = int((~finite).nonzero()[0])
        row = row if numbers is None else numbers[row]
        raise DataError(
            f"encoder {encoder.name}: features must be finite, of image {row} they are not"
        )
    return found


@contextmanager
def _exact() -> Iterator[None]:
    """No autocast of the caller's, and float32 that is not rounded to TF32."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def wrong_channels(name: str, channels: int, given: str) -> str:
    """What to say of images that have another number of channels than the encoder takes."""
    return f"encoder {name} takes images of {channels} channel{'s' * (channels != 1)}, {given}"
