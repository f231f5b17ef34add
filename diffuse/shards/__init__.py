"""Images in shards: shard k is images [k * batch, (k + 1) * batch) of a plan, always all of them.

A shard is kept under a name made of everything it depends on, so it is drawn once: a command that
was killed goes on where it was, a larger n draws what is missing, and processes share the work.
"""

import hashlib
import time
from collections.abc import Iterator

from diffuse import conditions
from diffuse.data import ImageSpec
from diffuse.denoiser import Denoiser
from diffuse.sampling import Plan, classes, draw
from diffuse.shards.identity import describe, outside
from diffuse.shards.store import Shard, Store, held

__all__ = ["Shard", "Store", "count", "describe", "held", "images", "outside"]

WAIT = 0.1  # seconds between looks at shards that other processes are drawing


def count(n: int, batch: int) -> int:
    """How many shards n images take."""
    return -(-n // batch)


def images(
    denoiser: Denoiser,
    spec: ImageSpec,
    plan: Plan,
    n: int,
    label: int | None = None,
    store: Store | None = None,  # None: everything is drawn, and nothing is kept
    rank: int = 0,  # of the processes that share the work; each begins with another shard
) -> Iterator[Shard]:
    """The shards of n images, each once, as they come: those that are there, or free, go first."""
    denoiser.eval()
    shards = count(n, plan.batch)
    missing = [(rank + k) % shards for k in range(shards)]
    while missing:
        others = []
        for number in missing:
            shard = _one(denoiser, spec, plan, number, label, store)
            if shard is None:
                others.append(number)
            else:
                yield shard
        if len(others) == len(missing):
            time.sleep(WAIT)
        missing = others


def _one(
    denoiser: Denoiser, spec: ImageSpec, plan: Plan, number: int, label: int | None,
    store: Store | None,
) -> Shard | None:  # fmt: skip
    """A shard that is there, or that nobody draws; None if another process is drawing it."""
    if store is None:
        return _drawn(denoiser, spec, plan, number, label)
    if known := store.read(number):
        return known
    with store.claimed(number) as ours:
        if not ours:
            return None
        if known := store.read(number):  # by one that was faster than our look at it
            return known
        started = time.monotonic()
        shard = _drawn(denoiser, spec, plan, number, label)
        store.keep(shard, time.monotonic() - started)
        return shard


def _drawn(
    denoiser: Denoiser, spec: ImageSpec, plan: Plan, number: int, label: int | None
) -> Shard:
    indices = range(number * plan.batch, (number + 1) * plan.batch)
    labels = classes(spec, indices, label)
    with conditions.repeatable():
        done = draw(denoiser, spec, plan, indices, labels)
    fingerprint = hashlib.sha256(done.state[:4].numpy().tobytes()).hexdigest()
    return Shard(number, done.images, labels, done.calls, fingerprint, known=False)
