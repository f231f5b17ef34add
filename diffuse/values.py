"""What a config may say beyond its types: the values that mean something."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from diffuse.errors import ConfigError, nearest
from diffuse.meanings import RESUME, length

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SCORED = 4  # images: the interval of an FID takes two blocks of two
AT_LEAST = {
    **dict.fromkeys(("steps", "nfe", "n", "batch", "epochs", "width", "columns"), 1),
    **dict.fromkeys(("seeds", "neighbours"), 1),
    **{f"train.{key}": 1 for key in ("steps", "images", "batch", "micro_batch")},
    **{f"train.{key}": 1 for key in ("keep", "keep_every")},
    **{f"train.{key}_every": 1 for key in ("log", "sample", "save", "eval")},
    **dict.fromkeys(("kid_subsets", "kid_subset_size"), 2),
    "devices": 1,
    "train.warmup": 0,
    "train.eval_n": SCORED,
}
AT_MOST = {"n": 10**8}  # images, all of which are held at once
MORE_THAN_ZERO = ("train.epochs", "train.minutes", "train.clip_grad")
FRACTIONS = ("train.label_dropout",)  # in [0, 1)
CHOICES = {
    "device": ("auto", "cpu", "cuda", "mps"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
    "start": ("vp", "ve", "moments"),
    "weights": ("ema", "raw"),
    "guide": ("labels", "auto", "early", "early+labels", "ema", "raw"),
    "save": ("png", "npy", "npz"),
    "what": (
        *("data", "schedule", "noise_law", "grid"),
        *("embedding", "noise", "denoise", "trajectory"),
        *("fid_trajectory", "samplers", "preprocessing"),
    ),
    "train.lr_schedule": ("constant", "cosine", "onecycle"),
    "train.on_nan": ("stop", "skip", "rollback"),
    "init_weights": ("ema", "raw"),
}
NEVER = r"(?!)"
AVERAGE = r"ema_0\.\d+"  # of another half-life
PATTERNS = {
    "device": r"cuda:\d+",
    **dict.fromkeys(("weights", "init_weights"), AVERAGE),
    "guide": rf"({AVERAGE}|\d+|\d\d?%|ema|raw)(\+labels)?",
}
SHAPES = {  # what they match, for people
    "device": ("cuda:N",),
    **dict.fromkeys(("weights", "init_weights"), ("ema_0.999",)),
    "guide": ("ema_0.999", "a step", "a share like 40%"),
}


def check(cfg: DictConfig, but: Sequence[str] = ()) -> None:
    """Refuse what has the right type and cannot mean anything: ConfigError, in one line.

    `but` are keys whose words are known to be right.
    """
    _check_keys(cfg)
    scored = "what" not in cfg and ("kid_subsets" in cfg or "samplers" in cfg)
    least = AT_LEAST | ({"n": SCORED} if scored else {})
    for key, value in _given(cfg, ("samplers", "nfe")):
        if isinstance(value, ListConfig):
            check_each_once(key, value)
    for key, value in _given(cfg, least):
        for number in value if isinstance(value, ListConfig) else [value]:
            if number < least[key]:
                raise ConfigError(f"{key} must be at least {least[key]}, got {number}")
    for key, value in _given(cfg, AT_MOST):
        if value > AT_MOST[key]:
            raise ConfigError(f"{key} must be at most {AT_MOST[key]:,}, got {value:,}")
    for key, value in _given(cfg, MORE_THAN_ZERO):
        if not 0 < value < math.inf:
            raise ConfigError(f"{key} must be more than 0, got {value}")
    for key, value in _given(cfg, FRACTIONS):
        if not 0 <= value < 1:
            raise ConfigError(f"{key} must be in [0, 1), got {value}")
    for key, value in _given(cfg, CHOICES):
        if value not in CHOICES[key] and not re.fullmatch(PATTERNS.get(key, NEVER), value):
            choices = [*CHOICES[key], *SHAPES.get(key, ())]
            raise ConfigError(f"{key}: unknown choice {value!r}; {nearest(value, choices)}")
    for key, value in _given(cfg, [key for key in CHECKS if key not in but]):
        CHECKS[key](value)
    if "seeds" in cfg:
        check_seeds(cfg.seed, cfg.seeds)
    if "train" in cfg:
        length(cfg.train)
        check_ema(cfg.train.ema)
        check_rollback(cfg.train)
        if cfg.resume in RESUME:  # else a batch that was not typed is that of the run
            check_batch(cfg)


def _given(cfg: DictConfig, keys: Iterable[str]) -> list[tuple[str, Any]]:
    """Those of the keys that this command has, where they are not null."""
    found = [(key, OmegaConf.select(cfg, key)) for key in keys]
    return [(key, value) for key, value in found if value is not None]


def _check_keys(cfg: DictConfig) -> None:
    """`+key=` and `~key` change a config past its schema; a saved one may have lost a key."""
    for section in ("", "train."):
        node = cfg.get("train") if section else cfg
        schema = OmegaConf.get_type(node) if isinstance(node, DictConfig) else None
        if node is None or schema is None or not is_dataclass(schema):
            continue
        known = [entry.name for entry in fields(schema)]
        for key in [str(key) for key in node if key not in known]:
            raise ConfigError(f"unknown key '{section}{key}'; {nearest(key, known)}")
        for key in [key for key in known if key not in node or OmegaConf.is_missing(node, key)]:
            raise ConfigError(f"{section}{key} needs a value")


def check_each_once(key: str, values: Sequence[Any]) -> None:
    """What a table has a row or column for."""
    if not values:
        raise ConfigError(f"{key} needs at least one value")
    if twice := [one for k, one in enumerate(values) if one in values[:k]]:
        raise ConfigError(f"{key}: {twice[0]} is listed twice")


def check_range(pair: Sequence[float]) -> None:
    """The interval pixels are mapped to."""
    if len(pair) != 2 or not -math.inf < pair[0] < pair[1] < math.inf:
        shown = ", ".join(f"{number:g}" for number in pair)
        raise ConfigError(f"range must be two ascending numbers like [-1, 1], got [{shown}]")


def check_ema(ema: Any) -> None:
    """A decay, or a list of them, each once."""
    decays: list[Any] = (
        list(ema) if isinstance(ema, Sequence) and not isinstance(ema, str) else [ema]
    )
    if not decays or not all(type(d) in (int, float) and 0 <= d < 1 for d in decays):
        raise ConfigError(f"train.ema must be in [0, 1), or a list of such numbers, got {ema}")
    if len(set(decays)) < len(decays):
        raise ConfigError(f"train.ema: a decay is listed twice: {ema}")


def check_rollback(train: DictConfig) -> None:
    """There has to be something to go back to."""
    if train.on_nan == "rollback" and train.save_every is None:
        raise ConfigError(
            "train.on_nan=rollback goes back to a multiple of train.save_every, which is null; "
            "say one, or use train.on_nan=skip"
        )


def check_batch(cfg: DictConfig) -> None:
    """It can be shared by the processes, and the share of each be taken apart."""
    check_shares(cfg.train.batch, cfg.devices)
    check_micro_batch(cfg.train.micro_batch, cfg.train.batch // cfg.devices)


def check_shares(batch: int, processes: int) -> None:
    """All processes see as many images of a batch."""
    if batch % processes:
        below = batch - batch % processes
        near = f"{below} and {below + processes}" if below else f"{processes}"
        raise ConfigError(f"train.batch={batch} cannot be shared by {processes}; nearest: {near}")


def check_micro_batch(micro_batch: int | None, batch: int) -> None:
    """Parts of a batch, of that of one process, are all of one size."""
    if micro_batch is None or batch % micro_batch == 0:
        return
    below = [d for d in divisors(batch) if d < micro_batch][-1:]
    above = [d for d in divisors(batch) if d > micro_batch][:1]
    near = " and ".join(map(str, below + above))
    raise ConfigError(
        f"train.micro_batch={micro_batch} does not divide train.batch={batch}; nearest: {near}"
    )


def divisors(n: int) -> list[int]:
    """In order, e.g. 1, 2, 3, 6."""
    return [d for d in range(1, n + 1) if n % d == 0]


def check_checkpoint(which: int | str) -> None:
    """Whether there is such a checkpoint is for the run to say."""
    if which != "best" and not (isinstance(which, int) and which >= 0):
        raise ConfigError(f"checkpoint must be null, a step number or best, got {which!r}")


def check_clip(clip: str) -> None:
    """Where estimates of x0 are held: a word, or the largest absolute value."""
    try:
        number = float(clip)
    except ValueError:
        if clip not in CLIPS:
            hint = nearest(clip, [*CLIPS, "a number"])
            raise ConfigError(f"clip: unknown choice {clip!r}; {hint}") from None
    else:
        if not 0 < number < math.inf:
            raise ConfigError(f"clip must be more than 0, got {clip}")


def check_guidance(weight: float) -> None:
    """0 is the weak network alone, 1 no guidance; below 0 would guide away from the strong one."""
    if not 0 <= weight < math.inf:
        raise ConfigError(f"guidance must be at least 0, got {weight:g}; 1 is none")


def check_guidance_levels(pair: Sequence[float]) -> None:
    """An interval of sigma."""
    if len(pair) != 2 or not 0 <= pair[0] < pair[1]:
        shown = ", ".join(f"{number:g}" for number in pair)
        raise ConfigError(
            f"guidance_levels must be two ascending sigmas, like [0.2, 5] or [0, inf]: [{shown}]"
        )


def check_seed(seed: int) -> None:
    """Torch takes 64 bits."""
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed must be between 0 and 2^63 - 1, got {seed}")


def check_seeds(first: int, count: int) -> None:
    """The last of them has 64 bits, too."""
    if first + count > 2**63:
        raise ConfigError(f"seeds={count}: from seed={first} on there are not that many")


def check_outputs(folder: str) -> None:
    """Whether it can be written to is for the run to say."""
    if not folder.strip() or "\0" in folder:
        raise ConfigError(f"outputs must name a folder, got {folder!r}")


def check_name(name: str) -> None:
    """A run's name is one folder's name on every system."""
    if not NAME.fullmatch(name) or ".." in name:
        raise ConfigError(
            f"name: {name!r} will not do; use up to 100 letters, digits, '.', '_' and '-' "
            "(no '..', spaces or slashes), beginning with a letter or digit"
        )


def check_compile(word: bool | str) -> None:
    """YAML reads true and false as booleans; auto is text."""
    if word not in ("auto", True, False):
        raise ConfigError(f"compile: unknown choice {word!r}; {nearest(str(word), COMPILE)}")


COMPILE = ("auto", "true", "false")
CLIPS = ("auto", "none", "range", "dynamic")
CHECKS: dict[str, Callable[[Any], None]] = {
    "name": check_name,
    "range": check_range,
    "clip": check_clip,
    "guidance": check_guidance,
    "guidance_levels": check_guidance_levels,
    "checkpoint": check_checkpoint,
    "seed": check_seed,
    "outputs": check_outputs,
    "compile": check_compile,
}
