"""When a training step needs more memory than there is: say how many images fit instead."""

import contextlib
import gc
import re
import traceback
from collections.abc import Callable, Iterator

import torch

from diffuse.errors import DiffuseError
from diffuse.values import divisors

WORDS = (
    "DefaultCPUAllocator: can't allocate memory",
    "MPS backend out of memory",
    "CUDA error: out of memory",  # of what is not torch's own allocator
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "HOST_ALLOCATION_FAILED",
)


class OutOfMemory(DiffuseError):
    """A training step needs more memory than there is."""


def ran_out(error: BaseException) -> bool:
    """Is this how torch says it, on a GPU, on a CPU or on MPS?"""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in WORDS)


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
    except RuntimeError as error:
        if not ran_out(error):
            raise
        wanted = re.search(r"tried to allocate ([\d.]+ \w+)", str(error), re.IGNORECASE)
        more = f", which asked for {wanted[1]} more" if wanted else ""
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
    except RuntimeError as error:
        if not ran_out(error):
            raise
        traceback.clear_frames(error.__traceback__)
        return False
    return True
