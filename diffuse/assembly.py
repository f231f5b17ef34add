"""From a config to the objects of a training."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from diffuse import (
    compiling,
    config,
    hardware,
    trackers,
)
from diffuse.data import ImageSet, ImageSpec, open_splits
from diffuse.denoiser import Denoiser
from diffuse.encoders import open_encoder
from diffuse.errors import ConfigError, DataError
from diffuse.noise_laws import Law
from diffuse.objectives import Objective
from diffuse.schedules import Schedule
from diffuse.scoring import Judge
from diffuse.trackers import Quiet
from diffuse.weightings import Weighting


def schedule_and_law(cfg: DictConfig) -> tuple[Schedule, Law]:
    """The schedule, and the law by which training draws its levels."""
    schedule = config.build("schedule", cfg.schedule)
    if schedule.zero_snr and cfg.objective.name == "eps":
        raise ConfigError(
            "objective: eps says nothing where there is no signal, as at the last level of "
            "schedule.zero_snr=true; use objective=v or x0"
        )
    return schedule, config.build("noise_law", cfg.noise_law, schedule=schedule)


def network(cfg: DictConfig, spec: ImageSpec) -> nn.Module:
    """The backbone for images like these."""
    return config.build(
        "model",
        cfg.model,
        channels=spec.channels,
        size=(spec.height, spec.width),
        classes=len(spec.classes),
    )


def knows_classes(cfg: DictConfig) -> bool:
    """Does the backbone, ours or one from outside, take labels? Its yaml says so."""
    return bool(cfg.model.get("conditional"))


def of_classes(cfg: DictConfig) -> bool:
    """Are the classes that it knows those of its data, and not clusters (`dataset.clusters`)?"""
    return knows_classes(cfg) and not cfg.dataset.get("clusters")


def pixel_range(cfg: DictConfig) -> tuple[float, float]:
    """The interval that pixels are mapped to."""
    low, high = cfg.range
    return low, high


def denoiser(cfg: DictConfig, spec: ImageSpec, device: torch.device) -> Denoiser:
    """The backbone with its objective, on the device; weights depend on the seed alone."""
    torch.manual_seed(cfg.seed)
    _, dtype = hardware.precision(cfg.precision, device)
    objective, weighting = objective_and_weighting(cfg)
    return Denoiser(network(cfg, spec), objective, weighting, dtype).to(device)


def compiles(cfg: DictConfig, device: torch.device, seconds: Callable[[], float]) -> bool:
    """What `compile=` says of a training that would last so long without."""
    if cfg.compile == "auto":
        return not cfg.smoke and compiling.pays(device, seconds)
    return cfg.compile


def compiled(
    cfg: DictConfig,
    denoiser: Denoiser,
    spec: ImageSpec,
    device: torch.device,
    world: int,
    strict: bool,  # as its steps are going to be
    seconds: Callable[[], float],  # that the training would last without
) -> None:
    """Compile the backbone if `compile=` says so; from now on it says whether that was done."""
    wanted = compiles(cfg, device, seconds)
    batch = cfg.train.batch // world
    size = cfg.train.micro_batch or batch
    options = compiling.options(device, alone=world == 1 and size == batch)
    cfg.compile = wanted and compiling.prepare(
        denoiser, (size, *spec.shape), device, options, strict
    )


def settle(cfg: DictConfig, device: torch.device) -> torch.dtype:
    """Say which number formats `auto` is: the faster one, and that of the network."""
    cfg.precision, dtype = hardware.precision(cfg.precision, device)
    if cfg.optimizer.get("precision") == "auto":
        cfg.optimizer.precision = cfg.precision
    return dtype


def objective_and_weighting(cfg: DictConfig) -> tuple[Objective, Weighting]:
    """What the network is asked for, and how much each level counts."""
    return config.build("objective", cfg.objective), config.build("weighting", cfg.weighting)


def fill_sigma_data(cfg: DictConfig, std: float) -> None:
    """Write the data's standard deviation where a group wants it measured."""
    for group in ("objective", "weighting"):
        if group in cfg and cfg[group].get("sigma_data", std) is None:
            cfg[group].sigma_data = round(std, 4)


FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)  # on every GPU, since torch 2.3


def optimizer(cfg: DictConfig, net: nn.Module) -> torch.optim.Optimizer:
    """On a GPU in one kernel for all weights, where there is such a one."""
    kind = config.bind("optimizer", cfg.optimizer).func
    fuses = kind in FUSED and next(net.parameters()).is_cuda
    asked = {"fused": True} if fuses and not {"fused", "foreach"} & set(cfg.optimizer) else {}
    built = config.build("optimizer", cfg.optimizer, net.parameters(), **asked)
    closure = inspect.signature(built.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ConfigError(
            f"optimizer: {cfg.optimizer.name} asks for the loss several times a step, "
            "which no training here does"
        )
    return built


def real_sets(dataset: Mapping[str, Any], as_learnt: bool = False) -> tuple[ImageSet, ImageSet]:
    """The training and the test split to judge by: at their own size, whatever a network sees.

    Images that were resized for a network and back are no longer those that others compare with;
    nor are clusters (`dataset.clusters`) classes, so only what is `as_learnt` has their labels.
    """
    grouped = dataset.get("clusters") if as_learnt else None
    return open_splits({**dataset, "fit": "none", "clusters": grouped})


def judge(cfg: DictConfig, *, train: ImageSet, test: ImageSet) -> Judge:
    """The encoder that `encoder=` names, with the reference it compares with."""
    if len(test) < 2 and not cfg.get("reference"):
        raise DataError(f"{test.spec.name}: its test split is 1 image, a FID takes 2 at least")
    data = train.sha256, test.sha256
    encoder = open_encoder(cfg.encoder, test.spec, cfg.outputs, data)
    return Judge(encoder.to(hardware.device(cfg.device)), train=train, test=test)


def tracker(cfg: DictConfig) -> Quiet:
    """The tracker, which is code of others: so in a job only, not when its sweep is checked."""
    return trackers.made(cfg.tracker.name, partial(config.build, "tracker", cfg.tracker))


def sampling_batch(wanted: int | None, device: torch.device) -> int:
    """Images the network sees at once, always: other shapes would differ in the last bits."""
    return wanted or (64 if device.type == "cpu" else 256)
