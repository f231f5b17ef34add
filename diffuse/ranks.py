"""Several processes that train one network: who they are, and what they tell each other."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from diffuse.denoiser import Denoiser
from diffuse.errors import DiffuseError

log = logging.getLogger(__name__)

TIMEOUT = timedelta(minutes=30)  # data may have to be fetched by the first one meanwhile


@dataclass(frozen=True)
class Ranks:
    """This process among those of one training. Alone it is the first of one."""

    rank: int = 0
    world: int = 1
    local: int = 0  # its number on this machine
    threads: int = 0  # of a process that is alone; 0: as many as it has
    gone: Callable[[], str | None] = lambda: None  # which of the others is, if one is known to be

    @classmethod
    def joined(cls, rank: int, world: int, local: int, where: str, beside: int = 1) -> Self:
        """Meet the others at `where`, as torch.distributed writes it; waits until all are there.

        As many processes as are `beside` each other share the first one's threads, each as many:
        another number changes last bits.
        """
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            init_method=where, rank=rank, world_size=world, timeout=TIMEOUT,
        )  # fmt: skip
        threads = cls(rank, world, local).agree(torch.get_num_threads())
        torch.set_num_threads(max(1, threads // beside))
        return cls(rank, world, local, threads)

    def device(self, device: torch.device) -> torch.device:
        """Its own, of as many GPUs as there are processes on a machine."""
        if device.type != "cuda" or self.world == 1:
            return device
        torch.cuda.set_device(self.local)
        return torch.device("cuda", self.local)

    def part(self, n: int) -> slice:
        """Its share of n things, where all shares are equal."""
        share = n // self.world
        return slice(self.rank * share, (self.rank + 1) * share)

    @contextlib.contextmanager
    def as_one(self) -> Iterator[None]:
        """In here this process computes as one that is alone would, to the last bit."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def agree(self, value: Any) -> Any:
        """The first one's value, for all."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def any(self, value: bool) -> bool:
        """Is it so for at least one?"""
        if self.world == 1:
            return value
        flag = torch.tensor(int(value))
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def all(self, value: Tensor) -> Tensor:
        """Is it so for each of them? A bool [] that stays on its device."""
        if self.world == 1:
            return value
        flag = value.to(torch.uint8)
        dist.all_reduce(flag, dist.ReduceOp.MIN)
        return flag.bool()

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all, of a number that stays on its device."""
        if self.world > 1:
            dist.all_reduce(value)
            value /= self.world
        return value

    def dealt(self, jobs: list[Callable[[], Any]]) -> list[Any]:
        """What all of the jobs return, in order; each is done by one process, in turns.

        What one of them raises, all raise: else the others would wait for it.
        """
        if self.world == 1:
            return [job() for job in jobs]
        hands: list[Any] = [None] * self.world
        try:
            mine: Any = [job() for job in jobs[self.rank :: self.world]]
        except (DiffuseError, RuntimeError) as error:
            log.debug("failed", exc_info=True)
            mine = error.with_traceback(None)  # it would hold what filled the memory
        dist.all_gather_object(hands, mine)
        for hand in hands:
            if isinstance(hand, Exception):
                raise hand
        return [hands[k % self.world][k // self.world] for k in range(len(jobs))]

    def losses(self, denoiser: Denoiser) -> "Losses":
        """`denoiser.loss`, whose gradient is the mean over all."""
        return Losses(denoiser, self.world)


class Losses:
    """The loss of each image [b]; backward, the gradients of all processes are averaged."""

    def __init__(self, denoiser: Denoiser, world: int) -> None:
        self.call: Callable[..., Tensor] = denoiser.loss
        self.parallel: DistributedDataParallel | None = None
        if world > 1:
            self.parallel = DistributedDataParallel(_Loss(denoiser))
            self.call = self.parallel

    def __call__(self, x0: Tensor, sigma: Tensor, eps: Tensor, label: Tensor) -> Tensor:
        return self.call(x0, sigma, eps, label)

    def unshared(self) -> contextlib.AbstractContextManager[None]:
        """In here gradients are only added up: nobody waits for anybody."""
        return self.parallel.no_sync() if self.parallel else contextlib.nullcontext()


class _Loss(nn.Module):
    """What DistributedDataParallel takes is called by `forward`."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x0: Tensor, sigma: Tensor, eps: Tensor, label: Tensor) -> Tensor:
        return self.denoiser.loss(x0, sigma, eps, label)


ALONE = Ranks()
