"""Model FLOP utilisation: the share of what a device can do that a training makes use of."""

import copy
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from diffuse import hardware

FORWARDS = 3  # that a step costs: backward is two
CHANNELS, SIDES, BATCH = (64, 128, 256), (7, 14, 28, 32), 64  # of the convolutions tried


def utilisation(net: nn.Module, image: Sequence[int], rate: float, peak: float) -> float:
    """Of training on `rate` images [c h w] a second, where `peak` FLOP/s are possible."""
    return FORWARDS * forward_flops(net, image) * rate / peak


def forward_flops(net: nn.Module, image: Sequence[int], batch: int = 2) -> float:
    """FLOPs of one image, two for each multiply-add; counted on shapes alone, of a batch.

    Some networks cannot learn from a batch of one.
    """
    net = copy.deepcopy(net).to("meta")
    x, level = torch.empty(batch, *image, device="meta"), torch.empty(batch, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x, level)
    return counter.get_total_flops() / batch


@torch.inference_mode()
def convolution_peak(device: torch.device, patience: float = math.inf) -> tuple[float, str]:
    """FLOP/s of the fastest 3x3 convolution in channels_last, and which one it is.

    In bf16, or in float32 on a machine where bf16 is slower. After `patience` seconds the larger
    ones, which come last, are left out.
    """
    best, (word, dtype) = (0.0, ""), hardware.precision("auto", device)
    started = time.perf_counter()
    for c, side in sorted(product(CHANNELS, SIDES), key=math.prod):
        if best[0] and time.perf_counter() - started > patience:
            break
        form = {"device": device, "dtype": dtype}
        conv = nn.Conv2d(c, c, 3, padding=1, **form).to(memory_format=torch.channels_last)
        x = torch.randn(BATCH, c, side, side, **form)
        call = partial(conv, x.contiguous(memory_format=torch.channels_last))
        seconds(call, 2, device)
        times = min(1000, max(1, round(0.02 / seconds(call, 1, device))))
        took = min(seconds(call, times, device) for _ in range(5)) / times
        flops = 2 * 9 * c**2 * side**2 * BATCH
        best = max(best, (flops / took, f"{word}, {c} channels, {side}x{side}"))
    return best


def seconds(call: Callable[[], object], times: int, device: torch.device) -> float:
    """The time of some calls, until the device has done them all."""
    started = time.perf_counter()
    for _ in range(times):
        call()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter() - started
