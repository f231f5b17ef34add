"""A folder of shards that many processes fill and read, and how large all of them may become.

<root>/<key>/plan.json               what the images depend on; its sha256 is the key
             shard-000003-<sha256>.safetensors    images [batch c h w], labels, calls, fingerprint
             shard-000003.lock       while a process draws it; void when that process is gone
             drawn.jsonl             a line for each shard that was drawn: by whom, how long
             in_use                  held by all that work with the folder, or will
"""

import contextlib
import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from diffuse import files, owners, sealed
from diffuse.conditions import key

log = logging.getLogger(__name__)

# Of all plans together: what was longest of no use goes first, never what is held.
MOST_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Shard:
    """Images [number * batch, (number + 1) * batch) of a plan."""

    number: int
    images: Tensor  # uint8 [batch c h w], at the data's own size
    labels: Tensor  # [batch]
    calls: int  # of the network, for each image
    fingerprint: str  # of the first images before rounding
    known: bool  # it was there already


class Store:
    """The shards of one plan, kept under root/<key>.

    A folder that cannot be written to costs a second drawing and a warning, never a wrong image;
    a full disk is a NoSpaceError.
    """

    def __init__(self, root: Path, description: Mapping[str, Any]) -> None:
        self.root, self.description = root, description
        self.folder = root / key(description)
        self.writable = True
        self.lock: IO[bytes] | None = None

    @property
    def shared(self) -> bool:
        """Do other commands find it? Others are deleted as soon as nobody holds them."""
        return self.description.get("command") is None

    def __enter__(self) -> "Store":
        try:
            self.hold()
        except OSError as error:
            self._refused(error)
        return self

    def __exit__(self, *error: object) -> None:
        purge(self.root, MOST_BYTES)  # of others: this one is held
        self.release()

    def hold(self) -> None:
        """Of use again, and never purged until `release`; an OSError if it cannot be written."""
        with files.room_for(self.folder, 0):
            self.lock = _held_with_others(self.folder)
            if not (plan := self.folder / "plan.json").exists():
                files.replace(plan, json.dumps(self.description, indent=1) + "\n")
            os.utime(plan)

    def release(self) -> None:
        """From now on it may be purged, unless somebody else holds it."""
        if self.lock:
            self.lock.close()
            self.lock = None
            if not self.shared:
                with contextlib.suppress(OSError):
                    _deleted(self.folder)

    def _refused(self, error: OSError) -> None:
        """Say once that images cannot be kept."""
        if self.writable:
            log.warning(
                "images are not kept, %s: %s", error.filename or self.folder, error.strerror
            )
        self.writable = False

    def there(self) -> dict[int, Path]:
        """The shards that were drawn; whether they are whole is seen on reading."""
        try:
            names = sorted(os.listdir(self.folder))
        except OSError:
            return {}
        return {
            int(name[6:12]): self.folder / name
            for name in names
            if name.startswith("shard-") and name.endswith(".safetensors")
        }

    def read(self, number: int) -> Shard | None:
        """A shard that is there and whole."""
        path = self.there().get(number)
        tensors = sealed.read(path) if path else None
        if tensors is None:
            return None
        return Shard(
            number, tensors["images"], tensors["labels"], int(tensors["calls"]),
            bytes(tensors["fingerprint"].tolist()).hex(), known=True,
        )  # fmt: skip

    def keep(self, shard: Shard, seconds: float) -> None:
        """Write a shard that was drawn."""
        if not self.writable:
            return
        tensors = {
            "images": shard.images,
            "labels": shard.labels,
            "calls": torch.tensor(shard.calls),
            "fingerprint": torch.tensor([*bytes.fromhex(shard.fingerprint)], dtype=torch.uint8),
        }
        line = {"shard": shard.number, "images": len(shard.images), "seconds": round(seconds, 3),
                **owners.facts()}  # fmt: skip
        try:
            for left in self.folder.glob(f".shard-{shard.number:06d}-*"):
                left.unlink(missing_ok=True)  # of a process that was killed while it wrote
            sealed.write(self.folder, f"shard-{shard.number:06d}", tensors)
            files.append(self.folder / "drawn.jsonl", json.dumps(line))
        except OSError as error:
            self._refused(error)

    @contextlib.contextmanager
    def claimed(self, number: int) -> Iterator[bool]:
        """Is this shard ours to draw? Until the end, or until this process is gone.

        Where the file system knows no locks it is everybody's.
        """
        path, lock, ours = self.folder / f"shard-{number:06d}.lock", None, True
        if self.writable:
            try:
                with files.room_for(path, 0):
                    lock = _only(path)
                ours = lock is not None
            except OSError as error:
                self._refused(error)
        try:
            yield ours
        finally:
            if lock:
                with contextlib.suppress(OSError):
                    path.unlink()
                lock.close()

    def speed(self) -> float | None:
        """Images a second of a process that drew here, by what was written down; None = nothing."""
        lines, images, seconds = [], 0, 0.0
        with contextlib.suppress(OSError):
            lines = (self.folder / "drawn.jsonl").read_bytes().splitlines()
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # cut short, or damaged
                row = json.loads(line)
                more, took = int(row["images"]), float(row["seconds"])
                images, seconds = images + more, seconds + took
        return images / seconds if seconds else None


@contextlib.contextmanager
def held(stores: Sequence[Store], size: int) -> Iterator[None]:
    """While a command needs these plans, of `size` bytes in all, none of them is purged.

    Nor are they by its end, so that the same command finds them again: if they are more than may be
    kept, they stay with a warning. Each takes an open file, of which half are left for others:
    plans beyond that only count as just used.
    """
    if stores and size > MOST_BYTES:
        log.warning(
            "the images of this command take %.1f GiB, and %.1f GiB are kept at most: they all "
            "stay for the next time; rm -r %s deletes them",
            size / 2**30, MOST_BYTES / 2**30, stores[0].root,
        )  # fmt: skip
    room = os.sysconf("SC_OPEN_MAX") // 2
    with contextlib.ExitStack() as stack:
        for number, store in enumerate(stores):
            with contextlib.suppress(OSError):  # who draws says so
                store.hold()
            if number < room:
                stack.callback(store.release)
            else:
                store.release()
        yield


def _only(path: Path) -> IO[bytes] | None:
    """The lock of a file that is still there once it is held: its last owner deletes it."""
    while True:
        lock = owners.lock(path)
        if lock is None or _is_still(lock, path):
            return lock
        lock.close()


def _held_with_others(folder: Path) -> IO[bytes]:
    """Make a folder and hold it, together with others, against being purged."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            # the caller's; to be read as well: NFS knows no shared lock of what is only written
            lock = open(folder / "in_use", "a+b")  # noqa: SIM115
        except FileNotFoundError:  # purged at this moment
            continue
        with contextlib.suppress(OSError):  # a file system that knows no locks
            fcntl.flock(lock, fcntl.LOCK_SH)
        if _is_still(lock, folder / "in_use"):
            return lock
        lock.close()


def _is_still(lock: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def purge(root: Path, most: int) -> None:
    """Delete what was longest of no use until at most so many bytes are left.

    Nothing that a process holds, this one too; nothing at all where locks are unknown.
    """
    with contextlib.suppress(OSError):
        for left in root.glob(".gone-*"):  # by a process that was killed while it deleted
            shutil.rmtree(left, ignore_errors=True)
        folders = [path for path in root.iterdir() if (path / "in_use").exists()]
        sizes = {f: sum(entry.stat().st_size for entry in os.scandir(f)) for f in folders}
        total = sum(sizes.values())
        for folder in sorted(folders, key=lambda f: sealed.used(f / "plan.json")):
            if total <= most:
                return
            if _deleted(folder):
                total -= sizes[folder]


def _deleted(folder: Path) -> bool:
    with open(folder / "in_use", "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        gone = folder.with_name(f".gone-{folder.name}-{os.getpid()}-{time.monotonic_ns()}")
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
    return True
