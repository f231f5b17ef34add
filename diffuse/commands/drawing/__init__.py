"""The images of a plan, by shards: what was drawn before is read, and processes share the rest."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from diffuse import conditions, shards
from diffuse.commands.drawing import sharing
from diffuse.commands.drawing.saving import Result
from diffuse.console import Meter
from diffuse.data import ImageSpec
from diffuse.restored import Trained
from diffuse.sampling import Plan
from diffuse.shards import Shard, Store, count, describe, images, outside

log = logging.getLogger(__name__)


def identity(trained: Trained, plan: Plan, label: int | None) -> dict[str, Any]:
    """Everything that the images of a run and a plan depend on."""
    groups = {key: trained.cfg[key] for key in ("model", "objective", "weighting")}
    network = OmegaConf.to_container(OmegaConf.create(groups), resolve=True)
    assert isinstance(network, dict)
    plain = {str(key): value for key, value in network.items()}
    return describe(trained.denoiser, trained.spec, plan, label, trained.sha256, plain)


def key(trained: Trained, plan: Plan, label: int | None) -> str | None:
    """sha256 of all that; None if nobody has said how to write it down."""
    try:
        return conditions.key(identity(trained, plan, label))
    except TypeError:
        return None


def kept(
    cfg: DictConfig, trained: Trained, plan: Plan, label: int | None
) -> AbstractContextManager[Store | None]:
    """Where the shards of a plan are kept, if they are."""
    try:
        about = identity(trained, plan, label)
    except TypeError as error:
        log.warning("images are not kept: %s", error)
        return nullcontext()
    if (others := outside(about)) and plan.seed == cfg.seed:  # it is said once
        log.info(
            "images are kept for this command only: nobody knows what code from outside reads (%s)",
            ", ".join(others),
        )
    return Store(sharing.folder(cfg.outputs), about)


def of_seeds(store: Store, first: int, many: int) -> list[Store]:
    """Where the images of a plan are kept for each of the seeds first, first + 1, ..."""
    about = store.description
    plans = [{**about["plan"], "seed": first + k} for k in range(many)]
    return [Store(store.root, {**about, "plan": plan}) for plan in plans]


def held(stores: Sequence[Store], spec: ImageSpec, n: int) -> AbstractContextManager[None]:
    """While a command needs n images of each of these plans: see `shards.held`."""
    each = spec.channels * spec.native_height * spec.native_width  # bytes
    return shards.held(stores, len(stores) * n * each)


def _all_seeds(
    place: object, trained: Trained, plan: Plan, n: int, cfg: DictConfig
) -> AbstractContextManager[None]:
    """Of an evaluation, the images of the seeds before and after this one stay, too."""
    if not isinstance(place, Store) or "seeds" not in cfg:
        return nullcontext()
    first = plan.seed == cfg.seed  # it is said once
    return held(of_seeds(place, cfg.seed, cfg.seeds), trained.spec, n if first else 0)


def draw(trained: Trained, plan: Plan, n: int, label: int | None, cfg: DictConfig) -> Result:
    """n images: those that were drawn before are read, wherever the config says they are kept.

    With its `devices=`, more processes draw. There is a line on the console now and then; what was
    drawn stays when a signal ends it.
    """
    parts: dict[int, Shard] = {}
    place = kept(cfg, trained, plan, label)
    with _all_seeds(place, trained, plan, n, cfg), place as store:
        before = set(store.there()) if store else set()
        before &= set(range(count(n, plan.batch)))
        order = {"description": store.description, "label": label, "n": n} if store else {}
        workers = sharing.Workers(cfg if store else None, trained, plan, order)
        if first := min(n, len(before) * plan.batch):
            log.info("%s of %s images were drawn before", f"{first:,}", f"{n:,}")
        with workers, Meter("sample", n, done=first) as meter, _told(store, n, plan.batch):
            for shard in images(trained.denoiser, trained.spec, plan, n, label, store):
                parts[shard.number] = shard
                if not shard.known:  # it may have been there, and damaged
                    before.discard(shard.number)
                    first = meter.first = min(n, len(before) * plan.batch)
                new = parts.keys() - before
                done = min(n, first + len(new) * plan.batch)
                workers.look()
                if new and (meter.due() or len(parts) == count(n, plan.batch)):
                    log.debug(meter.show(done))
            seconds = meter.seconds
        speed = store.speed() if store else None
    if not workers.orders:  # then what is new and not ours was drawn by another command
        before |= {k for k, shard in parts.items() if shard.known}
    return _result([parts[k] for k in sorted(parts)], n, seconds, before, speed)


def _result(
    parts: list[Shard], n: int, seconds: float, before: set[int], speed: float | None
) -> Result:
    """Exactly n images of some shards, in order; those of `before` are not our work."""
    batch = len(parts[0].images)
    sizes = [min(batch, n - part.number * batch) for part in parts]
    new = [part.number not in before for part in parts]
    fresh = sum(size for size, is_new in zip(sizes, new, strict=True) if is_new)
    return Result(
        torch.cat([part.images for part in parts])[:n],
        torch.cat([part.labels for part in parts])[:n],
        sum(part.calls * size for part, size in zip(parts, sizes, strict=True)) / n,
        seconds,
        parts[0].fingerprint,
        drawn=sum(new),
        known=len(parts) - sum(new),
        rate=speed or (fresh / seconds if fresh else None),
    )


@contextmanager
def _told(store: Store | None, n: int, batch: int) -> Iterator[None]:
    """If a signal ends it: how many images there are for the next time."""
    try:
        yield
    except SystemExit:
        if store and store.writable and store.shared:
            there = sum(k < count(n, batch) for k in store.there())
            log.info(
                "%s of %s images are there: the same command goes on from them",
                f"{min(n, there * batch):,}", f"{n:,}",
            )  # fmt: skip
        raise
