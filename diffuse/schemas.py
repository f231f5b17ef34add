"""What may stand in a command's config: the keys and their types.

The defaults live in `conf/<verb>.yaml`, once; here is only what our own code reads. Hydra merges
the yaml into these, so a mistyped key is refused even inside an experiment. A group's own keys are
checked by `config.build`, against the signature of the function they are for; ranges by `ranges`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from diffuse.errors import ConfigError

Group = dict[str, Any]

LENGTHS = ("steps", "epochs", "images", "minutes")
DEFAULT_MINUTES = 4.0
# the groups that a picture is about: none for those of a run, whose name they take
ABOUT = {"data": ("dataset",), "noise": ("dataset",), "denoise": (), "trajectory": ()}


@dataclass
class Common:
    """What every command that writes a run folder understands."""

    name: str | None = MISSING
    hypothesis: str = MISSING
    seed: int = MISSING
    device: str = MISSING
    precision: str = MISSING
    outputs: str = MISSING
    dry_run: bool = MISSING
    smoke: bool = MISSING
    trust: str | None = MISSING


@dataclass
class Drawing:
    """How images are drawn: the same words in train, sample and eval."""

    n: int = MISSING
    steps: int | None = MISSING
    nfe: int | None = MISSING
    clip: str = MISSING
    start: str = MISSING


@dataclass
class Training:
    """How long a training lasts, and what happens on the way."""

    steps: int | None = MISSING
    epochs: float | None = MISSING
    images: int | None = MISSING
    minutes: float | None = MISSING
    batch: int = MISSING
    micro_batch: int | None = MISSING
    shuffle: bool = MISSING
    lr_schedule: str = MISSING
    warmup: int = MISSING
    clip_grad: float | None = MISSING
    ema: Any = MISSING  # a number or a list of them
    on_nan: str = MISSING
    label_dropout: float = MISSING
    log_every: int = MISSING
    sample_every: int | None = MISSING
    save_every: int | None = MISSING
    keep: int = MISSING
    keep_every: int | None = MISSING
    eval_every: int | None = MISSING
    eval_n: int = MISSING


@dataclass
class Train(Drawing, Common):
    """conf/train.yaml"""

    resume: str = MISSING
    resume_allow: list[str] = MISSING
    init_from: str | None = MISSING
    init_weights: str = MISSING
    compile: bool | str = MISSING
    range: list[float] = MISSING
    train: Training = MISSING
    dataset: Group = MISSING
    model: Group = MISSING
    objective: Group = MISSING
    weighting: Group = MISSING
    schedule: Group = MISSING
    noise_law: Group = MISSING
    optimizer: Group = MISSING
    sampler: Group = MISSING
    grid: Group = MISSING
    reuse: Group = MISSING
    encoder: Group = MISSING
    tracker: Group = MISSING


@dataclass
class Sample(Drawing, Common):
    """conf/sample.yaml"""

    run: str | None = MISSING
    checkpoint: int | str | None = MISSING
    weights: str = MISSING
    batch: int | None = MISSING
    label: int | str | None = MISSING
    noise_level: str | None = MISSING
    save: str | None = MISSING
    sampler: Group = MISSING
    grid: Group = MISSING
    reuse: Group = MISSING
    tracker: Group = MISSING


@dataclass
class Eval(Sample):
    """conf/eval.yaml"""

    kid_subsets: int = MISSING
    kid_subset_size: int = MISSING
    known: bool = MISSING
    encoder: Group = MISSING


@dataclass
class Encoder(Common):
    """conf/encoder.yaml"""

    epochs: int = MISSING
    batch: int = MISSING
    width: int = MISSING
    dataset: Group = MISSING
    optimizer: Group = MISSING


@dataclass
class NoiseLevel(Common):
    """conf/noise_level.yaml"""

    epochs: int = MISSING
    batch: int = MISSING
    width: int = MISSING
    range: list[float] = MISSING
    dataset: Group = MISSING
    schedule: Group = MISSING
    optimizer: Group = MISSING


@dataclass
class Plot(Common):
    """conf/plot.yaml"""

    what: str = MISSING
    n: int | None = MISSING
    columns: int = MISSING
    range: list[float] = MISSING
    run: str | None = MISSING
    checkpoint: int | str | None = MISSING
    weights: str = MISSING
    label: int | str | None = MISSING
    steps: int | None = MISSING
    nfe: int | None = MISSING
    clip: str = MISSING
    start: str = MISSING
    noise_level: str | None = MISSING
    dataset: Group = MISSING
    objective: Group = MISSING
    schedule: Group = MISSING
    noise_law: Group = MISSING
    grid: Group = MISSING
    sampler: Group = MISSING
    reuse: Group = MISSING


SCHEMAS = {
    "train": Train, "sample": Sample, "eval": Eval, "encoder": Encoder, "noise_level": NoiseLevel,
    "plot": Plot,
}  # fmt: skip


def register() -> None:
    """Make `- schema/<verb>` available to the defaults lists of conf/."""
    for verb, schema in SCHEMAS.items():
        ConfigStore.instance().store(verb, schema, group="schema", package="_global_")


def length(train: Mapping[str, Any] | DictConfig) -> tuple[str, float]:
    """The one way in which a training's length is said, e.g. ("minutes", 4.0)."""
    given = [(unit, train[unit]) for unit in LENGTHS if train[unit] is not None]
    if len(given) > 1:
        said = " and ".join(f"train.{unit}={number:g}" for unit, number in given)
        raise ConfigError(f"{said}: say the length once, as train.{'|'.join(LENGTHS)}")
    return given[0] if given else ("minutes", DEFAULT_MINUTES)


def decays(train: Mapping[str, Any] | DictConfig) -> list[float]:
    """Of the averages of the weights: `train.ema` is a number or a list; the first one counts."""
    ema = train["ema"]
    return [float(decay) for decay in (ema if isinstance(ema, Sequence) else [ema])]


def run_name(cfg: DictConfig, choices: Mapping[str, str]) -> str | None:
    """`name=`, else the experiment's, else what the run is about; null if only its run can tell."""
    picture = cfg.get("what")
    groups = ("dataset", "schedule") if picture is None else ABOUT.get(picture)
    about = [str(picture)]
    if groups is not None:
        about = [choices[group] for group in groups if choices.get(group)]
    name = cfg.name or choices.get("experiment") or "-".join(about) or None
    if name and not cfg.name:
        name = name.replace("/", "-")
    return name


def as_yaml(cfg: DictConfig, resolve: bool = False) -> str:
    """A config to read: in the order of the schema, short lists on one line, nothing of Hydra's."""
    cfg = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    return yaml.dump(
        OmegaConf.to_container(cfg, resolve=resolve),
        Dumper=_dumper(),
        sort_keys=False,
        allow_unicode=True,
        width=100,
    ).rstrip()


def _dumper() -> type[yaml.SafeDumper]:
    class Dumper(yaml.SafeDumper):
        pass

    def sequence(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.Node:
        flat = not any(isinstance(item, list | dict) for item in items)
        return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flat)

    def number(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
        # 1e-05 would be read back as text by YAML 1.1
        text = repr(value)
        if "e" in text and "." not in text:
            text = text.replace("e", ".0e")
        special = {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}
        return dumper.represent_scalar("tag:yaml.org,2002:float", special.get(text, text))

    Dumper.add_representer(list, sequence)
    Dumper.add_representer(float, number)
    return Dumper
