"""What may stand in a command's config: the keys and their types.

The defaults live in `conf/<verb>.yaml`, those of a group's keys in `conf/<group>/`; here is only
what our own code reads. Hydra merges the yaml into these, so a mistyped key is refused even inside
an experiment. A group's own keys are checked by `config.build`, against the signature of the
function they are for; values by `values`.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

Group = dict[str, Any]


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
class Restored:
    """Which training, which of its weights, and which class."""

    run: str | None = MISSING
    checkpoint: int | str | None = MISSING
    weights: str = MISSING
    label: int | str | None = MISSING


@dataclass
class Walk:
    """How images are drawn, in however many steps: the same words wherever they are."""

    clip: str = MISSING
    start: str = MISSING
    guidance: float | None = MISSING
    guide: str | None = MISSING
    guidance_levels: list[float] | None = MISSING


@dataclass
class Drawing(Walk):
    """And in how many."""

    steps: int | None = MISSING
    nfe: int | None = MISSING


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

    n: int = MISSING
    resume: str = MISSING
    resume_allow: list[str] = MISSING
    init_from: str | None = MISSING
    init_weights: str = MISSING
    compile: bool | str = MISSING
    devices: int = MISSING
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
class Sample(Drawing, Restored, Common):
    """conf/sample.yaml"""

    n: int = MISSING
    batch: int | None = MISSING
    devices: int = MISSING
    noise_level: str | None = MISSING
    save: str | None = MISSING
    sampler: Group = MISSING
    grid: Group = MISSING
    reuse: Group = MISSING
    tracker: Group = MISSING


@dataclass
class Eval(Sample):
    """conf/eval.yaml"""

    images: str | None = MISSING
    reference: str | None = MISSING
    seeds: int = MISSING
    metrics: Any = MISSING  # a list, or all
    neighbours: int = MISSING
    kid_subsets: int = MISSING
    kid_subset_size: int = MISSING
    known: bool = MISSING
    dataset: Group = MISSING  # of images=; else that of the training
    encoder: Group = MISSING


@dataclass
class Compare:
    """conf/compare.yaml"""

    runs: list[str] = MISSING
    force: bool = MISSING
    outputs: str = MISSING
    smoke: bool = MISSING


@dataclass
class Pareto(Walk, Restored, Common):
    """conf/pareto.yaml"""

    samplers: Any = MISSING  # a list; of a run, what each is: name -> sampler and grid
    nfe: list[int] = MISSING
    n: int = MISSING
    seeds: int = MISSING
    batch: int | None = MISSING
    devices: int = MISSING
    encoder: Group = MISSING


@dataclass
class Plan:
    """conf/plan.yaml"""

    delta: float | None = MISSING
    power: float = MISSING
    run: str | None = MISSING
    outputs: str = MISSING
    smoke: bool = MISSING


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
class Plot(Drawing, Restored, Common):
    """conf/plot.yaml"""

    what: str | None = MISSING
    n: int | None = MISSING
    columns: int = MISSING
    range: list[float] = MISSING
    noise_level: str | None = MISSING
    samplers: Any = MISSING  # a list; of a run, what each is: name -> sampler and grid
    dataset: Group = MISSING
    objective: Group = MISSING
    schedule: Group = MISSING
    noise_law: Group = MISSING
    grid: Group = MISSING
    sampler: Group = MISSING
    reuse: Group = MISSING
    encoder: Group = MISSING


SCHEMAS = {
    "train": Train, "sample": Sample, "eval": Eval, "encoder": Encoder, "noise_level": NoiseLevel,
    "plot": Plot, "compare": Compare, "pareto": Pareto, "plan": Plan,
}  # fmt: skip


@cache
def register() -> None:
    """Make `- schema/<verb>` available to the defaults lists of conf/, once in a process."""
    for verb, schema in SCHEMAS.items():
        ConfigStore.instance().store(verb, schema, group="schema", package="_global_")
