"""The processes of one training: started here for `devices=`, or before us by torchrun."""

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.distributed as dist

from diffuse import children, hardware
from diffuse.errors import ConfigError, DiffuseError, first_line
from diffuse.interrupts import Interrupts
from diffuse.ranks import ALONE, Ranks
from diffuse.stderr import say

GRACE = 15.0  # seconds that the others have to end by themselves when one is gone
Meet = Callable[[], Ranks]  # waits for the other processes


class Lost(DiffuseError):
    """A process of this training is gone, so the training is over."""


def leads(devices: int) -> bool:
    """Is this the process that writes the run folder? ConfigError: `devices` > 1 under torchrun."""
    if children.under_torchrun() and devices > 1:
        world = os.environ["WORLD_SIZE"]
        raise ConfigError(f"devices={devices} under torchrun, which has started {world} processes")
    return not children.is_led()


def check(devices: int, device: torch.device) -> None:
    """ConfigError if there are too few devices for `devices` processes, or for torchrun's."""
    hardware.check_devices(devices, device)
    if not children.under_torchrun() or device.type != "cuda":
        return
    local, count = os.environ.get("LOCAL_RANK"), torch.cuda.device_count()
    if local is None or not local.isdecimal():
        said = "is not set" if local is None else f"is {local!r}, no number"
        raise ConfigError(f"LOCAL_RANK {said}: it says whose GPU is which, and torchrun sets it")
    if device.index is not None:
        raise ConfigError(f"device={device} under torchrun, which has a GPU for each: device=cuda")
    if int(local) >= count:
        raise ConfigError(f"LOCAL_RANK={local}, but torch finds {count} GPUs, from 0: start fewer")


@contextlib.contextmanager
def crew(devices: int) -> Iterator[Meet]:
    """Start the others, which import torch while we look for data; at the end nobody is left."""
    if children.under_torchrun():
        threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
        with left_behind(lambda: "another process of this training is gone"):
            yield _torchrun
    elif devices == 1:
        yield lambda: ALONE
    else:
        threads = torch.get_num_threads()  # of which this process has a part until the end
        try:
            with tempfile.TemporaryDirectory(prefix="diffuse-") as folder:
                where = f"file://{folder}/meeting"
                with _started(devices, where) as (gone, end), left_behind(gone, end):
                    meet = partial(Ranks.joined, 0, devices, 0, where, devices)
                    yield lambda: replace(meet(), gone=partial(gone, 0.0))
        finally:
            torch.set_num_threads(threads)


def _end_with(parent: int) -> None:
    """torchrun gives us a session of our own, and so nobody else tells us that it is gone."""
    while os.getppid() == parent:
        time.sleep(1)
    if not Interrupts.asked.is_set():  # a second signal would end what the first one has begun
        os.kill(os.getpid(), signal.SIGTERM)


def _torchrun() -> Ranks:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local = int(os.environ.get("LOCAL_RANK", "0"))  # of GPUs only, where `check` asks for it
    return Ranks.joined(rank, world, local, "env://")


_hearing: list[Callable[[str], None]] = []


@contextlib.contextmanager
def last_words(hear: Callable[[str], None]) -> Iterator[None]:
    """In here it hears why this process ends where it waits in vain, as NCCL lets it."""
    _hearing.append(hear)
    try:
        yield
    finally:
        _hearing.remove(hear)


@contextlib.contextmanager
def left_behind(
    gone: Callable[[], str | None], end: Callable[[], None] | None = None
) -> Iterator[None]:
    """Torch says in many ways that nobody answers: Lost says who is gone.

    After an error NCCL would not leave the group while the others go on. So they `end` first; where
    that is not for us to do, this process ends without leaving it.
    """
    try:
        yield
    except BaseException as error:
        lost = _lost(error, gone) if dist.is_initialized() else None
        if end:
            end()
            _leave()
        if lost:
            raise lost from error
        raise
    _leave()


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _lost(error: BaseException, gone: Callable[[], str | None]) -> Lost | None:
    """What an error means of which torch says that nobody answers."""
    words = ("gloo", "NCCL", "Connection")
    if not isinstance(error, RuntimeError) or not any(word in str(error) for word in words):
        return None
    return Lost(gone() or f"the processes lost each other: {first_line(error)}")


@contextlib.contextmanager
def _started(
    devices: int, where: str
) -> Iterator[tuple[Callable[..., str | None], Callable[[], None]]]:
    """The others as children; two calls: which of them is gone, if one is, and to end them all."""
    started = [
        children.start("diffuse.commands.training.following", where, str(devices), str(rank))
        for rank in range(1, devices)
    ]
    over, failed = threading.Event(), []
    end = partial(_end, started, over)
    for rank, child in enumerate(started, 1):
        threading.Thread(target=_watch, args=(rank, child, over, failed), daemon=True).start()
    try:
        yield partial(_gone, failed), end
    finally:
        end()


def _end(started: "Sequence[subprocess.Popen[bytes]]", over: threading.Event) -> None:
    """None of the children is left; a second time there is nothing to do."""
    over.set()
    for child in started:
        assert child.stdin is not None
        child.stdin.close()  # whoever still waits for us learns that we are gone
    for child in started:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
        child.kill()
        child.wait()


def _watch(
    rank: int, child: "subprocess.Popen[bytes]", over: threading.Event, failed: list[str]
) -> None:
    """A child that fails ends us, if we have not noticed by ourselves: we may wait for it."""
    if child.wait() != 0:
        failed.append(_ended(rank, child.returncode))
        if not over.wait(GRACE):
            say(f"error: {failed[0]}")
            with contextlib.suppress(Exception):
                for hear in _hearing:
                    hear(failed[0])
            os._exit(1)


def _gone(failed: Sequence[str], seconds: float = 3.0) -> str | None:
    """What became of the first child that failed: others may have lost it, as we have.

    One that lets a connection go may take a moment to end.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until and not failed:
        time.sleep(0.05)
    return failed[0] if failed else None


def _ended(rank: int, code: int) -> str:
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with exit {code}"
    return f"process {rank} of this training {how}; resume=auto goes on at the last checkpoint"
