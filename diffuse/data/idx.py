"""The idx format of MNIST: a magic number, the sizes as big-endian integers, then bytes."""

import struct
from pathlib import Path

import numpy as np

from diffuse.errors import DataError


def read_idx(data: bytes, path: Path) -> np.ndarray:
    """A uint8 array; `path` is only for the message of the DataError."""
    if len(data) < 4 or data[:3] != b"\0\0\x08" or not 1 <= data[3] <= 4:
        raise DataError(f"{path} is not an idx file of bytes")
    rank = data[3]
    if len(data) < 4 + 4 * rank:
        raise DataError(f"{path} is truncated in its header")
    shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    expected, got = int(np.prod(shape, dtype=np.uint64)), len(data) - 4 - 4 * rank
    if got != expected:
        state = "truncated" if got < expected else "too long"
        raise DataError(f"{path} is {state}: {expected} bytes of {shape} expected, {got} there")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def write_idx(array: np.ndarray) -> bytes:
    """The exact bytes that `read_idx` reads, the same whoever writes them."""
    header = struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()
