"""What is done to images on their way to a FID, and how far each of it moves the FID of real ones.

Every treatment is of one side only, as in a comparison with statistics that someone else computed.
"""

import copy
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from diffuse.data import as_levels, unfit
from diffuse.encoders import Encoder, encode, resizing
from diffuse.errors import reason
from diffuse.metrics import Estimate, Moments, blocks_for
from diffuse.metrics.gaussian import jackknifed
from diffuse.metrics.intervals import around
from diffuse.scoring.rows import Judge, shuffled
from diffuse.seeds import generator

Size = tuple[int, int]  # height, width
Change = Callable[[Tensor], Tensor]  # of uint8 images [n c h w]

UNTOUCHED = "untouched"
EXAMPLES = 4  # images that are shown
QUALITIES = (95, 75)  # of JPEG: few artefacts, and Pillow's default
FILTERS = {  # of encoders
    "clean-fid's bicubic": resizing.bicubic,
    "bilinear antialias": resizing.antialiased,
    "bilinear": resizing.half_pixel,
    "TensorFlow 1's bilinear": resizing.tensorflow1,
}


@dataclass(frozen=True)
class Treatment:
    """One thing that can be done to images before they become features."""

    name: str
    kind: str
    change: Change | None = None  # of the pixels
    prepared: Callable[[Encoder], Encoder] | None = None  # the encoder that sees them
    both: bool = False  # does it see the reference, too?


@dataclass(frozen=True)
class Effect:
    """What a treatment does to the FID."""

    treatment: Treatment
    fid: Estimate
    change: Estimate  # minus that of the untouched images; the same blocks of both are left out
    levels: float  # mean absolute change of a pixel, in grey levels
    examples: Tensor  # uint8 [k c h w], the first k images

    def record(self) -> dict[str, Any]:
        """As it stands in a record."""
        about = {"name": self.treatment.name, "kind": self.treatment.kind}
        difference = {"change": self.change.value, "change_ci95": [*self.change[1:]]}
        return about | {"fid": self.fid.record()} | difference | {"levels": self.levels}


def treatments(size: Size, encoder: Encoder, seed: int = 0) -> list[Treatment]:
    """All that the encoder can do, for images of this size; the first one is that nothing is."""
    found = [Treatment(UNTOUCHED, "nothing")]
    for way in (_scaled(size, 8 / 7), _scaled(size, 6 / 7)):
        there = " -> ".join(str(height) for height in (size[0], way[0], size[0]))
        for name, resize in RESIZES.items():
            change = partial(_there_and_back, resize, way)
            found.append(Treatment(f"{name}, {there}", f"resized {there}", change))
    for quality in QUALITIES:
        found.append(Treatment(f"JPEG, quality {quality}", "JPEG", partial(jpeg, quality=quality)))
    found.append(Treatment("rounded", "to 8 bits", partial(rounded, seed=seed)))
    found.append(Treatment("truncated", "to 8 bits", partial(truncated, seed=seed)))
    if (encoder.height, encoder.width) != size:
        for name, resize in FILTERS.items():
            if resize is not encoder.preparation.resize:
                other = partial(_resizing, resize=resize, name=name)
                found.append(Treatment(f"encoder: {name}", "encoder's resize", prepared=other))
    if no_half(encoder) is None:
        half = Treatment("bfloat16 encoder", "half precision", prepared=in_half)
        found += [half, replace(half, name="bfloat16, reference too", both=True)]
    return found


def effects(judge: Judge, n: int, seed: int = 0) -> Iterator[Effect]:
    """The FID of n training images against the test split, with each treatment, one by one.

    They are the images of the floor of an evaluation, so the first FID is that floor.
    """
    order = shuffled(judge.train)[:n]
    images = unfit(judge.train.batch(order).cpu(), judge.train.spec)
    before: list[float] = []
    for treatment in treatments((images.shape[2], images.shape[3]), judge.encoder, seed):
        treated = images if treatment.change is None else treatment.change(images)
        values = _fids(judge, treatment, treated)
        before = before or values
        differences = [a - b for a, b in zip(values, before, strict=True)]
        change = (treated.short() - images).abs().double().mean().item()
        fid = around(values[0], values[1:], least=0)
        moved = around(differences[0], differences[1:])
        yield Effect(treatment, fid, moved, change, treated[:EXAMPLES])


def _fids(judge: Judge, treatment: Treatment, images: Tensor) -> list[float]:
    """Of all images, then with each block of a jackknife left out: the same for every treatment."""
    reference, encoder = judge.reference, judge.encoder
    if treatment.prepared:
        encoder = treatment.prepared(encoder)
    if treatment.both:
        reference = encode(encoder, unfit(judge.test.images.cpu(), judge.test.spec))
    table = encode(encoder, images)
    return jackknifed(table, Moments.of(reference), blocks_for(len(table)))


def _scaled(size: Size, factor: float) -> Size:
    """For 28 x 28 images 32 x 32, to which `fit=resize` brings them, and as much less."""
    height, width = (max(1, round(side * factor)) for side in size)
    return height, width


def _there_and_back(resize: Callable[[Tensor, Size], Tensor], way: Size, images: Tensor) -> Tensor:
    height, width = images.shape[2:]
    return resize(resize(images, way), (height, width))


def _interpolated(images: Tensor, size: Size, **how: Any) -> Tensor:
    """By torch, rounded: what is saved in between has 8 bits."""
    return as_levels(F.interpolate(images.float(), size, **how))


def _lanczos(images: Tensor, size: Size) -> Tensor:
    """By Pillow, a channel at a time; torch has none."""
    planes, (height, width) = images.flatten(0, 1).numpy(), size
    resized = [Image.fromarray(p).resize((width, height), Image.Resampling.LANCZOS) for p in planes]
    found = [np.asarray(plane) for plane in resized]
    return torch.from_numpy(np.stack(found)).view(*images.shape[:2], *size)


RESIZES: dict[str, Callable[[Tensor, Size], Tensor]] = {
    "nearest": partial(_interpolated, mode="nearest-exact"),
    "bilinear": partial(_interpolated, mode="bilinear"),
    "bilinear antialias": partial(_interpolated, mode="bilinear", antialias=True),
    "bicubic": partial(_interpolated, mode="bicubic", antialias=True),
    "Lanczos": _lanczos,
}


def jpeg(images: Tensor, quality: int) -> Tensor:
    """Saved as JPEG by Pillow and read again."""
    return torch.stack([_through_jpeg(image, quality) for image in images])


def _through_jpeg(image: Tensor, quality: int) -> Tensor:
    pixels, content = image.permute(1, 2, 0).numpy(), io.BytesIO()
    gray = pixels.shape[2] == 1
    Image.fromarray(pixels[..., 0] if gray else pixels).save(content, "JPEG", quality=quality)
    back = torch.from_numpy(np.array(Image.open(content)))
    return back[None] if gray else back.permute(2, 0, 1)


def rounded(images: Tensor, seed: int = 0) -> Tensor:
    """Of numbers as a network gives them, up to half a level off: they are rounded back."""
    return as_levels(_between(images, seed))


def truncated(images: Tensor, seed: int = 0) -> Tensor:
    """The same numbers without their decimals, as a bare `.astype(uint8)` leaves them."""
    return _between(images, seed).clamp(0, 255).trunc().byte()


def _between(images: Tensor, seed: int) -> Tensor:
    """Levels as a network gives them: anywhere within half a level of the image's."""
    noise = torch.rand(images.shape, generator=generator(seed, "between levels")) - 0.5
    return images + 0.999 * noise  # never just in the middle


def _resizing(encoder: Encoder, resize: resizing.Resize, name: str) -> Encoder:
    """The encoder with another filter."""
    other = copy.copy(encoder)
    other.preparation = replace(encoder.preparation, filter=name, resize=resize)
    return other


def in_half(encoder: Encoder) -> Encoder:
    """The encoder with weights and images in bfloat16."""
    other, scale = copy.deepcopy(encoder), encoder.preparation.scale
    other.net.to(torch.bfloat16)
    to_half = lambda levels: scale(levels).bfloat16()  # noqa: E731
    other.preparation = replace(encoder.preparation, scale=to_half)
    return other


def no_half(encoder: Encoder) -> str | None:
    """Why the encoder does not compute in bfloat16, if it does not."""
    images = torch.full((1, encoder.channels, encoder.height, encoder.width), 128)
    try:
        encode(in_half(encoder), images.byte(), batch=2)
    except Exception as error:  # code of others may raise anything
        return reason(error)
    return None


def sorted_by_size(found: Sequence[Effect]) -> list[Effect]:
    """Those that move the FID most first; what was not touched is left out."""
    return sorted(found[1:], key=lambda effect: -abs(effect.change.value))
