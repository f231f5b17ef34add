"""What every evaluation does with its images, wherever they come from: score them, and warn."""

import logging
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from omegaconf import DictConfig, ListConfig
from torch import Tensor

from diffuse import assembly, evaluations, passport, runs, scoring
from diffuse.commands.evaluating import references
from diffuse.commands.evaluating.references import Pictured
from diffuse.config import Job
from diffuse.data import ImageSet, ImageSpec
from diffuse.data.images import fitted, sha256_of
from diffuse.encoders import Encoder
from diffuse.errors import ConfigError, DataError, nearest
from diffuse.foreign import Statistics
from diffuse.metrics import Moments, enough
from diffuse.restored import Trained
from diffuse.scoring import GROUPS, Real, Rows, Settings

log = logging.getLogger(__name__)

ALL = "all"
PLACES = ("root", "id")  # the keys of a data set that say where it is


def check(cfg: DictConfig) -> None:
    """`metrics=` as it can be wrong without looking at anything."""
    words = cfg.metrics if isinstance(cfg.metrics, ListConfig) else [cfg.metrics]
    for word in words:
        if word not in (*GROUPS, ALL):
            raise ConfigError(f"metrics: unknown choice {word!r}; {nearest(word, [*GROUPS, ALL])}")
    if not words:
        raise ConfigError(f"metrics needs at least one value, or all: {', '.join(GROUPS)}")


def moved(cfg: DictConfig, job: Job, trained: Trained) -> Mapping[str, Any]:
    """The data set that `dataset=` says; {} if it says none.

    It says where the data of the run is now. How it is read, and how much of it, is as in the
    training, but for keys that were typed.
    """
    said, learnt = cfg.dataset, trained.cfg.dataset
    if not said or said.get("name") != learnt.name:
        return said
    keys = [key for key in said if key in PLACES or job.typed(f"dataset.{key}")]
    return {**learnt, **{key: said[key] for key in keys}}


def sets_of(trained: Trained, moved: Mapping[str, Any]) -> tuple[ImageSet, ImageSet, list[str]]:
    """The splits (training, test) that a run learnt from, and what is to be said of them.

    They are where the run found them, or where `moved`, a `dataset=`, says they are now: the same
    to the byte, else it is a ConfigError. In the run's own place other images are a warning, and a
    DataError where they have other channels, another size or other classes than the network knows.
    """
    try:
        train, test = assembly.real_sets(moved or trained.cfg.dataset)
    except DataError as error:
        where = f"dataset= says where the data of {trained.folder} is now"
        hint = "" if moved else f"; in diffuse eval, {where}"  # others have no such key
        raise DataError(f"{error}{hint}") from error
    before, now = _apart(trained.spec, test.spec, trained.of_classes)
    if before != now:
        said = f"{trained.folder} learnt from {before}; {test.spec.name} has {now}"
        raise ConfigError(f"dataset: {said}") if moved else DataError(said)
    known = runs.table(runs.facts_of(trained.folder), "data")
    seen = [known.get(key) for key in ("sha256", "test_sha256")]
    there = [sha256_of(fitted(s.images, trained.spec.fit), s.labels) for s in (train, test)]
    if all(old in (None, now) for old, now in zip(seen, there, strict=True)):
        return train, test, []
    said = f"{trained.folder} learnt from other images than {train.spec.name} has now"
    if moved:
        raise ConfigError(f"dataset: {said}")
    said += ": what was for training then may be for tests now"
    log.warning("%s", said)
    return train, test, [said]


def _apart(learnt: ImageSpec, now: ImageSpec, of_classes: bool) -> list[str]:
    """Two kinds of images by what sets them apart; the same words if a network may take both."""
    specs = (learnt, now)
    shapes = [f"images of {s.channels}x{s.native_height}x{s.native_width}" for s in specs]
    names = [spec.classes for spec in specs]
    if len(set(shapes)) > 1 or len(set(names)) == 1 or not of_classes:
        return shapes
    k = next(k for k, pair in enumerate(zip_longest(*names)) if len(set(pair)) > 1)
    return [
        f"{len(of)} classes" + (f", number {k} is {of[k]}" if k < len(of) else "") for of in names
    ]


def groups(cfg: DictConfig, job: Job, labels: Tensor | None, n: int, real: Real) -> list[str]:
    """The groups to compute, FID always; one that was asked for and cannot be is refused."""
    wanted = [group for group in GROUPS if group == "fid" or asked_for(cfg, group)]
    typed = not asked_for(cfg, ALL) and job.typed("metrics")
    settings, kept = settings_of(cfg), []
    for group in wanted:
        reason = scoring.impossible(group, n, labels, real, settings)
        if reason and group == "infinity":
            least = f"{enough(real.encoder.dim):,}"
            if scoring.sizes(n):
                said = f"FID at infinite n needs {least} images: only the curve by n is shown"
                log.log(logging.WARNING if typed else logging.INFO, "%s", said)
                continue
            reason = (
                "it needs more than 256 images for the curve of FID by n, "
                f"and {least} for its end at infinite n"
            )
        if reason and typed:
            raise ConfigError(f"metrics: no {group} here: {reason}")
        elif reason:
            log.info("no %s: %s", group, reason)
        else:
            kept.append(group)
    return kept


def asked_for(cfg: DictConfig, group: str) -> bool:
    """Is it one of `metrics=`, by name or with all others?"""
    asked = [cfg.metrics] if isinstance(cfg.metrics, str) else cfg.metrics
    return group in asked or ALL in asked


def settings_of(cfg: DictConfig) -> Settings:
    """What the config says of how KID and the measures of neighbours are computed."""
    return Settings(cfg.kid_subsets, cfg.kid_subset_size, cfg.neighbours)


def statistics(cfg: DictConfig, encoder: Encoder, size: Sequence[int]) -> Statistics | None:
    """The reference that `reference=` names, if it does.

    `size` is the height and width of the images to be scored: a reference of images of another one
    is a DataError. A dry run computes no features.
    """
    if not cfg.reference:
        return None
    return references.read(cfg.reference, encoder, size, measured=not cfg.dry_run)


def moments_and_rows(statistics: Statistics | None) -> tuple[Moments | None, Rows | None]:
    """The moments of a reference that somebody else made, and its images where they are known."""
    rows = statistics.rows if isinstance(statistics, Pictured) else None
    return (statistics.moments if statistics else None), rows


def scored(
    cfg: DictConfig,
    wanted: Sequence[str],
    draws: Sequence[tuple[Tensor, Tensor | None]],  # images and labels of each seed
    real: Real,
) -> dict[str, Any]:
    """The numbers of a record; features that are none are a DataError."""
    settings = settings_of(cfg)
    try:
        encoded = [scoring.rows_again(real.encoder, *draw) for draw in draws]
        rows: list[Rows] = [one for one, _ in encoded]
        rate = sum(map(len, rows)) / max(sum(seconds for _, seconds in encoded), 1e-9)
        found: dict[str, Any] = {}
        for group in wanted:
            found |= scoring.measured(group, rows, real, settings)
        curve = scoring.curve(rows, real) if asked_for(cfg, "infinity") else []
        curves = {"fid": curve} if curve else {}
    except ValueError as error:
        raise DataError(f"encoder {real.encoder.name}: {error}") from error
    except OverflowError as error:
        said = "its features are too large to compute with"
        raise DataError(f"encoder {real.encoder.name}: {said}") from error
    main = {name: found.pop(name) for name in ("fid", "kid") if name in found}
    floor_n = len(real.floor) if real.floor else None
    more = {"metrics": found, "curves": curves, "floor_n": floor_n}
    more["features_per_second"] = evaluations.rounded(rate)
    more["size"] = [*rows[0].images.shape[-2:]]
    most = min(len(rows[0]), len(real.reference or rows[0]))
    return main | more | {"settings": settings.record(wanted, most)}


def selected(cfg: DictConfig) -> list[str]:
    """Of weights that were chosen by the number that is going to be measured."""
    if cfg.checkpoint != "best":
        return []
    said = (
        "checkpoint=best was chosen by its FID on these test images: the lowest of several is "
        "lower than it would be again; the newest checkpoint was not chosen"
    )
    log.warning("%s", said)
    return [said]


def reference(real: Real, known: Statistics | None, test: Any) -> dict[str, Any]:
    """The passport's fields of what is real."""
    if known is None:
        return {"reference": passport.of_images(test, "test")} | _real(real)
    statistics = {"path": known.source, "split": None, "n": known.n, "sha256": known.sha256}
    return {"reference": statistics} | _real(real)


def _real(real: Real) -> dict[str, Any]:
    return {"real": passport.of_images(real.train, "train")} if real.train else {}
