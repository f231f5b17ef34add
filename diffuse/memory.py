"""When a training step needs more memory than there is: say how many images fit instead."""

import contextlib
import gc
import re
import traceback
from collections.abc import Callable, Iterator

import torch

from diffuse.errors import DiffuseError
from diffuse.values import divisors

WORDS = re.compile(
    "DefaultCPUAllocator: can't allocate memory"
    "|DefaultCPUAllocator: not enough memory"
    "|could not create a (primitive(?! descriptor)|memory object)"  # oneDNN's
    "|std::bad_alloc"
    "|MPS backend out of memory"
    "|CUDA error: out of memory"  # of what is not torch's own allocator
    "|CUBLAS_STATUS_ALLOC_FAILED"
    "|CUDNN_STATUS_ALLOC_FAILED"
    "|HOST_ALLOCATION_FAILED"
)
KINDS = (RuntimeError, MemoryError)  # of errors that may say so


class OutOfMemory(DiffuseError):
    """Something needs more memory than there is."""


def ran_out(error: BaseException) -> bool:
    """Is this how torch says it, on a GPU, on a CPU or on MPS?"""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and WORDS.search(str(error)) is not None


def wanted(error: BaseException) -> str:
    """How much more it asked for, where it says so: a part of a sentence."""
    size = r"(?:tried to allocate|unable to allocate) ([\d.]+ \w+)"
    found = re.search(size, str(error), re.IGNORECASE)
    return f", which asked for {found[1]} more" if found else ""


@contextlib.contextmanager
def watched(
    batch: int,
    size: int,  # images that the network sees at once
    attempt: Callable[[int], object],  # runs the network so on that many images, forth and back
) -> Iterator[None]:
    """Turn what torch raises without memory into OutOfMemory, which names what does fit.

    That is tried out rather than estimated: what is left besides the images differs by machine.
    """
    try:
        yield
    except KINDS as error:
        if not ran_out(error):
            raise
        more = wanted(error)
        traceback.clear_frames(error.__traceback__)  # they hold what filled the memory
        smaller = [d for d in divisors(batch) if d < size]
        fits = next((d for d in reversed(smaller) if _fits(d, attempt)), None)
        if fits is None:
            advice = "not even one at a time fits: use a smaller network"
        else:
            advice = f"train.micro_batch={fits} fits and leaves the gradients as they are"
        raise OutOfMemory(f"out of memory with {size} images at once{more}; {advice}") from None


def _fits(n: int, attempt: Callable[[int], object]) -> bool:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        attempt(n)
    except KINDS as error:
        if not ran_out(error):
            raise
        traceback.clear_frames(error.__traceback__)
        return False
    return True
