"""A training run brought back to life: its config, its network, what its checkpoint knows."""

from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from diffuse import assembly, averages, checkpoints, files, hardware, meanings, runs, schemas
from diffuse.data import ImageSpec
from diffuse.denoiser import Denoiser
from diffuse.errors import ConfigError, DataError, nearest, reason
from diffuse.schedules import Schedule

EARLIER = {"upsample": "nearest"}  # of every UNet, before there was such a key


@dataclass(frozen=True)
class Trained:
    """A training run brought back to life."""

    folder: Path
    cfg: DictConfig  # of the training
    state: dict[str, Any]  # of the checkpoint
    spec: ImageSpec
    denoiser: Denoiser
    schedule: Schedule
    checkpoint: Path
    sha256: str  # of the weights' file

    @property
    def step(self) -> int:
        """Of the checkpoint."""
        return self.state["step"]

    @property
    def title(self) -> str:
        """E.g. "outputs/train/name/v001, step 1,778"."""
        return f"{self.folder}, step {self.step:,}"

    @property
    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of the pixels that it has learnt from, in `range`."""
        mean, std = self.state["moments"]
        return mean, std

    @property
    def levels(self) -> tuple[float, float]:
        """The lowest and the highest sigma that it was trained at."""
        low, high = self.state["levels"]
        return low, high

    @property
    def range(self) -> tuple[float, float]:
        """The interval that pixels are mapped to."""
        return assembly.pixel_range(self.cfg)

    @property
    def conditional(self) -> bool:
        """Does the network know classes?"""
        return assembly.knows_classes(self.cfg)

    @property
    def of_classes(self) -> bool:
        """Are the classes that it knows those of its data, and not clusters?"""
        return assembly.of_classes(self.cfg)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.denoiser.parameters()).device


def config_of(folder: Path) -> DictConfig:
    """The config that a command left in its folder; DataError if it is none, or another now."""
    path = folder / "config.yaml"
    try:
        cfg = OmegaConf.load(StringIO(files.read_sealed(path)))
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except DataError:
        raise
    except Exception as e:  # yaml's errors share no base with OmegaConf's
        raise DataError(f"{path} is damaged: {reason(e, None)}") from None
    if not isinstance(cfg, DictConfig):
        raise DataError(f"{path} is damaged: it holds no mapping")
    return cfg


def saved_config(folder: Path) -> DictConfig:
    """The config of a training. It is data: names outside our rooms need `trust=`."""
    cfg, path = config_of(folder), folder / "config.yaml"
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schemas.SCHEMAS["train"]), cfg)
    except Exception as e:  # as of `config_of`
        raise DataError(f"{path} is damaged: {reason(e, None)}") from None
    if missing := sorted(OmegaConf.missing_keys(merged)):
        raise DataError(f"{path} is damaged: it has no {missing[0]}")
    assert isinstance(merged, DictConfig)
    if merged.model.get("name") == "UNet":
        merged.model = OmegaConf.merge(EARLIER, merged.model)
    return merged


def restore(folder: Path, checkpoint: int | str | None, weights: str, cfg: DictConfig) -> Trained:
    """The denoiser of a run with the weights of a checkpoint, which is verified first.

    A training that goes on may delete it before it is read: then the newest is another one.
    """
    path = verified_checkpoint(folder, checkpoint)
    try:
        return _restored(folder, path, weights, cfg)
    except FileNotFoundError:
        if path.exists():
            raise
    if checkpoint is not None:
        raise DataError(f"{path} is gone: the training that goes on has deleted it")
    return restore(folder, checkpoint, weights, cfg)


def _restored(folder: Path, path: Path, weights: str, cfg: DictConfig) -> Trained:
    trained_cfg, state = saved_config(folder), checkpoints.load_state(path)
    spec = ImageSpec.read(state["spec"])
    device = hardware.device(cfg.device)
    if cfg.precision != "auto":
        trained_cfg.precision = cfg.precision
    elif device.type != state["device"]:
        trained_cfg.precision = "auto"
    model = assembly.denoiser(trained_cfg, spec, device)
    file = weights_file(trained_cfg, weights, folder)
    try:
        model.net.load_state_dict(checkpoints.load_tensors(path, file))
    except RuntimeError as e:
        raise DataError(f"{path / file}.safetensors does not fit {folder}: {reason(e)}") from None
    schedule, _ = assembly.schedule_and_law(trained_cfg)
    digest = checkpoints.sha256(path, file)
    return Trained(folder, trained_cfg, state, spec, model.eval(), schedule, path, digest)


def weights_file(trained: DictConfig, weights: str, folder: Path) -> str:
    """The file that `weights=` means: ema, raw, or the average of another decay, as ema_0.999."""
    if weights == "raw":
        return "model"
    decays = meanings.decays(trained.train)
    file = averages.find(weights, decays)
    if file is None:
        choices = ", ".join([*averages.names(decays), "raw"])  # a number has no nearest word
        raise ConfigError(f"weights: {folder} has no average {weights}; choices: {choices}")
    return file


def verified_checkpoint(folder: Path, which: int | str | None) -> Path:
    """A verified checkpoint: a step, "best", or null = the newest whole one."""
    checkpoint_folder = folder / "checkpoints"
    if which is None:
        newest = checkpoints.newest(checkpoint_folder)
        if newest is None:
            raise DataError(f"{folder} has no whole checkpoint")
        return newest
    steps = checkpoints.steps(checkpoint_folder)
    if which == "best":
        which = runs.table(runs.read(folder), "best").get("step")
        if which is None:
            raise ConfigError(f"{folder} has no best checkpoint: train with train.eval_every=")
    if which not in steps:
        raise ConfigError(
            f"{folder} has no checkpoint {which}; {nearest(str(which), map(str, steps))}"
        )
    path = checkpoints.at(checkpoint_folder, int(which))
    checkpoints.verify(path)
    return path
