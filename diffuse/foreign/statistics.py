"""Mean and covariance that another tool computed."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffuse import files
from diffuse.errors import DataError
from diffuse.foreign.reading import Entry, entries_of, wanted
from diffuse.metrics import Moments

MOST_IMAGES = 2**53  # more cannot be counted in float64
LARGEST = 1e100  # of a mean or covariance: the square of it is still a number


@dataclass(frozen=True)
class Statistics:
    """Mean and covariance of features, as far as a reference is known."""

    moments: Moments
    n: int | None  # images; None: the file does not say, and `moments` counts 2 instead
    sha256: str  # of the file, or of the images
    source: str


def read_statistics(path: str | Path, dim: int | None = None) -> Statistics:
    """An .npz with `mu` [d] and `sigma` [d d], as pytorch-fid, clean-fid and others write it.

    Tensors of these names in a .pt or .safetensors are as good. The number of images, `n`, may be
    beside them. `dim` is how many features there must be. Only the file's author knows with which
    encoder and which resizing they were made.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no statistics at {path}")
    arrays = entries_of(path)
    for key in ("mu", "sigma"):
        if key not in arrays:
            raise DataError(_lacking(path, key, arrays))
    mean, covariance = (_numbers(path, key, wanted(path, arrays[key])) for key in ("mu", "sigma"))
    d = mean.numel()
    if mean.shape != (d,) or covariance.shape != (d, d) or not d:
        shapes = f"{[*mean.shape]} and {[*covariance.shape]}"
        raise DataError(f"{path}: mu and sigma must be [d] and [d d], got {shapes}")
    if dim is not None and d != dim:
        raise DataError(f"{path} is about {d} features, the encoder makes {dim}")
    _check_covariance(path, covariance)
    n = _count(path, arrays)
    symmetric = (covariance + covariance.T) / 2
    return Statistics(Moments.known(n or 2, mean, symmetric), n, files.sha256(path), str(path))


def _lacking(path: Path, key: str, arrays: Mapping[str, Entry]) -> str:
    """What to say of a file without an entry that statistics have."""
    give = "give images, or a file of mu and sigma"
    for entry in arrays.values():
        if isinstance(entry, np.ndarray) and entry.ndim > 2:
            shape = f"{entry.dtype} {[*entry.shape]}"
            return f"{path} is an array of images ({shape}), not statistics: {give}"
    held = ", ".join(name or "an array without a name" for name in arrays) or "nothing"
    return f"{path} has no {key!r}: it holds {held}; {give}"


def _numbers(path: Path, key: str, array: np.ndarray) -> Tensor:
    if array.dtype.kind != "f":
        raise DataError(f"{path}: {key} must be floats, got {array.dtype}")
    if not np.isfinite(array).all():
        raise DataError(f"{path}: some values of {key} are not finite (NaN or infinity)")
    if float(np.abs(array).max(initial=0)) > LARGEST:
        raise DataError(f"{path}: some values of {key} are beyond {LARGEST:g}, no features are")
    return torch.from_numpy(array.astype(np.float64))


def _check_covariance(path: Path, sigma: Tensor) -> None:
    """Symmetric, as large on its diagonal as anywhere, and no eigenvalue below 0.

    All up to the rounding of float32. Of 500 images and 2048 features the lowest eigenvalue was
    -1e-8 of the largest when saved in float32, -1e-7 when computed in it, and -1.4e-6 when computed
    as E[x x^T] - E[x] E[x]^T.
    """
    deviations = sigma.diagonal().clamp(min=0).sqrt()
    largest = torch.outer(deviations, deviations)
    slack = 1e-5 * float(sigma.abs().max())
    if float((sigma - sigma.T).abs().max()) > slack:
        raise DataError(f"{path}: sigma is no covariance, it is not symmetric")
    if (sigma.diagonal() < -slack).any() or (sigma.abs() > largest + slack).any():
        raise DataError(f"{path}: sigma is no covariance, some correlation is beyond 1")
    eigenvalues = torch.linalg.eigvalsh((sigma + sigma.T) / 2)  # by size
    if float(eigenvalues[0]) < -1e-5 * float(eigenvalues[-1]):
        raise DataError(f"{path}: sigma is no covariance, some features together vary less than 0")


def _count(path: Path, arrays: Mapping[str, Entry]) -> int | None:
    if "n" not in arrays:
        return None
    n = wanted(path, arrays["n"])
    number = n.item() if n.size == 1 and n.dtype.kind in "iuf" else 0
    if not isfinite(number) or number != int(number) or not 2 <= number <= MOST_IMAGES:
        raise DataError(f"{path}: n must be a number of images, at least 2")
    return int(number)
