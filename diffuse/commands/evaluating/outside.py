"""Images that another tool made, beside the same numbers of real images."""

import hashlib
import logging
import re
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, flag_override
from torch import Tensor

from diffuse import (
    assembly,
    evaluations,
    foreign,
    hardware,
    measures,
    passport,
    plots,
    restored,
    run_folders,
    runs,
    scoring,
)
from diffuse.commands import starting
from diffuse.commands.evaluating import doubts, judging, pictures, scores
from diffuse.config import Job
from diffuse.console import print_dry_run
from diffuse.data import ImageSet, ImageSpec
from diffuse.encoders import Encoder, open_encoder
from diffuse.errors import ConfigError, DataError, DiffuseError
from diffuse.foreign import Images, Statistics
from diffuse.interrupts import Interrupts
from diffuse.scoring import Real
from diffuse.seeds import generator
from diffuse.trackers import Quiet

log = logging.getLogger(__name__)

IDLE = (
    *("run", "checkpoint", "weights", "sampler", "grid", "reuse", "steps", "nfe", "label", "clip"),
    *("noise_level", "start", "batch", "devices", "precision", "seeds", "save", "known"),
    *("guidance", "guidance_levels", "guide", "eval"),  # eval.seeds is how seeds may be typed
)


def main(cfg: DictConfig, job: Job, tracker: Quiet) -> int:
    """Read the images and what they are compared with, then claim a folder and score them."""
    job.refuse(IDLE, "nothing is drawn with images=, which are there already")
    if not cfg.dataset and not cfg.reference:
        cfg = _beside_the_newest_run(cfg)
    given = foreign.read_images(cfg.images)
    chosen, drawn = _chosen(cfg, job, given)
    train, test = _sets(cfg)
    given = _of_this_data(given, test)
    asked = None
    if (labels := _asked(given, test)) is not None:
        asked, drawn["labels"] = labels[chosen], hashlib.sha256(labels.numpy().data).hexdigest()
    given, statistics, real = _compared(cfg, given, chosen, train, test)
    pixels = given.images[chosen]
    wanted = judging.groups(cfg, job, asked, len(pixels), real)
    said = [*given.doubts]  # they were said when it was read
    said += doubts.of_numbers(
        real.encoder, len(pixels), pixels, real, statistics,
        asked if "per_class" in wanted else None,
    )  # fmt: skip
    if real.floor is None and real.train is None:
        said.append("there is no floor: only dataset= has real images to measure beside these")
        log.warning("%s", said[-1])
    rows = {"images": f"{len(pixels):,} of {given.source}", "metrics": ", ".join(wanted)}
    if cfg.dry_run:
        print_dry_run(rows, job.json)
        return 0
    folder, run = _begin(cfg, job, given)
    with run.logged(), run.watched(), Interrupts(at_once=True):
        started = time.monotonic()
        tracker.start(folder, cfg.name, dict(run.facts))
        record = judging.scored(cfg, wanted, [(pixels, asked)], real)
        record |= {
            "schema": evaluations.SCHEMA,
            "n": len(pixels),
            "warnings": said,
            "encoder": passport.of_encoder(real.encoder),
            **judging.reference(real, statistics, test),
            "source": {"path": given.source, "sha256": given.sha256, **drawn},
            "seeds": {"count": 1},
            "range": [0, 255],
            "dtype": "uint8",  # of what was read: no network has drawn it here
            **passport.of_machine(hardware.device(cfg.device)),
            "code": passport.of_code(real.encoder),
            "command": job.line,
            "seconds": round(time.monotonic() - started, 1),
        }
        pictures.keep(folder, record, partial(plots.grid, pixels[:100]), pixels, real)
        tracker.log(0, {name: score["value"] for name, score in measures.scores(record).items()})
        tracker.image(0, "samples", folder / "samples.png")
        run.finish("done")
        tracker.finish()
    return scores.show(job, folder, record, test.spec.classes if test else ())


def _beside_the_newest_run(cfg: DictConfig) -> DictConfig:
    """With the data that the newest training run has learnt from."""
    try:
        newest = run_folders.find(Path(cfg.outputs), None)
    except ConfigError:
        raise ConfigError(
            "images: say what they are compared with, by dataset= or reference=: there is no "
            "training run here whose data it could be"
        ) from None
    cfg, dataset = cfg.copy(), restored.saved_config(newest).dataset
    with flag_override(cfg, "struct", False):
        cfg.dataset = dataset
    log.info("compared with %s, the data of the newest run, %s", dataset.name, newest)
    return cfg


def _chosen(cfg: DictConfig, job: Job, given: Images) -> tuple[Tensor | slice, dict[str, Any]]:
    """All images; or, if n was typed, the numbers of so many by chance, and how they were found."""
    there = len(given.images)
    if not job.typed("n"):
        if there < 4:
            raise DataError(f"{given.source} holds {there} images, an interval needs at least 4")
        return slice(None), {"n": there}
    if cfg.n > there:
        raise ConfigError(f"n={cfg.n}, but {given.source} holds {there} images")
    order = torch.randperm(there, generator=generator(cfg.seed, "chosen"))[: cfg.n]
    return order.sort().values, {"n": there, "seed": cfg.seed}


def _sets(cfg: DictConfig) -> tuple[ImageSet, ImageSet] | tuple[None, None]:
    if not cfg.dataset:
        return None, None
    return assembly.real_sets(cfg.dataset)


def _of_this_data(given: Images, test: ImageSet | None) -> Images:
    """Images are compared at the data's own size; resizing them is for who made them to choose.

    So is making them gray, unless they are.
    """
    if test is None:
        return given
    spec, advice = test.spec, ""
    ours, theirs = (spec.channels, spec.native_height, spec.native_width), given.images.shape[1:]
    if ours == tuple(theirs):
        return given
    if ours == (1, *theirs[1:]):
        if gray := foreign.as_gray(given):
            log.info("%s: R = G = B everywhere, so these images count as gray", given.source)
            return gray
        advice = "; some have colours: make them gray first if that is what they should be"
    sizes = [f"{h}x{w} with {c} channel{'s' * (c != 1)}" for c, h, w in (theirs, ours)]
    raise DataError(f"{given.source} holds images of {sizes[0]}, {spec.name} of {sizes[1]}{advice}")


def _asked(given: Images, test: ImageSet | None) -> Tensor | None:
    """The labels that came with the images, where they are classes of this data."""
    labels, many = given.labels, len(test.spec.classes) if test else 0
    if labels is None or not many:
        return None
    low, high = labels.aminmax()
    if low < 0 or high >= many:
        log.warning(
            "%s: its labels are ignored: they are %d to %d, classes 0 to %d",
            given.source, low, high, many - 1,
        )  # fmt: skip
        return None
    log.info("%s: its labels count as the classes that were asked for", given.source)
    return labels


def _compared(
    cfg: DictConfig,
    given: Images,
    chosen: Tensor | slice,
    train: ImageSet | None,
    test: ImageSet | None,
) -> tuple[Images, Statistics | None, Real]:
    """With the images as gray ones if there is no data set, and only so they can be compared."""
    try:
        return given, *_real(cfg, given.images[chosen], train, test)
    except DiffuseError as error:
        rgb = test is None and given.images.shape[1] == 3
        if not rgb or (gray := foreign.as_gray(given)) is None:
            raise
        try:
            found = _real(cfg, gray.images[chosen], train, test)
        except DiffuseError:
            raise error from None
        log.info("%s: R = G = B everywhere, so these images count as gray", given.source)
        return gray, *found


def _real(
    cfg: DictConfig, pixels: Tensor, train: ImageSet | None, test: ImageSet | None
) -> tuple[Statistics | None, Real]:
    """What the images are compared with; of a plan alone (`dry_run`) no feature is computed."""
    size = pixels.shape[-2:]
    if test is not None and train is not None and not cfg.dry_run:
        judge = assembly.judge(cfg, train=train, test=test)
        statistics = judging.statistics(cfg, judge.encoder, size)
        return statistics, scoring.real(judge, len(pixels), *judging.moments_and_rows(statistics))
    encoder = _encoder(cfg, pixels, train, test)
    statistics = judging.statistics(cfg, encoder, size)
    moments, rows = judging.moments_and_rows(statistics)
    if moments is None:
        assert train is not None
        assert test is not None
        return None, scoring.unmeasured(encoder, train, test)
    return statistics, Real(moments, encoder, rows, train=train, is_test=False)


def _encoder(
    cfg: DictConfig, pixels: Tensor, train: ImageSet | None, test: ImageSet | None
) -> Encoder:
    """The encoder for this data or, if there is none, for images of this size."""
    c, h, w = pixels.shape[1:]
    spec = test.spec if test else ImageSpec("images", c, h, w, h, w, "none", ())
    data = (train.sha256, test.sha256) if train and test else ()
    return open_encoder(cfg.encoder, spec, cfg.outputs, data).to(hardware.device(cfg.device))


def _begin(cfg: DictConfig, job: Job, given: Images) -> tuple[Path, runs.Run]:
    """Claim a folder named after the images, unless a name was typed."""
    if not job.typed("name"):
        cfg.name = re.sub(r"[^A-Za-z0-9]+", "-", Path(given.source).stem).strip("-")[:100] or None
        cfg.name = cfg.name or "images"
    device = hardware.describe(hardware.device(cfg.device))
    source = {"path": given.source, "sha256": given.sha256}
    return starting.start("eval", cfg, job, device=device, source=source)
