"""What a config means where a thing can be said in several ways: a length, averages, a name."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffuse.errors import ConfigError

if TYPE_CHECKING:  # whoever asks for --help does not wait for OmegaConf
    from omegaconf import DictConfig

UNITS = ("steps", "epochs", "images", "minutes")  # of the length of a training
LENGTHS = tuple(f"train.{unit}" for unit in UNITS)
RESUME = ("none", "auto", "must")  # words of `resume=` that name no run: the command says all
DEFAULT_MINUTES = 4.0
OWN = ("folder", "parquet", "hub")  # data sets that may be any
# the groups that a picture is about: none for those of a run, whose name they take
ABOUT = {
    **dict.fromkeys(("data", "noise", "preprocessing"), ("dataset",)),
    **dict.fromkeys(("denoise", "trajectory", "fid_trajectory", "samplers"), ()),
}


def length(train: "Mapping[str, Any] | DictConfig") -> tuple[str, float]:
    """The one way in which a training's length is said, e.g. ("minutes", 4.0)."""
    given = [(unit, train[unit]) for unit in UNITS if train[unit] is not None]
    if len(given) > 1:
        said = " and ".join(f"train.{unit}={number:g}" for unit, number in given)
        raise ConfigError(f"{said}: say the length once, as train.{'|'.join(UNITS)}")
    return given[0] if given else ("minutes", DEFAULT_MINUTES)


def steps(train: "Mapping[str, Any] | DictConfig", images: int | None = None) -> int | None:
    """A training's length in steps; None of minutes, and of epochs of unknown images."""
    unit, amount = length(train)
    of_images = {"images": amount, "epochs": None if images is None else amount * images}
    many = amount if unit == "steps" else of_images.get(unit)
    if many is None:
        return None
    return max(1, round(many)) if unit == "steps" else steps_of(many, train["batch"])


def steps_of(images: float, batch: int) -> int:
    """How many steps see so many images, where batches run across epochs."""
    return max(1, round(images / batch))


def decays(train: "Mapping[str, Any] | DictConfig") -> list[float]:
    """Of the averages of the weights: `train.ema` is a number or a list; the first one counts."""
    ema = train["ema"]
    return [float(decay) for decay in (ema if isinstance(ema, Sequence) else [ema])]


def called(cfg: "DictConfig", group: str, choice: str) -> str:
    """What a run calls a choice; data of one's own is called as its folder, file or id is."""
    if group != "dataset" or choice not in OWN:
        return choice
    where = cfg.dataset.get("root") or cfg.dataset.get("id") or ""
    return re.sub(r"[^\w.-]+", "-", Path(where).stem).strip("-.") or choice


def run_name(cfg: "DictConfig", choices: Mapping[str, str]) -> str | None:
    """`name=`, else the experiment's, else what the run is about; null if only its run can tell."""
    picture = cfg.get("what")
    groups = ("dataset", "schedule") if picture is None else ABOUT.get(picture)
    if "images" in cfg and cfg.images is None:  # an evaluation of a run: where its data is now
        groups = ()
    about = [str(picture)]
    if groups is not None:
        about = [called(cfg, group, choices[group]) for group in groups if choices.get(group)]
    name = cfg.name or choices.get("experiment") or "-".join(about) or None
    if name and not cfg.name:
        name = name.replace("/", "-")
    return name
