"""What this machine can do: asked or measured at run time, never assumed."""

import contextlib
import os
import platform
import resource
import sys
import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from diffuse.errors import ConfigError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FORGET = Path("/proc/self/clear_refs")  # 5, written there, has Linux forget the peak of the RAM
ROUNDS, PATIENCE = 20, 0.3  # of a timed convolution: at most so many, after so many seconds three


def device(word: str) -> torch.device:
    """`auto` is the GPU if there is one."""
    if word == "auto":
        word = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    if word.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device={word}, but torch finds no CUDA device; use device=auto")
    if word == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device=mps, but torch finds no MPS device; use device=auto")
    chosen = torch.device(word)
    if chosen.type == "cuda":
        count = torch.cuda.device_count()
        if (chosen.index or 0) >= count:
            raise ConfigError(f"device={word}, but there are {count} CUDA devices, from cuda:0")
        if chosen.index is not None:
            torch.cuda.set_device(chosen)  # what asks for "the" GPU means this one, from now on
        # without it cuBLAS may add up in another order from one process to the next
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return chosen


def turn(word: str, number: int) -> str:
    """Jobs that run at once take turns over the GPUs, if there are several: job 0, 1, ..."""
    count = torch.cuda.device_count()
    return f"cuda:{number % count}" if word == "auto" and count > 1 else word


def check_devices(count: int, device: torch.device) -> None:
    """ConfigError if there are fewer than `count` devices; on a CPU processes share its cores."""
    if device.type == "cuda" and count > torch.cuda.device_count():
        raise ConfigError(f"devices={count}, but torch finds {torch.cuda.device_count()} GPUs")
    if device.type == "cuda" and device.index is not None and count > 1:
        raise ConfigError(f"devices={count} with device={device}: use device=cuda")
    if device.type == "mps" and count > 1:
        raise ConfigError(f"devices={count}, but there is one MPS device")


def precision(word: str, device: torch.device) -> tuple[str, torch.dtype]:
    """The number format of the network. `auto` is bf16 where it is the faster one."""
    if word == "auto":
        word = "bf16" if _bf16_is_faster(device) else "fp32"
    return word, PRECISIONS[word]


def _bf16_is_faster(device: torch.device) -> bool:
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "mps":
        return False
    fp32, bf16 = _convolution_seconds(torch.float32, torch.bfloat16)
    return bf16 < 0.8 * fp32


@torch.no_grad()
def _convolution_seconds(*dtypes: torch.dtype) -> list[float]:
    """The best time of a convolution like the UNet's on the CPU, in each number format.

    In turns, on one thread, the best of many: other load on the machine must not decide, and where
    two threads share a core with it, they wait for each other longer than they compute. After
    PATIENCE seconds three rounds do: there a format is so slow that no load could be the reason.
    """
    calls, threads = [], torch.get_num_threads()
    torch.set_num_threads(1)
    for dtype in dtypes:
        conv = nn.Conv2d(128, 128, 3, padding=1).to(dtype).to(memory_format=torch.channels_last)
        x = torch.randn(8, 128, 14, 14, dtype=dtype).to(memory_format=torch.channels_last)
        calls.append(partial(conv, x))
    best, begun = [float("inf")] * len(dtypes), time.perf_counter()
    for turn in range(ROUNDS):
        if turn >= 3 and time.perf_counter() - begun > PATIENCE:
            break
        for i, call in enumerate(calls):
            start = time.perf_counter()
            call()
            best[i] = min(best[i], time.perf_counter() - start)
    torch.set_num_threads(threads)
    return best


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """In here a network computes in this number format; in float32 nothing is cast."""
    return torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device. A GPU takes it when it comes to it: nobody waits for that."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Share:
    """The share of its threads' time that this process gets from now on; less if others compute."""

    def __init__(self) -> None:
        self.wall, self.own = time.monotonic(), time.process_time()

    def so_far(self) -> float:
        wall, own = time.monotonic() - self.wall, time.process_time() - self.own
        return own / (wall * torch.get_num_threads())


def describe(device: torch.device) -> str:
    """E.g. "NVIDIA H200" or "AMD EPYC, 2 threads"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' * (threads > 1)}"


def _processor() -> str:
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def forget_peak(device: torch.device) -> None:
    """The peak is from now on: a process may have trained before.

    That of RAM stays the process's own where the system is not Linux, or does not let us.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        FORGET.write_text("5")


def peak_memory(device: torch.device) -> int:
    """The most bytes this process has used: on the GPU if it computes there, else in RAM."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if os.path.exists("/proc/self/status"):
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # or that of who started us
    return peak if sys.platform == "darwin" else peak * 1024
