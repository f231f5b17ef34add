"""The files that `diffuse encoder` writes, and those of them that are shipped."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from diffuse import files, run_folders, runs, sealed
from diffuse.classifier import Classifier, fold
from diffuse.data import ImageSpec
from diffuse.encoders.encoder import Encoder
from diffuse.errors import DataError, reason

ASSETS = Path(__file__).parent.parent / "assets"
FILE = "encoder.safetensors"  # in a run folder of `diffuse encoder`
SCHEMA = 1
NEEDED = {"name", "channels", "height", "width", "classes", "network", "weights"}  # of its facts


def save_encoder(path: Path, net: Classifier, about: Mapping[str, Any]) -> str:
    """Write the weights and what is `about` them; returns the sha256 of the file.

    `about` needs name, channels, height, width and classes. Matrices are stored as float16.
    """
    tensors = {
        key: value.detach().cpu().to(torch.float16 if value.ndim > 1 else value.dtype).contiguous()
        for key, value in net.state_dict().items()
    }
    facts = {"schema": SCHEMA, **about, "network": net.shape, "weights": sealed.digest(tensors)}
    # one key, because safetensors writes several in an order that changes from run to run
    content = save(tensors, {"diffuse": json.dumps(facts)})
    files.replace(path, content)
    return hashlib.sha256(content).hexdigest()


def load_encoder(path: str | Path, sha256: str | None = None) -> Encoder:
    """Read what `save_encoder` wrote; a missing, truncated or altered file is a DataError."""
    file = _locate(path)
    digest = files.sha256(file)
    if sha256 is not None and digest != sha256:
        raise DataError(f"{file} is altered or another edition: sha256 {digest}, not {sha256}")
    tensors, about = _read(file)
    if about.get("weights") != sealed.digest(tensors):
        raise DataError(f"{file} is altered: its weights do not have the sha256 it gives for them")
    try:
        net = Classifier(**about["network"])
        net.load_state_dict({key: value.float() for key, value in tensors.items()})
        fold(net)
        net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        size = (about["channels"], about["height"], about["width"])
        classes = tuple(about["classes"])
        data = tuple(about.get("data", {}).values())
        how: dict[str, Any] = {"data": data, "layout": torch.channels_last}
        made = Encoder(net, about["name"], digest, size, net.dim, net.head, classes, **how)
        made.doubts = doubts(about)
        return made
    except (KeyError, TypeError, RuntimeError) as error:
        raise DataError(
            f"{file} is no encoder of this version of diffuse: {reason(error)}"
        ) from error


def about_encoder(path: str | Path) -> dict[str, Any]:
    """What an encoder's file says of itself: its data, its accuracy, how it was trained."""
    return _read(_locate(path))[1]


def doubts(about: Mapping[str, Any]) -> tuple[str, ...]:
    """What there is to say against an encoder that learnt too little to judge images by.

    It is right less often than halfway, in factors, from chance to always: of 2 classes 71%, of 10
    32%, of 100 10%. Chance is to say always what most test images are, so more where one class is
    of more images than others; files of older versions do not tell.
    """
    share = about.get("test_accuracy")
    chance = about.get("chance", 1 / len(about["classes"]))
    if share is None or share > chance**0.5:
        return ()
    return (
        f"the encoder {about['name']} learnt too little: it is right on {share:.1%} of its test "
        f"images, chance on {chance:.1%}, so numbers in its features say little; train one "
        "for longer with diffuse encoder epochs=",
    )


def trained_here(outputs: Path, spec: ImageSpec, train: str | None = None) -> Iterator[Path]:
    """The runs of `diffuse encoder` on `train`, the sha256 of its images, the newest first.

    Without one, on a data set of this name.
    """
    for folder in reversed(run_folders.every(outputs, "encoder")):
        if not runs.is_done(folder) or runs.read(folder).get("smoke"):
            continue
        try:
            about = about_encoder(folder)
        except DataError:
            continue
        named = about["name"] == f"{spec.name}-classifier"
        found = named if train is None else about.get("data", {}).get("train_sha256") == train
        if found and about["channels"] == spec.channels:
            yield folder


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
        raise DataError(f"{file} is damaged: {reason(error, None)}") from error
    if not isinstance(facts, dict) or facts.get("schema") != SCHEMA or not facts.keys() >= NEEDED:
        raise DataError(
            f"{file} is no encoder of this version of diffuse: train one with diffuse encoder"
        )
    return tensors, facts
