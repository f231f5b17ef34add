"""`resume=`: which run to continue, and whether this command still means the same training."""

import logging
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from diffuse import assembly, checkpoints, meanings, runs
from diffuse.errors import ConfigError, DataError, nearest

log = logging.getLogger(__name__)

# what a training is about; anything else may change when it is continued
FIXED = (
    "dataset", "model", "objective", "weighting", "schedule", "noise_law", "optimizer", "range",
    "seed", "train.batch", "train.shuffle", "train.label_dropout", "train.ema", "train.lr_schedule",
    "train.warmup", "train.clip_grad",
)  # fmt: skip


def folder(cfg: DictConfig) -> Path | None:
    """The run to continue; None = a new one."""
    outputs = Path(cfg.outputs)
    if cfg.resume == "none":
        return None
    if cfg.resume not in ("auto", "must"):
        found = runs.find(outputs, cfg.resume)
    else:
        found = runs.latest(outputs, "train", cfg.name)
    if found is not None and checkpoints.newest(found / "checkpoints"):
        if runs.is_alive(found):
            raise ConfigError(f"resume: {found} is being trained by another process")
        return found
    if cfg.resume == "auto":
        log.info("nothing to continue in %s: a new run", outputs / "train" / cfg.name)
        return None
    where = found or outputs / "train" / cfg.name
    message = f"resume={cfg.resume}: {where} has no whole checkpoint to continue from"
    if checkpoints.steps(where / "checkpoints"):
        raise DataError(f"{message}: all of its checkpoints are damaged")
    raise ConfigError(message)


def continued(cfg: DictConfig, folder: Path) -> DictConfig:
    """This command's config, with the length and precision that the run began with."""
    saved = assembly.saved_config(folder)
    for group in ("objective", "weighting"):
        if saved[group].get("sigma_data"):  # measured then
            assembly.measure(cfg, saved[group].sigma_data)
    different = _differences(cfg, saved)
    allowed = [key for key in different if _is_in(key, cfg.resume_allow)]
    refused = [different[key] for key in different if key not in allowed]
    if refused:
        raise ConfigError(
            f"resume: {folder} was started with other settings ({'; '.join(refused)}); "
            "use those, or let them through with resume.allow=[...], or resume=none for a new run"
        )
    for key in allowed:
        log.info("resume.allow: %s", different[key])
    unit, _ = meanings.length(cfg.train)
    if unit == "minutes":
        for other in meanings.LENGTHS:
            cfg.train[other] = saved.train[other]
    if cfg.precision == "auto":  # measured anew, it might come out otherwise
        cfg.precision = saved.precision
    if cfg.compile == "auto":
        cfg.compile = saved.compile
    log.info("continuing %s", folder)
    return cfg


def check_allowed(cfg: DictConfig) -> None:
    """Each word of `resume_allow` is a key, or a group, that is held fixed otherwise."""
    known = _flat(cfg)
    for word in cfg.resume_allow:
        if not any(_is_in(key, [word]) for key in known):
            raise ConfigError(
                f"resume.allow: nothing fixed is called {word!r}; {nearest(word, known)}"
            )


def own_settings(cfg: DictConfig) -> list[str]:
    """The optimizer's settings that are this command's, not the checkpoint's."""
    return [key for key in cfg.optimizer if _is_in(f"optimizer.{key}", cfg.resume_allow)]


def _is_in(key: str, words: Sequence[str]) -> bool:
    """Is this key one of the words, or inside a group that is?"""
    return any(key == word or key.startswith(f"{word}.") for word in words)


def _differences(cfg: DictConfig, saved: DictConfig) -> dict[str, str]:
    """Key -> e.g. "schedule.betamax: 0.02 there, 0.01 here"."""
    there, here = _flat(saved), _flat(cfg)
    for group in [key.removesuffix(".name") for key in here if key.endswith(".name")]:
        if there.get(f"{group}.name") != here[f"{group}.name"]:  # its keys are others, too
            for flat in (there, here):
                for key in [k for k in flat if k.startswith(f"{group}.") and k != f"{group}.name"]:
                    del flat[key]
    return {
        key: f"{key}: {there.get(key)} there, {here.get(key)} here"
        for key in sorted(there.keys() | here.keys())
        if there.get(key) != here.get(key)
    }


def _flat(cfg: DictConfig) -> dict[str, str]:
    """The fixed keys of a config, with dots; values as text, 1 and 1.0 alike."""
    flat: dict[str, str] = {}

    def walk(key: str, value: object) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(f"{key}.{name}", inner)
        else:
            flat[key] = str(float(value)) if isinstance(value, (int, float)) else str(value)

    for key in FIXED:
        node = OmegaConf.select(cfg, key)
        walk(key, OmegaConf.to_container(node) if OmegaConf.is_config(node) else node)
    return flat
