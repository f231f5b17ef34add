"""Read pickles that hold nothing but numbers, text and arrays, and run no code of theirs."""

import io
import pickle
from typing import Any

import numpy as np

_RECONSTRUCT = np.ndarray((0,)).__reduce__()[0]  # numpy moves it from module to module
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}") from None


def unpickle(data: bytes) -> Any:
    """The content of a pickle, text of Python 2 as bytes; UnpicklingError if it wants code."""
    try:
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a damaged pickle makes the machine fail in many ways
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from error
