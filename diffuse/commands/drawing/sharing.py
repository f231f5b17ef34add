"""`devices=`: more processes of our own that draw shards of the same plan into the same folder.

They need nobody: each restores the run by itself, checks that it would draw the very same images,
and takes shards that are free. If one dies, the others find its shards free again.
"""

import contextlib
import json
import logging
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Self

import torch
from omegaconf import DictConfig, OmegaConf

from diffuse import children, hardware
from diffuse.restored import Trained
from diffuse.sampling import Plan
from diffuse.shards import count

log = logging.getLogger(__name__)

WORKER = "diffuse.commands.drawing.shard_worker"
GRACE = 2.0  # seconds that a worker has to leave when all images are there


def pinned(cfg: DictConfig, trained: Trained, plan: Plan, rank: int) -> str:
    """The config of one more process: whatever was chosen or measured here is said outright."""
    device = trained.device
    words = {dtype: word for word, dtype in hardware.PRECISIONS.items()}
    more = {
        "run": str(trained.folder),
        "checkpoint": trained.step,
        "precision": words[trained.denoiser.precision],
        "batch": plan.batch,
        "seed": plan.seed,
        "noise_level": str(plan.level_of.folder) if plan.level_of else None,
        "device": str(nth(device, rank)),
    }
    return OmegaConf.to_yaml(OmegaConf.merge(OmegaConf.create(OmegaConf.to_container(cfg)), more))


def nth(device: torch.device, rank: int) -> torch.device:
    """The device of a process: another GPU where there is one, else the same device."""
    if device.type != "cuda":
        return device
    first = torch.cuda.current_device() if device.index is None else device.index
    return torch.device("cuda", (first + rank) % torch.cuda.device_count())


class Workers:
    """While it is entered, `devices - 1` more processes draw, but none without a shard to draw.

    `look` says who is gone.
    """

    def __init__(
        self, cfg: DictConfig | None, trained: Trained, plan: Plan, asked: Mapping[str, Any]
    ) -> None:
        self.orders: list[str] = []
        self.processes: dict[int, tuple[subprocess.Popen[str], IO[str]]] = {}
        processes = 1 if cfg is None else min(cfg.devices, count(asked["n"], plan.batch))
        for rank in range(1, processes):
            assert cfg is not None
            order = {**asked, "cfg": pinned(cfg, trained, plan, rank), "rank": rank,
                     "threads": torch.get_num_threads()}  # fmt: skip
            self.orders.append(json.dumps(order))

    def __enter__(self) -> Self:
        for rank, order in enumerate(self.orders, 1):
            said = tempfile.TemporaryFile("w+")
            process = children.start(WORKER, stderr=said, text=True)
            self.processes[rank] = process, said
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(order + "\n")
                process.stdin.flush()
        return self

    def look(self) -> None:
        """One line for each worker that failed, once: the others finish its shards."""
        for rank, (process, said) in list(self.processes.items()):
            code = process.poll()
            if code is None:
                continue
            if code:
                log.warning(
                    "worker %d of devices=%d %s: the others draw its images", rank,
                    len(self.orders) + 1, _reason(code, said),
                )  # fmt: skip
            self._close(rank)

    def _close(self, rank: int) -> None:
        process, said = self.processes.pop(rank)
        with contextlib.suppress(OSError):
            assert process.stdin is not None
            process.stdin.close()
        said.close()

    def __exit__(self, *error: object) -> None:
        self.look()
        for process, _ in self.processes.values():
            with contextlib.suppress(OSError):
                assert process.stdin is not None
                process.stdin.close()  # they read its end, and leave
        for process, _ in self.processes.values():
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for rank in list(self.processes):
            self._close(rank)


def _reason(code: int, said: IO[str]) -> str:
    """E.g. "was ended by signal 9", or "failed (out of memory)" with its own last words."""
    if code < 0:
        return f"was ended by signal {-code}"
    said.seek(0)
    lines = [line.strip() for line in said.read().splitlines() if line.strip()]
    return f"failed ({lines[-1].removeprefix('error: ') if lines else f'exit code {code}'})"


def folder(outputs: str) -> Path:
    """Where shards are kept."""
    return Path(outputs) / ".samples"
