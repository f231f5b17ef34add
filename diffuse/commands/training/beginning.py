"""`init_from=`: the run whose weights a new run begins with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from diffuse import checkpoints, restored, run_folders
from diffuse.errors import ConfigError, DataError


@dataclass(frozen=True)
class Beginning:
    """Weights of another run, in a checkpoint that was verified."""

    checkpoint: Path
    file: str
    facts: dict[str, Any]  # which they are, to the byte, for run.json

    def check(self) -> None:
        """DataError if these are no longer the weights that were found."""
        checkpoints.verify(self.checkpoint)
        if checkpoints.sha256(self.checkpoint, self.file) != self.facts["sha256"]:
            raise DataError(f"init_from: {self.checkpoint} holds other weights than a moment ago")

    def give(self, net: nn.Module) -> None:
        """The weights to a network that has to be the same."""
        try:
            net.load_state_dict(checkpoints.load_tensors(self.checkpoint, self.file))
        except RuntimeError as error:  # other channels or classes
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"init_from: the weights of {self.facts['run']} do not fit these images: {reason}"
            ) from None


def named(outputs: Path, ref: str) -> tuple[Path, int | str | None]:
    """A run and which of its checkpoints: None = the newest one that it has, damaged or not."""
    ref, which = run_folders.parted(ref)
    folder = run_folders.find(outputs, ref)
    steps = checkpoints.steps(folder / "checkpoints")
    if which is None:
        which = steps[-1] if steps else None
    return folder, which


def find(cfg: DictConfig) -> Beginning | None:
    """What `init_from=` names."""
    if cfg.init_from is None:
        return None
    folder, which = named(Path(cfg.outputs), cfg.init_from)
    saved = restored.saved_config(folder)
    _same_model(cfg, saved, folder)
    checkpoint = restored.verified_checkpoint(folder, which)
    file = restored.weights_file(saved, cfg.init_weights, folder)
    facts = {
        "run": str(folder),
        "step": checkpoints.load_state(checkpoint)["step"],
        "weights": cfg.init_weights,
        "sha256": checkpoints.sha256(checkpoint, file),
    }
    return Beginning(checkpoint, file, facts)


def _same_model(cfg: DictConfig, saved: DictConfig, folder: Path) -> None:
    here, there = OmegaConf.to_container(cfg.model), OmegaConf.to_container(saved.model)
    assert isinstance(here, dict)
    assert isinstance(there, dict)
    for key in [*here, *(key for key in there if key not in here)]:
        if key != "meta" and here.get(key) != there.get(key):
            raise ConfigError(
                f"init_from: model.{key} is {there.get(key)} in {folder}, {here.get(key)} here; "
                "the model must be the same"
            )
