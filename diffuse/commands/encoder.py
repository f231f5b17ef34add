"""Train the classifier that FID and KID are measured with."""

import dataclasses
import logging
import shlex
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffuse import assembly, conditions, config, data, hardware, provenance, runs
from diffuse.classifier import (
    Classifier,
    accuracy,
    new_classifier,
    round_weights,
    train_classifier,
    training_steps,
)
from diffuse.commands import starting
from diffuse.config import Job
from diffuse.console import Meter, clock, print_dry_run, print_json, print_table
from diffuse.data import ImageSet
from diffuse.data.images import resized
from diffuse.data.splits import sounds_like
from diffuse.encoders import FILE, doubts, save_encoder
from diffuse.errors import ConfigError
from diffuse.interrupts import Interrupts

log = logging.getLogger(__name__)

LARGEST = 64  # pixels: larger images are shrunk to this, a small network sees no more
BLOCKS = (1, 1, 2)  # in the three stages, of width, 2 width and 4 width channels
LOG_EVERY = 50


def main(cfg: DictConfig, job: Job) -> int:
    """Check everything, then claim a run folder, then train and save."""
    if cfg.precision == "fp16":
        raise ConfigError("precision: fp16 would need a loss scale; use auto, bf16 or fp32 here")
    config.bind("optimizer", cfg.optimizer, "params")
    device = hardware.device(cfg.device)
    assembly.settle(cfg, device)
    train, test = map(_shrunk, assembly.real_sets(cfg.dataset))
    spec = train.spec
    if cfg.dataset.get("clusters"):
        raise ConfigError(
            "dataset.clusters: an encoder learns classes that people gave, not groups"
        )
    if len(spec.classes) < 2:
        raise ConfigError(f"dataset: two classes are needed, {spec.name} has {len(spec.classes)}")
    net = new_classifier(spec.channels, len(spec.classes), cfg.width, BLOCKS, cfg.seed)
    plan = {
        "dataset": f"{spec.name}: {len(train):,} images {spec.channels}x{spec.height}x{spec.width}",
        "classes": str(len(spec.classes)),
        "parameters": f"{sum(p.numel() for p in net.parameters()):,}",
        "features": str(net.dim),
        "training": f"{cfg.epochs} epochs, batch {cfg.batch}, {cfg.precision}",
        "device": hardware.describe(device),
    }
    if cfg.dry_run:
        print_dry_run(plan, job.json)
        return 0
    images = {"source": train.source, "sha256": train.sha256}
    folder, run = starting.start("encoder", cfg, job, device=plan["device"], data=images)
    with conditions.repeatable(), run.logged(), run.watched(), Interrupts(at_once=True):
        _train(cfg, run, net.to(device), train)
        round_weights(net)
        share = accuracy(net, test.images.to(device), test.labels.to(device))
        about = _about(cfg, job, train, test, share)
        sha256 = save_encoder(folder / FILE, net, about)
        against = () if cfg.smoke else doubts(about)
        for line in against:
            log.warning("%s", line)
        run.finish("done", accuracy=share, sha256=sha256)
    if job.json:
        print_json({**run.facts, "file": str(folder / FILE)})
        return 0
    rows = {
        "test accuracy": f"{share:.4f} of {len(test):,} images",
        "time": clock(run.facts["seconds"]),
        "file": f"{folder / FILE}, {(folder / FILE).stat().st_size:,} bytes",
        "sha256": sha256,
    }
    if not cfg.smoke and not against:
        rows["use it"] = f"diffuse eval encoder=classifier encoder.path={shlex.quote(str(folder))}"
    print_table(f"encoder {cfg.name}", plan | rows)
    return 0


def _train(cfg: DictConfig, run: runs.Run, net: Classifier, train: ImageSet) -> None:
    device = next(net.parameters()).device
    steps = train_classifier(
        net,
        assembly.optimizer(cfg, net),
        train.images.to(device),
        train.labels.to(device),
        epochs=cfg.epochs,
        batch=cfg.batch,
        crop=_crop(train),
        flip=train.flip,
        seed=cfg.seed,
        dtype=hardware.PRECISIONS[cfg.precision],
    )
    total = training_steps(len(train), cfg.epochs, cfg.batch)
    with Meter("encoder", total, images=min(cfg.batch, len(train))) as meter:
        for step in steps:
            if step.number % LOG_EVERY == 0 or step.number == total:
                run.log(step=step.number, loss=float(step.loss), lr=step.lr)
            if meter.due():
                meter.show(step.number, f"loss {float(step.loss):.3f}")


def _shrunk(images: ImageSet) -> ImageSet:
    """The images, or smaller ones if they are larger than `LARGEST`."""
    spec = images.spec
    shrink = min(1.0, LARGEST / max(spec.height, spec.width))
    if shrink == 1:
        return images
    height, width = (max(1, round(side * shrink)) for side in (spec.height, spec.width))
    spec = dataclasses.replace(spec, height=height, width=width)
    return dataclasses.replace(images, spec=spec, images=resized(images.images, height, width))


def _crop(images: ImageSet) -> int:
    """How far training shifts an image: 2 pixels of 28."""
    return max(1, round(min(images.spec.height, images.spec.width) / 14))


def _called(dataset: DictConfig, train: ImageSet) -> str:
    """The data set's name, with a piece of its sha256 if that name alone would claim too much.

    A part of a set is not the set, and a folder that is called cifar10 need not hold CIFAR-10.
    (Other pixels in CIFAR-10's own layout have another name from the start.)
    """
    name = train.spec.name
    part = any(dataset.get(key) is not None for key in ("classes", "subset"))
    borrowed = dataset.name != name and any(sounds_like(name, one) for one in data.PUBLISHED)
    return f"{name}-{train.sha256[:8]}" if part or borrowed else name


def _about(
    cfg: DictConfig, job: Job, train: ImageSet, test: ImageSet, share: float
) -> dict[str, Any]:
    """What the file says of itself: all that its weights depend on, and nothing of the moment."""
    spec = train.spec
    return {
        "name": f"{_called(cfg.dataset, train)}-classifier",
        "dataset": spec.name,
        "channels": spec.channels,
        "height": spec.height,
        "width": spec.width,
        "classes": list(spec.classes),
        "test_accuracy": share,
        "chance": int(test.labels.bincount().max()) / len(test),
        "data": {"train_sha256": train.sha256, "test_sha256": test.sha256},
        "training": {
            "command": job.line,
            "epochs": cfg.epochs,
            "batch": cfg.batch,
            "crop": _crop(train),
            "flip": train.flip,
            "optimizer": OmegaConf.to_container(cfg.optimizer, resolve=True),
            "seed": cfg.seed,
            "precision": cfg.precision,
            "device": hardware.describe(hardware.device(cfg.device)),
        },
        "versions": provenance.versions(),
    }
