"""Arrays and tensors out of files: by name, and whatever asks for code to be run is left unread."""

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from diffuse.errors import DataError, reason

OF_TENSORS = (".safetensors", ".pt", ".pth")  # suffixes of what `read_tensors` reads
PICKLE = "needs code to be run (a pickle) and is refused"


class Unread(str):
    """Why an entry of a file cannot be read: only who wants that entry has to know."""


Entry = np.ndarray | Unread


def read_tensors(path: Path, numbers: bool = False) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of one that torch.save wrote, by name.

    A pickle that asks for anything but tensors and plain containers is refused before it is run.
    `numbers` of Python beside them count as tensors [].
    """
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():  # of an unusual protocol: it is read or it is not
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing") from error
    except pickle.UnpicklingError as error:
        raise DataError(_pickled(path, error)) from error
    except Exception as error:  # of a damaged pickle torch's reader raises nearly anything
        if isinstance(error, RuntimeError) and "TorchScript" in str(error):
            raise DataError(f"{path} is a TorchScript program: give a file of tensors") from error
        raise DataError(f"{path} is damaged: {reason(error)}") from error
    if isinstance(content, Tensor):
        return {"tensor": content}
    if not isinstance(content, Mapping):
        raise DataError(f"{path} holds no table of tensors but {type(content).__name__}")
    found = {str(key): value for key, value in content.items()}
    if numbers:
        found |= {key: torch.tensor(value) for key, value in found.items() if _is_number(value)}
    for key, value in found.items():
        if not isinstance(value, Tensor):
            raise DataError(f"{path} holds no table of tensors: {key} is {type(value).__name__}")
    return found


def _is_number(value: Any) -> bool:
    """Of Python, and one that a tensor can hold."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)


def _pickled(path: Path, error: Exception) -> str:
    """torch's explanation takes a dozen lines; what matters is the name that the file asks for."""
    asked = re.search(r"GLOBAL ([\w.]+)", str(error))
    if asked or "Unsupported" in str(error):
        what = f"{asked[1]} of " if asked else ""
        return f"{path} needs code to be run ({what}a pickle) and is refused: save tensors only"
    return f"{path} is damaged or no file of tensors: {reason(error)}"


def arrays_of(path: Path) -> dict[str, Entry]:
    """The arrays of a file; of an .npy, one whose name is empty. Object arrays are pickles."""
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return {"": content}
        with content:
            return {key: _entry(content, key) for key in content.files}
    except FileNotFoundError as error:
        raise DataError(f"no file {path}") from error
    except ValueError as error:
        what = PICKLE if _is_pickle(error) else f"is damaged: {reason(error)}"
        raise DataError(f"{path} {what}") from error
    except Exception as error:  # a damaged archive makes zipfile and zlib raise nearly anything
        raise DataError(f"{path} is damaged: {reason(error)}") from error


def entries_of(path: Path) -> dict[str, Entry]:
    """What a file holds by name, arrays or tensors as its suffix says; DataError if it is none."""
    if path.suffix.lower() in OF_TENSORS:
        return {key: plain(tensor) for key, tensor in read_tensors(path, numbers=True).items()}
    return arrays_of(path)


def _entry(content: Mapping[str, Any], key: str) -> Entry:
    """Of a member of an .npz; one that is no .npy comes as bytes."""
    try:
        entry = content[key]
        return entry if isinstance(entry, np.ndarray) else Unread("is no array")
    except ValueError as error:
        if _is_pickle(error):
            return Unread(PICKLE)
        raise


def _is_pickle(error: ValueError) -> bool:
    return "allow_pickle" in str(error) or "pickled" in str(error)


def plain(tensor: Tensor) -> Entry:
    """A tensor as numpy has it, and floats that numpy has not as float32."""
    known = (torch.float16, torch.float32, torch.float64)
    try:
        other = tensor.is_floating_point() and tensor.dtype not in known
        return (tensor.detach().float() if other else tensor.detach()).numpy()
    except (RuntimeError, TypeError):
        kind = str(tensor.layout).removeprefix("torch.")
        return Unread(f"is a {kind} tensor of {tensor.dtype}, images are strided ones of uint8")


def wanted(path: Path, entry: Entry) -> np.ndarray:
    """The entry as an array; DataError with the reason if it could not be read."""
    if isinstance(entry, Unread):
        raise DataError(f"{path} {entry}")
    return entry
