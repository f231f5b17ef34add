"""What `reference=` names: mean and covariance of features, or images that are encoded here."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffuse import features, foreign
from diffuse.data import ImageSet, ImageSpec
from diffuse.encoders import Encoder
from diffuse.encoders.encoder import wrong_channels
from diffuse.errors import DataError
from diffuse.foreign import OF_TENSORS, Images, Statistics, read_tensors
from diffuse.foreign.images import KEYS
from diffuse.metrics import Moments
from diffuse.scoring import Rows


@dataclass(frozen=True)
class Pictured(Statistics):
    """A reference of which the images are known, too."""

    rows: Rows
    doubts: tuple[str, ...] = ()  # of `Images`


def read(path: str, encoder: Encoder, size: Sequence[int], measured: bool) -> Statistics:
    """Statistics of as many features as the encoder makes, or of images that it takes.

    Images of another `size` (height, width) than those to be scored are a DataError. If they are
    not to be `measured` yet, their moments mean nothing.
    """
    if not _holds_images(Path(path)):
        return foreign.read_statistics(path, encoder.dim)
    given = _for_encoder(foreign.read_images(path), encoder)
    if len(given.images) < 2:
        raise DataError(f"{given.source} is 1 image, a reference takes 2 at least")
    _refuse_another_size(given.source, given.images, size)
    n, d = len(given.images), encoder.dim
    table = _features(encoder, given) if measured else torch.empty(n, 0)
    moments = Moments.of(table) if measured else Moments(n, torch.zeros(d), torch.zeros(d, d))
    rows = Rows(given.images, table)
    return Pictured(moments, n, given.sha256, given.source, rows, given.doubts)


def _refuse_another_size(source: str, images: Tensor, size: Sequence[int]) -> None:
    """DataError if the images [n c h w] of a reference are not of this height and width."""
    (h, w), (height, width) = images.shape[-2:], size
    if (h, w) != (height, width):
        raise DataError(
            f"reference: {source} holds images of {h}x{w}, those that are scored are of "
            f"{height}x{width}: bring them to one size"
        )


def _holds_images(path: Path) -> bool:
    """Is it a folder, or a file of one entry, or of one that is called as images are, without mu
    and sigma? Who reads statistics names what it is not.
    """
    kind = path.suffix.lower()
    if path.is_dir() or not path.is_file() or kind not in (".npy", ".npz", *OF_TENSORS):
        return path.is_dir()
    names = [*read_tensors(path, numbers=True)] if kind in OF_TENSORS else []
    if kind == ".npz":
        try:
            with zipfile.ZipFile(path) as file:
                names = [name.removesuffix(".npy") for name in file.namelist()]
        except (OSError, zipfile.BadZipFile):
            return False
    named = len(names) < 2 or not set(KEYS).isdisjoint(names)
    return named and not {"mu", "sigma"}.intersection(names)


def _for_encoder(given: Images, encoder: Encoder) -> Images:
    """Images of as many channels as the encoder takes: in RGB they may be gray all the same."""
    channels = given.images.shape[1]
    if channels == encoder.channels:
        return given
    gray = foreign.as_gray(given) if encoder.channels == 1 else None
    if gray is None:
        wrong = wrong_channels(encoder.name, encoder.channels, f"{given.source} has {channels}")
        raise DataError(wrong)
    return gray


def _features(encoder: Encoder, given: Images) -> Tensor:
    """Features [n dim] of all images, from the cache where they were computed before."""
    n, c, h, w = given.images.shape
    spec = ImageSpec("reference", c, h, w, h, w, "none", ())
    no_labels = torch.full((n,), -1)
    images = ImageSet(spec, given.images, no_labels, given.sha256, given.source, flip=False)
    return features.of(encoder, images, torch.arange(n), n)
