"""What other tools wrote: images, statistics, weights. Nothing in a file is ever run.

Whatever could only be used by guessing is refused with a DataError of one line.
"""

import hashlib
import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from diffuse import files
from diffuse.data.decoding import decode
from diffuse.errors import DataError
from diffuse.metrics import Moments

log = logging.getLogger(__name__)
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
LOSSY = (".jpg", ".jpeg", ".webp")
KEYS = ("images", "arr_0", "samples")  # what others call the images of an .npz
ROUND = "round it yourself, e.g. (x * 255).round().clip(0, 255).astype('uint8') if x is in [0, 1]"


@dataclass(frozen=True, eq=False)
class Images:
    """Images that another tool made, in the order of their names."""

    images: Tensor  # uint8 [n c h w], c = 1 (gray) or 3 (RGB)
    sha256: str  # of their shape and pixels, so that PNG files and an array give the same
    source: str  # where they came from, for people


@dataclass(frozen=True)
class Statistics:
    """Mean and covariance that another tool computed of features."""

    moments: Moments
    n: int | None  # images; None: the file does not say, and `moments` counts 2 instead
    sha256: str  # of the file
    source: str


def read_images(path: str | Path) -> Images:
    """A folder of images (and of folders of them), an .npy or .npz, a .safetensors or a .pt file.

    Arrays must be uint8, [n h w c], [n c h w] or [n h w]; which one, must be clear from the shape.
    """
    path = Path(path)
    if path.is_dir():
        images = _folder(path)
    elif path.suffix in (".npy", ".npz"):
        images = _array(path, _first(path, _load(path)))
    elif path.suffix in (".safetensors", ".pt", ".pth"):
        found = _first(path, read_tensors(path))
        half = found.dtype == torch.bfloat16  # which numpy does not know
        images = _array(path, (found.float() if half else found).numpy())
    elif path.exists():
        raise DataError(f"{path} is no folder of images and no .npy, .npz, .safetensors or .pt")
    else:
        raise DataError(f"no images at {path}")
    digest = hashlib.sha256(repr(tuple(images.shape)).encode())
    digest.update(images.numpy().data)
    return Images(images, digest.hexdigest(), str(path))


def read_statistics(path: str | Path, dim: int | None = None) -> Statistics:
    """An .npz with `mu` [d] and `sigma` [d d], as pytorch-fid, clean-fid and others write it.

    `dim` is how many features there must be. Only the file's author knows with which encoder and
    which resizing they were made.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no statistics at {path}")
    arrays = _load(path)
    for key in ("mu", "sigma"):
        if key not in arrays:
            raise DataError(f"{path} has no {key!r}: it holds {', '.join(arrays) or 'nothing'}")
    mean, covariance = (_numbers(path, key, arrays[key]) for key in ("mu", "sigma"))
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


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of one that torch.save wrote, by name.

    A pickle that asks for anything but tensors and plain containers is refused before it is run.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():  # of an unusual protocol: it is read or it is not
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing") from error
    except pickle.UnpicklingError as error:
        raise DataError(_pickled(path, error)) from error
    except RuntimeError as error:
        if "TorchScript" in str(error):
            raise DataError(f"{path} is a TorchScript program: give a file of tensors") from error
        raise DataError(f"{path} is damaged: {_one_line(error)}") from error
    except (SafetensorError, OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged: {_one_line(error)}") from error
    if isinstance(content, Tensor):
        return {"tensor": content}
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise DataError(f"{path} holds no table of tensors but {type(content).__name__}")
    return {str(key): value for key, value in content.items()}


def _pickled(path: Path, error: Exception) -> str:
    """torch's explanation takes a dozen lines; what matters is the name that the file asks for."""
    asked = re.search(r"GLOBAL ([\w.]+)", str(error))
    if asked or "Unsupported" in str(error):
        what = f"{asked[1]} of " if asked else ""
        return f"{path} needs code to be run ({what}a pickle) and is refused: save tensors only"
    return f"{path} is damaged or no file of tensors: {_one_line(error)}"


def _folder(path: Path) -> Tensor:
    """Sorted so that 2.png comes before 10.png; hidden files and other kinds are left out."""
    files = [file for file in path.rglob("*") if file.is_file() and not _hidden(file, path)]
    images = sorted((f for f in files if f.suffix.lower() in SUFFIXES), key=_natural)
    if not images:
        raise DataError(f"{path} holds no images ({', '.join(s[1:] for s in SUFFIXES)})")
    if len(images) < len(files):
        other = next(f for f in files if f.suffix.lower() not in SUFFIXES)
        log.warning("%d files are no images and left out, e.g. %s", len(files) - len(images), other)
    if lossy := [f for f in images if f.suffix.lower() in LOSSY]:
        log.warning(
            "%d images are compressed with loss, which a FID sees: %s", len(lossy), lossy[0]
        )
    said = "all must have one size"
    return decode(len(images), lambda i: images[i], lambda i: str(images[i]), None, advice=said)


def _hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def _natural(file: Path) -> list[list[tuple[int, str]]]:
    """Numbers by value, letters by letter, folder by folder."""
    return [
        [(int(word), word) if word.isdigit() else (0, word) for word in re.split(r"(\d+)", part)]
        for part in file.parts
    ]


def _load(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file; of an .npy, one whose name is empty. Object arrays are pickles."""
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return {"": content}
        with content:
            return {key: content[key] for key in content.files}
    except FileNotFoundError as error:
        raise DataError(f"no file {path}") from error
    except ValueError as error:
        if "allow_pickle" in str(error) or "pickled" in str(error):
            raise DataError(f"{path} needs code to be run (a pickle) and is refused") from error
        raise DataError(f"{path} is damaged: {_one_line(error)}") from error
    except Exception as error:  # a damaged archive makes zipfile and zlib raise nearly anything
        raise DataError(f"{path} is damaged: {_one_line(error)}") from error


def _first(path: Path, found: Mapping[str, Any]) -> Any:
    """The only entry, or the one that is called as images are."""
    for key in KEYS:
        if key in found:
            return found[key]
    if len(found) == 1:
        return next(iter(found.values()))
    raise DataError(f"{path} holds {', '.join(found) or 'nothing'}; images must be {KEYS[0]!r}")


def _array(path: Path, array: np.ndarray) -> Tensor:
    shape = list(array.shape)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{path}: some of its values are not finite (NaN or infinity)")
    if array.dtype.kind == "f":
        raise DataError(f"{path} is {array.dtype}, and its range would be a guess: {ROUND}")
    if array.dtype != np.uint8:
        raise DataError(f"{path} is {array.dtype}, images are uint8 in 0..255")
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4 or not array.size:
        raise DataError(f"{path} is {shape}, images are [n h w c], [n c h w] or [n h w]")
    first, last = (array.shape[axis] in (1, 3) for axis in (1, 3))
    if len(shape) == 4 and first == last:
        why = "could be [n h w c] or [n c h w]" if first else "has neither 1 nor 3 channels"
        raise DataError(f"{path} is {shape}, which {why}: save it so that one axis is the channels")
    images = torch.from_numpy(np.ascontiguousarray(array))
    return images if first else images.permute(0, 3, 1, 2).contiguous()


def _numbers(path: Path, key: str, array: np.ndarray) -> Tensor:
    if array.dtype.kind != "f":
        raise DataError(f"{path}: {key} must be floats, got {array.dtype}")
    if not np.isfinite(array).all():
        raise DataError(f"{path}: some values of {key} are not finite (NaN or infinity)")
    return torch.from_numpy(array.astype(np.float64))


def _check_covariance(path: Path, sigma: Tensor) -> None:
    """Symmetric, up to the rounding of float32, and as large on its diagonal as anywhere."""
    deviations = sigma.diagonal().clamp(min=0).sqrt()
    largest = torch.outer(deviations, deviations)
    slack = 1e-5 * float(sigma.abs().max())
    if float((sigma - sigma.T).abs().max()) > slack:
        raise DataError(f"{path}: sigma is no covariance, it is not symmetric")
    if (sigma.diagonal() < -slack).any() or (sigma.abs() > largest + slack).any():
        raise DataError(f"{path}: sigma is no covariance, some correlation is beyond 1")


def _count(path: Path, arrays: Mapping[str, np.ndarray]) -> int | None:
    if "n" not in arrays:
        return None
    n = arrays["n"]
    if n.ndim or n.dtype.kind not in "iu" or n < 2:
        raise DataError(f"{path}: n must be a number of images, at least 2")
    return int(n)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
