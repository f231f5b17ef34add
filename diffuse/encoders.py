"""Encoders: images in, features out. FID and KID are distances between two tables of features.

Each public function that begins with `spec` is one `conf/encoder/` yaml. Whatever the encoder, it
takes uint8 only and does the resizing and the scaling itself, so no caller can get a range wrong.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from diffuse import files
from diffuse.classifier import Classifier, centred
from diffuse.data import ImageSpec
from diffuse.errors import DataError

log = logging.getLogger(__name__)

ASSETS = Path(__file__).parent / "assets"
FILE = "encoder.safetensors"  # in a run folder of `diffuse encoder`
SCHEMA = 1


class Encoder(nn.Module):
    """uint8 images [b c h w] of any size -> float32 features [b dim].

    `head`, where there is one, turns features into logits over `classes`.
    """

    filter = "bilinear antialias"  # how images of another size are resized, in float32, unrounded
    range = (-1.0, 1.0)  # what `net` sees

    def __init__(
        self,
        net: nn.Module,  # float32 [b channels height width] in [-1, 1] -> [b dim]
        name: str,
        sha256: str,  # of the file the weights came from, or of the definition if there are none
        size: tuple[int, int, int],  # channels, height, width
        dim: int,
        head: nn.Module | None = None,
        classes: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.net, self.head, self.classes = net, head, classes
        self.name, self.sha256, self.dim = name, sha256, dim
        self.channels, self.height, self.width = size
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        if images.dtype != torch.uint8:
            raise TypeError(
                f"encoder {self.name} takes uint8 images in 0..255, got {images.dtype}: "
                "round with diffuse.data.to_uint8, which knows the range"
            )
        if images.ndim != 4:
            raise ValueError(f"images must be [b c h w], got shape {[*images.shape]}")
        if images.shape[1] != self.channels:
            raise ValueError(_wrong_channels(self.name, self.channels, f"{images.shape[1]}"))
        x, size = images.float(), (self.height, self.width)
        if x.shape[-2:] != size:
            x = F.interpolate(x, size, mode="bilinear", antialias=True)
        return self.net(centred(x)).float()


@torch.no_grad()
def encode(encoder: Encoder, images: Tensor, batch: int = 256) -> Tensor:
    """Features [n dim] on the CPU of uint8 images [n c h w].

    The network always sees `batch` images, the last time padded with black ones: convolutions of
    other shapes differ in the last bits, and a feature must not depend on how many there are.
    """
    encoder.eval()
    if not len(images):
        raise ValueError("there are no images to encode")
    device = next((p.device for p in encoder.parameters()), images.device)
    features = []
    for some in images.split(batch):
        full = F.pad(some, [0] * 7 + [batch - len(some)])
        features.append(encoder(full.to(device))[: len(some)].cpu())
    return torch.cat(features)


def auto(
    spec: ImageSpec,
    shipped: Mapping[str, str],  # data set -> sha256 of its encoder in diffuse/assets/
    size: int,  # of `pixels`, where nothing is shipped
) -> Encoder:
    """The encoder that is shipped for this data set, else `pixels` with a warning."""
    if spec.name in shipped:
        return classifier(spec, spec.name, shipped[spec.name])
    log.warning(
        "no encoder is shipped for %s: FID and KID compare %dx%d PIXELS and say little about what "
        "the images look like; train one with `diffuse encoder dataset=...`, then add "
        "encoder=classifier encoder.path=<its run folder>",
        *(spec.name, size, size),
    )
    return pixels(spec, size)


def pixels(spec: ImageSpec, size: int) -> Encoder:
    """No network at all: the pixels of the image shrunk to `size` x `size`."""
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    definition = f"pixels {size}x{size}, {Encoder.filter}, range {Encoder.range}"
    digest = hashlib.sha256(definition.encode()).hexdigest()
    dim = spec.channels * size * size
    return Encoder(nn.Flatten(), "pixels", digest, (spec.channels, size, size), dim)


def classifier(
    spec: ImageSpec,
    path: str | None,  # a name in diffuse/assets/, a .safetensors file, or a run folder
    sha256: str | None,  # that the file must have
) -> Encoder:
    """The features of a classifier that `diffuse encoder` trained."""
    if not path:
        raise ValueError(
            "path must name a .safetensors file or a run folder, e.g. "
            "encoder.path=outputs/encoder/cifar10/latest"
        )
    encoder = load_encoder(path, sha256)
    if encoder.channels != spec.channels:
        given = f"{spec.name} has {spec.channels}"
        raise ValueError(_wrong_channels(encoder.name, encoder.channels, given))
    return encoder


def save_encoder(path: Path, net: Classifier, about: Mapping[str, Any]) -> str:
    """Write the weights and what is `about` them; returns the sha256 of the file.

    `about` needs name, channels, height, width and classes. Matrices are stored as float16.
    """
    tensors = {
        key: value.detach().cpu().to(torch.float16 if value.ndim > 1 else value.dtype).contiguous()
        for key, value in net.state_dict().items()
    }
    facts = {"schema": SCHEMA, **about, "network": net.shape, "weights": _digest(tensors)}
    # one key, because safetensors writes several in an order that changes from run to run
    content = save(tensors, {"diffuse": json.dumps(facts)})
    files.replace(path, content)
    return hashlib.sha256(content).hexdigest()


def load_encoder(path: str | Path, sha256: str | None = None) -> Encoder:
    """Read what `save_encoder` wrote; a missing, truncated or altered file is a DataError."""
    file = _locate(path)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if sha256 is not None and digest != sha256:
        raise DataError(f"{file} is altered or another edition: sha256 {digest}, not {sha256}")
    tensors, about = _read(file)
    if about.get("weights") != _digest(tensors):
        raise DataError(f"{file} is altered: its weights do not have the sha256 it gives for them")
    try:
        net = Classifier(**about["network"])
        net.load_state_dict({key: value.float() for key, value in tensors.items()})
        size = (about["channels"], about["height"], about["width"])
        classes = tuple(about["classes"])
        return Encoder(net, about["name"], digest, size, net.dim, net.head, classes)
    except (KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{file} is no encoder of this version of diffuse: {reason}") from error


def about_encoder(path: str | Path) -> dict[str, Any]:
    """What an encoder's file says of itself: its data, its accuracy, how it was trained."""
    return _read(_locate(path))[1]


def _locate(path: str | Path) -> Path:
    shipped = ASSETS / f"{path}.safetensors"
    file = shipped if shipped.parent == ASSETS and shipped.is_file() else Path(path)
    if file.is_dir():
        file = file / FILE
    if not file.is_file():
        raise DataError(f"no encoder at {file}: give a .safetensors file or a run folder of one")
    return file


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the facts of a file, neither of which can run code."""
    try:
        with safe_open(file, "pt") as content:
            facts = json.loads((content.metadata() or {}).get("diffuse", "{}"))
            tensors = {key: content.get_tensor(key) for key in sorted(content.keys())}
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise DataError(f"{file} is damaged: {' '.join(str(error).split())}") from error
    if facts.get("schema") != SCHEMA:
        raise DataError(
            f"{file} is no encoder of this version of diffuse: train one with diffuse encoder"
        )
    return tensors, facts


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(tensors.items()):
        digest.update(f"{key} {value.dtype} {[*value.shape]}".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def _wrong_channels(name: str, channels: int, given: str) -> str:
    return f"encoder {name} takes images of {channels} channel{'s' * (channels != 1)}, {given}"
