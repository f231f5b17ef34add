"""Draw images from a training run."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from diffuse import assembly, config, hardware, noise_level, planning, runs, yamls
from diffuse.assembly import Trained
from diffuse.commands import guiding, twins
from diffuse.commands.drawing import draw
from diffuse.commands.noise_level import find
from diffuse.commands.saving import Result, save, save_grid
from diffuse.config import Job
from diffuse.console import clock, print_json, print_table
from diffuse.errors import ConfigError, nearest
from diffuse.interrupts import Interrupts
from diffuse.sampling import Plan
from diffuse.trackers import Quiet

log = logging.getLogger(__name__)


def main(cfg: DictConfig, job: Job) -> int:
    """Check the config, find and restore the run, then claim a folder and draw."""
    check(cfg)
    trained, plan = restore(cfg)
    label = class_number(cfg, trained)
    about = class_of(trained, label)
    if cfg.dry_run:
        planned = facts(cfg, job, trained, plan)
        print_json(planned) if job.json else print_table("Plan (nothing is written)", planned)
        return 0
    folder, run = begin("sample", cfg, job, trained)
    tracker = Quiet(config.build("tracker", cfg.tracker))
    with run.logged(), run.watched(), Interrupts(at_once=True):
        tracker.start(folder, cfg.name, dict(run.facts))
        result = draw(trained, plan, cfg.n, label, cfg)
        grid = save_grid(folder, trained, result)
        tracker.image(0, "samples", grid)
        rows = facts(cfg, job, trained, plan) | {
            "calls": f"{result.nfe:g} an image",
            "speed": f"{result.speed:.1f} images/s, {clock(result.seconds)}",
            "shards": f"{result.drawn} drawn, {result.known} known",
            "grid": str(grid),
        }
        if cfg.save:
            rows["saved"] = str(save(folder, cfg.save, trained, result))
        run.finish(
            "done", n=cfg.n, nfe=result.nfe, images_per_second=round(result.speed, 2),
            sampler=how(cfg, job, plan, result, about), fingerprint=result.fingerprint,
            shards=result.shards, grid=rows["grid"], saved=rows.get("saved"),
        )  # fmt: skip
        twins.warn(folder, Path(cfg.outputs))
        tracker.finish()
    if job.json:
        print_json(run.facts | {"folder": str(folder)})
    else:
        print_table("Sampled", rows)
    return 0


def check(cfg: DictConfig) -> None:
    """Everything that can be wrong without looking at a run."""
    planning.check_steps(cfg)
    planning.made(cfg, 1)
    config.bind("grid", cfg.grid, "steps", "schedule")
    config.build("tracker", cfg.tracker)
    hardware.devices(cfg.devices, hardware.device(cfg.device))


def restore(cfg: DictConfig) -> tuple[Trained, Plan]:
    """The run that `run=` names and how its images are drawn."""
    folder = runs.find(Path(cfg.outputs), cfg.run)
    trained = assembly.restore(folder, cfg.checkpoint, cfg.weights, cfg)
    device = trained.device
    return trained, planned(cfg, trained, assembly.sampling_batch(cfg.batch, device))


def planned(cfg: DictConfig, trained: Trained, batch: int) -> Plan:
    """How images are drawn from a run, with the network that sees levels where one is named."""
    seer = find(Path(cfg.outputs), cfg.noise_level) if cfg.noise_level else None
    device = trained.device
    mean, std = trained.state["moments"]
    guiding.complete(cfg, trained.cfg)
    plan = planning.plan(
        cfg, trained.schedule, trained.levels, trained.range, batch, (mean, std),
        None if seer is None else noise_level.load(seer, device),
        guiding.guidance(cfg, trained),
    )  # fmt: skip
    if plan.level_of is not None:
        try:
            plan.level_of.check(trained.spec, trained.range, plan.sigmas)
        except ValueError as error:
            raise ConfigError(f"noise_level: {error}") from error
    return plan


def begin(verb: str, cfg: DictConfig, job: Job, trained: Trained) -> tuple[Path, runs.Run]:
    """Claim a folder named after the training run, and note down which one it was."""
    about = runs.read(trained.folder)
    cfg.name = cfg.name or about["name"]
    folder = job.folder or runs.claim(Path(cfg.outputs), verb, cfg.name)
    folder.mkdir(parents=True, exist_ok=True)
    device = trained.device
    run = runs.Run.start(
        folder, verb, yamls.as_yaml(cfg), job.overrides,
        name=cfg.name, hypothesis=cfg.hypothesis, seed=cfg.seed, smoke=cfg.smoke,
        device=hardware.describe(device), weights=weights(cfg, trained),
    )  # fmt: skip
    log.info("%s, step %s of %s", folder, trained.state["step"], trained.folder)
    return folder, run


def weights(cfg: DictConfig, trained: Trained) -> dict[str, object]:
    """Which weights, to the byte."""
    return {
        "run": str(trained.folder),
        "step": trained.state["step"],
        "name": cfg.weights,
        "ema": cfg.weights != "raw",
        "sha256": trained.sha256,
    }


def chosen(cfg: DictConfig, job: Job) -> dict[str, Any]:
    """Which sampler, and which of its calls are made."""
    return {
        "choice": job.choices["sampler"],
        "name": cfg.sampler.name,
        "same_as": planning.meta(cfg).get("same_as"),
        "options": {k: v for k, v in cfg.sampler.items() if k not in ("name", "meta")},
        "reuse": dict(cfg.reuse),
    }


def named(sampler: Mapping[str, Any]) -> str:
    """E.g. "ddim(eta=1.0, noise=1.0), reuse skip(every=3, last=50)"."""
    reuse = dict(sampler["reuse"])
    name = reuse.pop("name")
    calls = [(sampler["choice"], sampler["options"])]
    calls += [(f"reuse {name}", reuse)] if name != "none" else []
    options = [", ".join(f"{k}={v}" for k, v in keys.items()) for _, keys in calls]
    return ", ".join(
        f"{call}({said})" if said else call for (call, _), said in zip(calls, options, strict=True)
    )


def how(
    cfg: DictConfig, job: Job, plan: Plan, result: "Result", of_class: Mapping[str, object]
) -> dict[str, object]:
    """How images were drawn, as it stands in a record."""
    return chosen(cfg, job) | {
        "grid": dict(cfg.grid) if plan.calls else None,
        "steps": len(plan.sigmas) - 1 if plan.calls else None,
        "nfe": result.nfe,
        "start": plan.start,
        "clip": plan.clip,
        "guidance": plan.guidance.record() if plan.guidance else None,
        "batch": plan.batch,
        **of_class,
        "noise_level": plan.level_of.record() if plan.level_of else None,
    }


def class_number(cfg: DictConfig, trained: Trained) -> int | None:
    """`label=` as a number: a class by name or number."""
    if cfg.label is None:
        return None
    if not trained.conditional:
        raise ConfigError(f"label={cfg.label}, but {trained.folder} does not know classes")
    names = trained.spec.classes
    if str(cfg.label) in names:
        return names.index(str(cfg.label))
    if str(cfg.label).isdigit() and int(cfg.label) < len(names):
        return int(cfg.label)
    raise ConfigError(f"label: no class {cfg.label!r}; {nearest(str(cfg.label), names)}")


def class_of(trained: Trained, label: int | None) -> dict[str, object]:
    """The class that is asked for, by its number: name and number are one thing in a record."""
    return {"label": label, "label_name": None if label is None else trained.spec.classes[label]}


def facts(cfg: DictConfig, job: Job, trained: Trained, plan: Plan) -> dict[str, str]:
    steps = f"{len(plan.sigmas) - 1} steps, grid {cfg.grid.name}" if plan.calls else "its own steps"
    seen = f", seen by {plan.level_of.folder}" if plan.level_of else ""
    led = {"guidance": guiding.said(plan.guidance.record())} if plan.guidance else {}
    return {
        "run": f"{trained.folder}, step {trained.state['step']:,}, {cfg.weights} weights",
        "images": f"{cfg.n}, seed {plan.seed}" + (f", class {cfg.label}" * (cfg.label is not None)),
        "sampler": f"{named(chosen(cfg, job))}, {steps}, start {plan.start}",
        "levels": f"sigma from {plan.sigmas[0]:.3g} to {plan.sigmas[-2]:.3g}, then 0{seen}",
        **led,
    }


def summary(folder: Path) -> dict[str, str]:
    """One row of a sweep."""
    facts = runs.read(folder)
    return {"NFE": f"{facts['nfe']:g}", "speed": f"{facts['images_per_second']:.1f} images/s"}
