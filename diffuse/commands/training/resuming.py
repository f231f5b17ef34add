"""`resume=`: which run to continue, and whether this command still means the same training."""

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from diffuse import checkpoints, config, meanings, restored, run_folders, runs
from diffuse.commands.training import beginning
from diffuse.data import ImageSet
from diffuse.errors import ConfigError, DataError, nearest

log = logging.getLogger(__name__)

# what a training is about; anything else may change when it is continued
FIXED = (
    "dataset", "model", "objective", "weighting", "schedule", "noise_law", "optimizer", "range",
    "seed", "precision", "train.batch", "train.shuffle", "train.label_dropout", "train.ema",
    "train.lr_schedule", "train.warmup", "train.clip_grad",
)  # fmt: skip
BEGINNING = ("init_from", "init_weights")  # of a run that began with other weights
LENGTH = "train.steps"  # may grow, but shrinks only where `resume_allow` lets it
ALL_DAMAGED = "all of its checkpoints are damaged"


def folder(cfg: DictConfig, own: Path | None = None) -> Path | None:
    """The run to continue; None = a new one. `own` is the folder of a job of a sweep."""
    if cfg.resume == "none":
        return None
    found = _newest(cfg, own) if cfg.resume in ("auto", "must") else _named(cfg)
    if found is not None and runs.is_alive(found):
        raise ConfigError(f"resume: {found} is being trained by another process")
    return found


def _named(cfg: DictConfig) -> Path:
    """Who names a run or checkpoint means this one: nothing older is taken instead."""
    folder, which = beginning.named(Path(cfg.outputs), cfg.resume)
    if which is None:
        raise ConfigError(f"resume={cfg.resume}: {folder} has no checkpoint to continue from")
    try:
        checkpoint = restored.verified_checkpoint(folder, which)
    except DataError as damage:
        newest = checkpoints.newest(folder / "checkpoints")
        others = f"resume=auto would go on from {newest.name}" if newest else ALL_DAMAGED
        raise DataError(f"resume: {damage}; {others}") from None
    newest = checkpoints.newest(folder / "checkpoints")
    if newest and newest != checkpoint:
        raise ConfigError(
            f"resume: {checkpoint} is not the newest checkpoint of its run, {newest.name} is, and "
            f"what came in between would be lost; init_from={checkpoint} begins a new run with it"
        )
    return folder


def _newest(cfg: DictConfig, own: Path | None) -> Path | None:
    """The newest version of this name that has a whole checkpoint."""
    outputs = Path(cfg.outputs)
    begun = own and any((own / left).exists() for left in ("run.json", "checkpoints"))
    versions = [own] if own and begun else run_folders.versions(outputs, "train", cfg.name)
    others = [v for v in versions if v != own and _is_smoke(v) != cfg.smoke]
    versions = [version for version in versions if version not in others]
    passed = []
    for version in versions:
        if checkpoints.newest(version / "checkpoints"):
            if passed:
                log.warning("resume: %s; %s is continued instead", "; ".join(passed), version)
            return version
        passed.append(_why_not(version))
    other = "no try-out" if cfg.smoke else "a try-out (debug=smoke)"
    passed += [f"{version} is {other}" for version in others]
    where, why = outputs / "train" / cfg.name, f" ({'; '.join(passed)})" if passed else ""
    if cfg.resume == "auto":
        log.info("nothing to continue in %s%s: a new run", where, why)
        return None
    there_are_some = any(checkpoints.steps(version / "checkpoints") for version in versions)
    kind = DataError if there_are_some else ConfigError
    raise kind(f"resume=must: {where} has no whole checkpoint to continue from{why}")


def _is_smoke(version: Path) -> bool:
    """Was it a try-out? Neither it nor a real run goes on as the other."""
    return bool(runs.facts_of(version).get("smoke"))


def _why_not(version: Path) -> str:
    """Why this one, which has no whole checkpoint, is passed over."""
    try:
        status = runs.read(version).get("status")
        if runs.is_alive(version):
            raise ConfigError(f"resume: {version} is being trained by another process")
    except DataError as damage:
        return str(damage)
    if checkpoints.steps(version / "checkpoints"):
        return f"{version}: {ALL_DAMAGED}"
    return f"{version} has no checkpoint ({status})"


def continued(cfg: DictConfig, folder: Path) -> list[str]:
    """Make this command's config that of the run: its length, precision and what was measured.

    What else differs is returned, if it was let through.
    """
    saved = restored.saved_config(folder)
    for group in ("objective", "weighting"):
        if cfg[group].get("sigma_data", 0) is None:  # it was measured then
            cfg[group].sigma_data = saved[group].get("sigma_data")
    if cfg.precision == "auto":  # measured anew, it might come out otherwise
        cfg.precision = saved.precision
    if cfg.optimizer.get("precision") == "auto" and "precision" in saved.optimizer:
        cfg.optimizer.precision = saved.optimizer.precision
    if cfg.init_from is None:
        cfg.init_from, cfg.init_weights = saved.get("init_from"), saved.init_weights
    changes = _let_through(_differences(cfg, saved) | _shorter(cfg, saved), cfg, folder)
    unit, amount = meanings.length(cfg.train)
    if unit == "minutes":
        for other in meanings.UNITS:
            cfg.train[other] = saved.train[other]
        log.info(
            "train.minutes=%g says how long a new run is; this one keeps its %s steps, and "
            "train.steps= extends it", amount, f"{saved.train.steps:,}",
        )  # fmt: skip
    log.info("continuing %s", folder)
    return changes


def keep_compiled(
    cfg: DictConfig, folder: Path, checkpoint: Path, device: torch.device, images: int
) -> None:
    """`compile=auto` is what it was in the run: what is left of it has to come out the same.

    For another number of steps, or on another kind of device, it is decided anew.
    """
    saved = restored.saved_config(folder)
    same_length = meanings.steps(cfg.train, images) == saved.train.steps
    same_device = checkpoints.load_state(checkpoint)["device"] == device.type
    if cfg.compile == "auto" and same_length and same_device:
        cfg.compile = saved.compile


def _let_through(different: dict[str, str], cfg: DictConfig, folder: Path) -> list[str]:
    """The differences; ConfigError with those that `resume.allow=` does not name."""
    refused = [key for key in different if not _is_in(key, cfg.resume_allow)]
    if refused:
        ways = ["use those", *_through(refused, cfg, folder), "resume=none for a new run"]
        said = "; ".join(different[key] for key in refused)
        raise ConfigError(
            f"resume: {folder} was started with other settings ({said}); {', or '.join(ways)}"
        )
    return list(different.values())


def _through(keys: Sequence[str], cfg: DictConfig, folder: Path) -> list[str]:
    """How differences can be let through, where the checkpoint fits them."""
    if {"optimizer.name", *BEGINNING} & set(keys):
        return []
    if any(_is_in(key, ["model"]) for key in keys):
        with contextlib.suppress(ConfigError):  # code of somebody else's
            if _shapes(cfg) != _shapes(restored.saved_config(folder)):
                return []
    allow = ",".join([*cfg.resume_allow, *keys])
    return [f"let {'them' if len(keys) > 1 else 'it'} through with resume.allow=[{allow}]"]


def _shapes(cfg: DictConfig) -> dict[str, torch.Size]:
    """Of the weights of a config's network, for images of some size."""
    with torch.device("meta"):
        net = unfed(cfg)
    return {name: weight.shape for name, weight in net.state_dict().items()}


def unfed(cfg: DictConfig) -> nn.Module:
    """The network for images of a size that fits; the real one comes with the data."""
    side = 64 * int(cfg.model.get("patch", 1))
    return config.build("model", cfg.model, channels=1, size=(side, side), classes=10)


def _shorter(cfg: DictConfig, saved: DictConfig, images: int | None = None) -> dict[str, str]:
    """A length below that of the run: its learning rates were meant for all of its steps."""
    steps = meanings.steps(cfg.train, images)
    if steps is None or steps >= saved.train.steps:
        return {}
    return {LENGTH: f"{LENGTH}: {saved.train.steps:,} there, only {steps:,} here"}


def check_epochs(cfg: DictConfig, folder: Path, images: int) -> list[str]:
    """How many steps an epoch has is known when the images are there: are there fewer now?"""
    if meanings.length(cfg.train)[0] != "epochs":
        return []
    return _let_through(_shorter(cfg, restored.saved_config(folder), images), cfg, folder)


def check_data(
    cfg: DictConfig, folder: Path, checkpoint: Path | None, data: ImageSet, test: ImageSet
) -> list[str]:
    """The images have to be those that the run began with: a name and a folder do not say so.

    What its newest checkpoint was trained on are these, too, and a manifest knows if that is whole.
    """
    known, changes = runs.table(runs.facts_of(folder), "data"), []
    trained_on = checkpoints.load_state(checkpoint).get("data", {}) if checkpoint else {}
    for key, split in (("sha256", data), ("test_sha256", test)):
        there = known.get(key, split.sha256)  # a run.json that is damaged says nothing
        if split.sha256 in (there, trained_on.get(key)):
            continue
        change = f"dataset ({key} {there[:12]} there, {split.sha256[:12]} here)"
        if "dataset" not in cfg.resume_allow:
            raise ConfigError(
                f"resume: {folder} was trained on other images: {change}; bring those back, or let "
                "these through with resume.allow=[dataset], or resume=none for a new run"
            )
        changes.append(change)
    return changes


def check_allowed(cfg: DictConfig) -> None:
    """Each word of `resume_allow` is a key, or a group, that is held fixed otherwise."""
    known = [*_flat(cfg), LENGTH]
    for word in cfg.resume_allow:
        if not any(_is_in(key, [word]) for key in known):
            raise ConfigError(
                f"resume.allow: nothing fixed is called {word!r}; {nearest(word, known)}"
            )


def _is_in(key: str, words: Sequence[str]) -> bool:
    """Is this key one of the words, or inside a group that is?"""
    return any(key == word or key.startswith(f"{word}.") for word in words)


def _differences(cfg: DictConfig, saved: DictConfig) -> dict[str, str]:
    """Key -> e.g. "schedule.betamax: 0.02 there, 0.01 here"."""
    there, here = _flat(saved), _flat(cfg)
    if there.get("init_from") != here.get("init_from"):  # which of its weights is no matter then
        for flat in (there, here):
            flat.pop("init_weights", None)
    for group in [key.removesuffix(".name") for key in here if key.endswith(".name")]:
        if there.get(f"{group}.name") != here[f"{group}.name"]:  # its keys are others, too
            for flat in (there, here):
                for key in [k for k in flat if k.startswith(f"{group}.") and k != f"{group}.name"]:
                    del flat[key]
    pairs = {  # a key that a run of an earlier version does not have is null there
        key: (there.get(key, "null"), here.get(key, "null")) for key in there.keys() | here.keys()
    }
    return {key: f"{key}: {a} there, {b} here" for key, (a, b) in sorted(pairs.items()) if a != b}


def _flat(cfg: DictConfig) -> dict[str, str]:
    """The fixed keys of a config, with dots; values as text, 1 and 1.0 alike."""
    flat: dict[str, str] = {}

    def walk(key: str, value: object) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(f"{key}.{name}", inner)
        else:
            flat[key] = _said(value)

    for key in (*FIXED, *(BEGINNING if cfg.get("init_from") else ())):
        node = OmegaConf.select(cfg, key)
        walk(key, OmegaConf.to_container(node) if OmegaConf.is_config(node) else node)
    if len(decays := meanings.decays(cfg.train)) == 1:  # 0.999 and [0.999] are one
        flat["train.ema"] = _said(decays[0])
    return flat


def _said(value: object) -> str:
    """As it is typed: 64, also where a yaml has 64.0."""
    if isinstance(value, list):
        return f"[{', '.join(map(_said, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
