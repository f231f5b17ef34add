"""`guidance=`: what the images of a run are guided away from."""

import copy
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from diffuse import assembly, averages, checkpoints, meanings, planning, restored
from diffuse.config import Job
from diffuse.denoiser import Denoiser
from diffuse.errors import ConfigError
from diffuse.guidance import LABELS, UNTOLD, Guidance, weights_of
from diffuse.restored import Trained

log = logging.getLogger(__name__)

EARLY = 5.0  # times the root of all steps
FIRST = 200  # steps before which no network is guided away from (half of a shorter training)
FAR = 0.05  # of the training, from a share to the checkpoint that stands for it
AUTO = "auto"
KEYS = ("guidance", "guide", "guidance_levels")


def complete(cfg: DictConfig, saved: DictConfig) -> None:
    """Where nothing is said, that of the training run."""
    for key in KEYS:
        if cfg[key] is None:
            cfg[key] = saved[key]


def check(cfg: DictConfig, trained: DictConfig, where: str) -> None:
    """Can there be such guidance, by a run of this config?"""
    if not planning.is_guided(cfg):
        return
    _check_labels(cfg, trained, where)
    if is_checkpoint(cfg.guide):
        return
    decays, weights = meanings.decays(trained.train), weights_of(cfg.guide)
    if weights not in (LABELS, "raw") and averages.find(weights, decays) is None:
        words = [LABELS, *averages.names(decays), "raw", "early", AUTO, "a step", "40%"]
        words.append(f"any of these{UNTOLD}")
        choices = ", ".join(words)
        raise ConfigError(f"guide: {where} has no average {weights}; choices: {choices}")


def _check_labels(cfg: DictConfig, trained: DictConfig, where: str) -> None:
    """Without a label only what has sometimes learnt without one, or always: early+labels."""
    conditional = assembly.knows_classes(trained)
    if cfg.guide.endswith(UNTOLD) and not conditional:
        return
    if cfg.guide.endswith(LABELS) and not (conditional and trained.train.label_dropout):
        never = "was never without a label (train.label_dropout=0)"
        why = never if conditional else "knows no classes"
        raise ConfigError(
            f"guidance={cfg.guidance:g}: {where} {why} to guide by; use guidance=1, or "
            "guide=early, an earlier checkpoint"
        )


def refuse_idle(cfg: DictConfig, job: Job) -> None:
    """What to guide away from was typed, and nobody said that nothing is to be guided."""
    if not planning.is_guided(cfg) and not job.typed("guidance"):
        why = "it does nothing at guidance=1; say guidance=2, too"
        job.refuse(("guide", "guidance_levels"), why)


def of_looks(cfg: DictConfig, denoiser: Denoiser | None = None) -> Guidance | None:
    """Of the images that a training looks at: a checkup gives the weak network its weights."""
    if not planning.is_guided(cfg) or is_checkpoint(cfg.guide):  # which is not there yet
        return None
    weak = None if cfg.guide == LABELS else copy.deepcopy(denoiser)
    return planning.guidance(cfg, weak.eval() if weak else None)


def is_checkpoint(guide: str) -> bool:
    """Is the weak network an earlier one, early, of a step or at a share of the way?"""
    weights = weights_of(guide)
    return weights in ("early", AUTO) or weights.removesuffix("%").isdigit()


def settled(cfg: DictConfig, trained: DictConfig, steps: int) -> str:
    """What to guide away from after so many steps, where auto leaves it to us.

    Of a training that is not long the early network is not far behind, and is a better guide
    without the label: FID 2.55 for 3.19 after 1,000 steps of model=quick, but 1.79 for 1.61 after
    2,000.
    """
    if cfg.guide != AUTO:
        return cfg.guide
    learnt = assembly.knows_classes(trained) and trained.train.label_dropout
    return f"early{UNTOLD}" if learnt and EARLY * math.sqrt(steps) < FIRST else "early"


def said(record: Mapping[str, Any]) -> str:
    """Guidance as it stands in a record, for people: e.g. "2, away from step 178"."""
    weak, (low, high) = record["weak"]["weights"], record["levels"]
    step = record["weak"].get("step")
    away = f"step {step:,}" if step is not None else weights_of(weak)
    away = "no label" if weak == LABELS else f"{away} without label" if UNTOLD in weak else away
    ends = f", sigma {low:g} to {math.inf if high is None else high:g}"
    some = ends if low or high is not None else ""
    return f"{record['weight']:g}, away from {away}{some}"


def weak_step(cfg: DictConfig, steps: int) -> int | None:
    """The step of the weak checkpoint, which a training of so many steps has to keep."""
    if not planning.is_guided(cfg) or not is_checkpoint(cfg.guide):
        return None
    weights = weights_of(cfg.guide)
    if weights.isdigit() and int(weights) >= steps:
        raise ConfigError(f"guide={cfg.guide}: a training of {steps:,} steps ends before that")
    return max(1, round(_wanted(weights, steps)))


def _wanted(guide: str, last: int) -> float:
    """A step as it is, or the share of all steps, but no network that has hardly learnt yet.

    `early` is a smaller share the longer a training is: of 12,423 and of 15,798 steps the network
    after 600 is a better one than those after 300 or 1,200, of 2,130 the one after 213. Guided away
    from what it was after 64 of 641 steps, images of Fashion-MNIST were worse than without
    guidance, FID 13.5 for 11.0; away from step 200 they were better, 5.3.
    """
    if guide.isdigit():
        return int(guide)
    early = min(EARLY * math.sqrt(last), last / 2)
    share = early if guide in ("early", AUTO) else last * int(guide[:-1]) / 100
    return max(share, min(FIRST, last / 2))


def guidance(cfg: DictConfig, trained: Trained) -> Guidance | None:
    """That of a config which `complete` has seen, with the weak network; None if there is none."""
    check(cfg, trained.cfg, str(trained.folder))
    if not planning.is_guided(cfg):
        return None
    cfg.guide = settled(cfg, trained.cfg, trained.step)
    if cfg.guide == LABELS:
        return planning.guidance(cfg)
    if not is_checkpoint(cfg.guide):
        weights = weights_of(cfg.guide)
        weak = restored.restore(trained.folder, trained.step, weights, cfg)
        if weak.sha256 == trained.sha256 and weights == cfg.guide:
            raise ConfigError(f"guide={cfg.guide}: these are the very weights that are sampled")
        return planning.guidance(cfg, weak.denoiser, weak.sha256)
    step = _step(weights_of(cfg.guide), trained.step, trained.folder)
    weak = restored.restore(trained.folder, step, "ema", cfg)
    return planning.guidance(cfg, weak.denoiser, weak.sha256, step)


def _step(guide: str, last: int, folder: Path) -> int:
    """Of the checkpoint that is meant; a share means the nearest one that there is before."""
    if guide.isdigit():
        if int(guide) >= last:
            raise ConfigError(
                f"guide={guide}: the weak network is an earlier checkpoint than step {last}"
            )
        return int(guide)
    before = [step for step in checkpoints.steps(folder / "checkpoints") if step < last]
    if not before:
        raise ConfigError(
            f"guide={guide}: {folder} has no checkpoint before step {last}; use guidance=1, or "
            f"train with guidance=2 guide={guide}, which keeps one"
        )
    wanted = _wanted(guide, last)
    nearest = min(before, key=lambda step: abs(step - wanted))
    if abs(nearest - wanted) > FAR * last:
        log.warning(
            "guide=%s is step %.0f; the nearest checkpoint of %s is of step %d",
            guide, wanted, folder, nearest,
        )  # fmt: skip
    return nearest
