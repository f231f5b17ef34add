"""The encoders that a config can name, and the one door through which an encoder is opened.

A yaml in `conf/encoder/` names a public function whose first parameter is `spec`.
"""

import hashlib
import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from diffuse import config
from diffuse.classifier import centred
from diffuse.data import ImageSpec
from diffuse.encoders import resizing
from diffuse.encoders.encoder import ANTIALIASED, Encoder, Preparation, wrong_channels
from diffuse.encoders.inception import FEATURES, LOGITS, SIDE
from diffuse.encoders.own import wrapped
from diffuse.encoders.published import load_inception
from diffuse.encoders.trained import about_encoder, doubts, load_encoder, trained_here
from diffuse.errors import ConfigError

log = logging.getLogger("diffuse.encoders")
OWN = "say which module of yours: encoder.name=my_package.module:Net trust=my_package"
TRAIN = (
    "train one with `diffuse encoder` and the same words of dataset= as this data has, and "
    "encoder=auto finds it"
)


def open_encoder(
    node: Mapping[str, Any],
    spec: ImageSpec,
    outputs: str | None = None,  # whose encoder runs `auto` may take
    data: Sequence[str] = (),  # sha256 of the training and the test images, if there is a data set
) -> Encoder:
    """The encoder that a `conf/encoder/` node describes, for images like these.

    A `name` from outside, `my_package.module:Net`, may be an `Encoder` or any module (`wrapped`).
    """
    own, takes_spec = _own(node)
    given: dict[str, Any] = {"spec": spec} if takes_spec else {}
    if own["name"] == "auto":
        given |= {"outputs": outputs, "data": data}
    if not _is_foreign(node):
        encoder = config.build("encoder", own, **given)
        encoder.at_home = not set(data).isdisjoint(encoder.data)
        for line in encoder.doubts:
            log.warning("%s", line)
        return encoder
    call = config.bind("encoder", own)
    assert isinstance(call, partial)
    try:
        make = partial(config.build, "encoder", own, **given)
        return wrapped(make, call, str(own["name"]), spec)
    except ValueError as error:
        raise ConfigError(f"encoder: {error}") from error


def check_encoder(node: Mapping[str, Any]) -> None:
    """Everything that `open_encoder` can refuse without looking at a file or an image."""
    own, takes_spec = _own(node)
    config.bind("encoder", own, *(["spec"] if takes_spec else []))
    if own["name"] == "own":
        raise ConfigError(f"encoder: {OWN}")


def _own(node: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """The node without what `encoder=auto` left in it, and whether its function takes `spec`."""
    if not _is_foreign(node):
        return node, True
    if "shipped" in node:  # only the name was given, over the default choice
        node = {k: node[k] for k in node if k not in ("shipped", "size")}
    call = config.bind("encoder", {"name": node["name"]})
    return node, "spec" in inspect.signature(call).parameters


def _is_foreign(node: Mapping[str, Any]) -> bool:
    return ":" in str(node.get("name"))


def auto(
    spec: ImageSpec,
    shipped: Mapping[str, str],  # data set -> sha256 of its encoder in diffuse/assets/
    size: int,  # of `pixels`, where there is none
    outputs: str | None = None,  # whose encoders count, too
    data: Sequence[str] = (),  # sha256 of the training and the test images; () if none are known
) -> Encoder:
    """The encoder of this data, shipped or the newest that was trained here; else one of data of
    this name and these channels; else `pixels` with a warning. One that learnt too little is
    passed over.
    """
    known = spec.name in shipped and about_encoder(spec.name)["channels"] == spec.channels
    ours = classifier(spec, spec.name, shipped[spec.name]) if known else None
    if ours and (not data or not set(data).isdisjoint(ours.data)):
        return ours
    trained = Path(outputs) if outputs else None
    weak: list[Path] = []
    folder = _worthy(trained_here(trained, spec, data[0]), weak) if trained and data else None
    if folder is None and ours:
        return ours  # of other images that are called the same: an evaluation says so
    if folder is None and trained:
        folder = _worthy(trained_here(trained, spec), weak)
    if folder:
        share = about_encoder(folder)["test_accuracy"]
        log.info("encoder %s, %.1f%% of its test images right", folder, 100 * share)
        return classifier(spec, str(folder), None)
    advice = TRAIN if data else "encoder=inception is there for images of any kind"
    plain = pixels(spec, size)
    plain.doubts = (
        f"no encoder is shipped for {spec.name}: FID and KID compare {size}x{size} PIXELS and say "
        f"little about what the images look like; {advice}",
    )
    return plain


def _worthy(found: Iterator[Path], weak: list[Path]) -> Path | None:
    """The first that learnt enough; each before it gets a line, and a place among the weak."""
    for folder in found:
        said = doubts(about_encoder(folder))
        if not said:
            return folder
        if folder not in weak:
            weak.append(folder)
            log.warning("%s is passed over: %s", folder, *said)
    return None


def pixels(spec: ImageSpec, size: int) -> Encoder:
    """No network at all: the pixels of the image shrunk to `size` x `size`."""
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    definition = f"pixels {size}x{size}, {ANTIALIASED.filter}, range {ANTIALIASED.range}"
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
        raise ValueError(wrong_channels(encoder.name, encoder.channels, given))
    return encoder


def inception(
    spec: ImageSpec,
    path: str | None,  # a file of weights, .safetensors or PyTorch's
    sha256: str | None,  # that the file must have
    resize: Literal["tf", "pytorch_fid", "clean"],
) -> Encoder:
    """Inception-v3 as FID was defined with it (Heusel et al., 2017), pool3; gray is repeated.

    Its logits are without bias: the score of Salimans et al. (2016) was published so.
    """
    if not path:
        raise ValueError(
            "path must name a file of weights that you have, e.g. "
            "encoder.path=pt_inception-2015-12-05-6726825d.pth"
        )
    if spec.channels not in (1, 3):
        raise ValueError(wrong_channels("inception", 3, f"{spec.name} has {spec.channels}"))
    net, name, digest = load_inception(Path(path), sha256)
    preparation = replace(RESIZES[resize], repeat=3 // spec.channels)
    size = (spec.channels, SIDE, SIDE)
    how: dict[str, Any] = {"preparation": preparation, "layer": "pool3", "most": MOST}
    how["layout"] = torch.channels_last
    head = nn.Linear(FEATURES, LOGITS, bias=False)
    head.weight = net.head.weight
    return Encoder(net, name, digest, size, FEATURES, head, **how)


def own(spec: ImageSpec) -> Encoder:
    """A place for a `name` from outside, without keys of another encoder."""
    raise ValueError(OWN)


def _shifted(levels: Tensor) -> Tensor:
    """As TensorFlow's graph has it: 255 becomes 0.992."""
    return (levels - 128) / 128


MOST = 32  # images of 299 x 299 at once: each takes 20 MB on its way
SHIFTED = (-1.0, 127 / 128)
RESIZES = {
    "tf": Preparation(
        "TensorFlow 1 bilinear, no antialias", resizing.tensorflow1, _shifted, SHIFTED
    ),
    "pytorch_fid": Preparation(
        "bilinear, half-pixel centres, no antialias", resizing.half_pixel, centred, (-1.0, 1.0)
    ),
    "clean": Preparation("Pillow bicubic antialias, clipped", resizing.bicubic, _shifted, SHIFTED),
}
