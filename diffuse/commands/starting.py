"""The folder that a command writes into, claimed when nothing can be refused any more."""

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from diffuse import hardware, runs, yamls
from diffuse.commands import describing
from diffuse.config import Job
from diffuse.restored import Trained

log = logging.getLogger(__name__)


def start(verb: str, cfg: DictConfig, job: Job, **facts: Any) -> tuple[Path, runs.Run]:
    """Claim a folder, where a sweep has not, and begin a run in it; `facts` go into run.json."""
    folder = job.folder or runs.claim(Path(cfg.outputs), verb, cfg.name)
    known = {key: cfg[key] for key in ("name", "hypothesis", "seed", "smoke")}
    return folder, runs.Run.start(folder, verb, yamls.as_yaml(cfg), job.overrides, **known, **facts)


def name_of(trained: Trained) -> str:
    """What its folders are called, and those of what is made with it."""
    return runs.facts_of(trained.folder).get("name") or trained.folder.parent.name


def of_run(verb: str, cfg: DictConfig, job: Job, trained: Trained) -> tuple[Path, runs.Run]:
    """Claim a folder named after the training run, and note down which one it was."""
    cfg.name = cfg.name or name_of(trained)
    found = describing.weights_of(cfg.weights, trained)
    folder, run = start(verb, cfg, job, device=hardware.describe(trained.device), weights=found)
    log.info("%s, step %s of %s", folder, trained.step, trained.folder)
    return folder, run
