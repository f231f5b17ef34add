"""`resume=<run>`: what was not typed is as it was in that run, so that these words are enough."""

import copy
import shlex
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, flag_override

from diffuse import meanings, restored, values
from diffuse.commands.training import beginning
from diffuse.config import Job, key_of

SAYING_ALL = ("experiment", "debug")  # the command says all with one of these: full of settings
# where a training runs, and what is done now: the command's own
PLACE = ("outputs", "device", "devices", "compile", "trust")
NOW = ("resume", "resume_allow", "dry_run")
TOGETHER = (  # whoever says one of these means the others to be as they follow from it
    meanings.LENGTHS,
    ("steps", "nfe"),
    ("sampler", "grid"),
    ("init_from", "init_weights"),
)


def filled(cfg: DictConfig, job: Job) -> DictConfig:
    """The config of the run that is named, with what was typed in place of what it says."""
    if cfg.resume in meanings.RESUME or not job.typed("resume") or job.typed(*SAYING_ALL):
        return cfg
    folder, _ = beginning.named(Path(cfg.outputs), cfg.resume)
    own = {*PLACE, *NOW, *map(key_of, job.overrides)} - {"resume.allow"}
    for keys in TOGETHER:
        own |= set(keys) if own & set(keys) else set()
    filled = copy.deepcopy(restored.saved_config(folder))
    with flag_override(filled, ["struct", "readonly"], [False, False]):
        for key in sorted(own):  # a group before what is inside of it
            _take(filled, cfg, key)
    values.check(filled, but=("name",))  # one that was typed is checked, others were made by us
    return filled


def _take(filled: DictConfig, cfg: DictConfig, key: str) -> None:
    """A value as this command has it, or none: it may have been taken away with `~key`."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    if isinstance(node, DictConfig) and name in node:
        OmegaConf.update(filled, key, node[name], merge=False, force_add=True)
    elif isinstance(held := OmegaConf.select(filled, parent), DictConfig):
        held.pop(name, None)


def hint(folder: Path, job: Job) -> str:
    """The command that continues a run where this one has begun it."""
    place = [word for word in job.overrides if key_of(word) in PLACE]
    return shlex.join(["diffuse", "train", f"resume={folder}", *place])
