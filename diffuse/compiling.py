"""torch.compile of the backbone in place, so that no name in a checkpoint knows of it."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from diffuse import conditions, rehearsal
from diffuse.denoiser import Denoiser
from diffuse.errors import first_line

log = logging.getLogger(__name__)


LEAST = 300.0  # seconds of training that are worth a compilation of one or two minutes


def pays(device: torch.device, seconds: Callable[[], float]) -> bool:
    """What `compile=auto` means: on a GPU, for more than minutes. On a CPU it was measured not to.

    `model=quick` took 86 s to compile (one core, bf16, batch 64), and a step then took
    0.34 s instead of 0.27 s.
    """
    return device.type == "cuda" and seconds() >= LEAST


def options(device: torch.device, alone: bool) -> dict[str, Any]:
    """For torch's compiler: on a GPU, CUDA graphs where they are safe.

    That is where nothing is added to the gradient of a backward pass or taken from it by DDP: the
    next one writes over it. Nothing is chosen by trial, so that every process computes alike.
    """
    return {"deterministic": True, "triton.cudagraphs": device.type == "cuda" and alone}


def prepare(
    denoiser: Denoiser,
    shape: tuple[int, int, int, int],
    device: torch.device,
    options: dict[str, Any],
    strict: bool = False,  # as the steps are going to be: `conditions.strict`
) -> bool:
    """Compile the backbone for steps on batches of this shape; False if that cannot be done.

    Then one warning says why, and the network is as it was. The first step is tried here, on
    zeros: a compiler that is missing shows only when it is needed, for the way back in particular.
    """
    started = time.monotonic()
    try:
        torch._dynamo.reset()  # the networks before had the same code, of which it keeps few shapes
        compile_in_place(denoiser.net, options)
        with conditions.strict(strict):
            rehearsal.step(denoiser, shape, device)
    except Exception as error:  # of any of torch's many layers; an interrupt is none
        denoiser.net._compiled_call_impl = None
        torch._dynamo.reset()
        why = f"{type(error).__name__}: {first_line(error)}"
        log.warning("compile: not possible here, going on without: %s", why)
        return False
    log.info("compiled in %.0f s", time.monotonic() - started)
    return True


def compile_in_place(net: nn.Module, options: dict[str, Any]) -> None:
    """Compile the calls that train. Others have other shapes, and each would cost as much again."""
    net.compile(dynamic=False, options=options)
    net._compiled_call_impl = _Calls(net, options)


class _Calls:
    """The calls of a network: the compiled one where it learns, else its own."""

    def __init__(self, net: nn.Module, options: dict[str, Any]) -> None:
        assert net._compiled_call_impl is not None
        self.net, self.fast, self.options = net, net._compiled_call_impl, options

    def __call__(self, *args: Tensor | None) -> Any:
        learns = self.net.training and torch.is_grad_enabled()
        return (self.fast if learns else self.net._call_impl)(*args)


@contextmanager
def eager(net: nn.Module) -> Iterator[None]:
    """In here it computes as if it had not been compiled."""
    fast, net._compiled_call_impl = net._compiled_call_impl, None
    try:
        yield
    finally:
        net._compiled_call_impl = fast


@contextmanager
def alike(copied: nn.Module, original: nn.Module) -> Iterator[None]:
    """In here a deep copy is compiled as its original is, for which nothing is compiled again.

    Else it comes out uncompiled, and its memory is free as soon as nobody needs it.
    """
    if isinstance(original._compiled_call_impl, _Calls):
        compile_in_place(copied, original._compiled_call_impl.options)
    try:
        yield
    finally:
        copied._compiled_call_impl = None  # which holds the network that holds it
