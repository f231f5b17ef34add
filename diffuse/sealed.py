"""Tensors in files that carry their sha256 in their name: a damaged one is found and left out."""

import contextlib
import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from diffuse import files

log = logging.getLogger(__name__)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of the names, types, shapes and values of tensors."""
    digest = hashlib.sha256()
    for key, value in sorted(tensors.items()):
        digest.update(f"{key} {value.dtype} {[*value.shape]}".encode())
        # as bytes: numpy has no bfloat16
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write(folder: Path, stem: str, tensors: Mapping[str, Tensor]) -> Path:
    """folder/<stem>-<sha256 of the content>.safetensors, whole or not at all."""
    content = save({key: value.cpu().contiguous() for key, value in tensors.items()})
    digest = hashlib.sha256(content).hexdigest()
    return files.replace(folder / f"{stem}-{digest}.safetensors", content)


def read(path: Path) -> dict[str, Tensor] | None:
    """What `write` wrote; None if it is gone, or damaged: then it is deleted, with a warning."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content).hexdigest() == path.stem.rpartition("-")[2]:
        return load(content)
    log.warning("%s is damaged (its sha256 is another one): it is made again", path)
    with contextlib.suppress(OSError):
        path.unlink()
    return None


def find(folder: Path, stem: str) -> dict[str, Tensor] | None:
    """The tensors that are there under a stem, if any are."""
    for path in sorted(folder.glob(f"{stem}-*.safetensors")):
        if (tensors := read(path)) is not None:
            with contextlib.suppress(OSError):
                os.utime(path)  # it was of use
            return tensors
    return None


def used(path: Path) -> float:
    """When something was last of use, in seconds; long ago if it is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
