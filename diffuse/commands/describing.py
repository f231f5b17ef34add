"""What images were drawn from and how: in words, and as it stands in records."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from diffuse import averages, evaluations, meanings, passport, planning
from diffuse.commands import guiding
from diffuse.config import Job
from diffuse.encoders import Encoder
from diffuse.restored import Trained
from diffuse.sampling import Plan


def facts(cfg: DictConfig, job: Job, trained: Trained, plan: Plan) -> dict[str, str]:
    """Rows of the tables that a dry run and a finished one print: what is drawn, and how."""
    steps = f"{len(plan.sigmas) - 1} steps, grid {cfg.grid.name}" if plan.calls else "its own steps"
    seen = f", seen by {plan.level_of.folder}" if plan.level_of else ""
    guided = {"guidance": guiding.said(plan.guidance.record())} if plan.guidance else {}
    return {
        "run": f"{trained.title}, {cfg.weights} weights",
        "images": f"{cfg.n}, seed {plan.seed}" + (f", class {cfg.label}" * (cfg.label is not None)),
        "sampler": f"{named(chosen(cfg, job))}, {steps}, start {plan.start}",
        "levels": f"sigma from {plan.sigmas[0]:.3g} to {plan.sigmas[-2]:.3g}, then 0{seen}",
        **guided,
    }


def chosen(cfg: DictConfig, job: Job) -> dict[str, Any]:
    """Which sampler, and which of its calls are made."""
    return {
        "choice": job.choices["sampler"],
        "name": cfg.sampler.name,
        "same_as": planning.meta(cfg).get("same_as"),
        "options": {
            key: None if value == math.inf else value  # JSON has no word for infinity
            for key, value in cfg.sampler.items()
            if key not in ("name", "meta")
        },
        "reuse": dict(cfg.reuse),
    }


def named(sampler: Mapping[str, Any]) -> str:
    """E.g. "ddim(eta=1.0, noise=1.0), reuse skip(every=3, last=50)"."""
    reuse = dict(sampler["reuse"])
    name = reuse.pop("name")
    calls = [(sampler["choice"], sampler["options"])]
    calls += [(f"reuse {name}", reuse)] if name != "none" else []
    options = [", ".join(f"{k}={v}" for k, v in keys.items() if v is not None) for _, keys in calls]
    return ", ".join(
        f"{call}({said})" if said else call for (call, _), said in zip(calls, options, strict=True)
    )


def how(
    cfg: DictConfig, job: Job, plan: Plan, nfe: float, of_class: Mapping[str, object]
) -> dict[str, object]:
    """How images were drawn, as it stands in a record."""
    return chosen(cfg, job) | {
        "grid": dict(cfg.grid) if plan.calls else None,
        "steps": len(plan.sigmas) - 1 if plan.calls else None,
        "nfe": nfe,
        "start": plan.start,
        "clip": plan.clip,
        "guidance": plan.guidance.record() if plan.guidance else None,
        "batch": plan.batch,
        **of_class,
        "noise_level": plan.level_of.record() if plan.level_of else None,
    }


def class_of(trained: Trained, label: int | None) -> dict[str, object]:
    """The class that is asked for, by its number: name and number are one thing in a record.

    A group of a run's own is none of the data's classes, and other runs may have as many.
    """
    names = trained.spec.classes
    if label is None or trained.of_classes:
        return {"label": label, "label_name": None if label is None else names[label]}
    return {"label": f"{names[label]} of {len(names)}", "label_name": names[label]}


def weights_of(name: str, trained: Trained) -> dict[str, object]:
    """Which weights, to the byte."""
    return {
        "run": str(trained.folder),
        "step": trained.step,
        "name": name,
        "sha256": trained.sha256,
    }


def passport_of(
    job: Job, trained: Trained, plan: Plan, encoder: Encoder, *, weights: str, n: int, seeds: int
) -> dict[str, Any]:
    """Everything else that the numbers depend on."""
    decays = meanings.decays(trained.cfg.train)
    named = weights.removeprefix("ema_")
    decay = None if weights == "raw" else decays[0] if named == "ema" else float(named)
    step, batch = trained.step, trained.cfg.train.batch
    average = {
        "decay": decay,
        "half_life": None if decay is None else averages.half_life(decay, step, batch),  # images
        "images_seen": trained.state["images_seen"],
    }
    return {
        "schema": evaluations.SCHEMA,
        "encoder": passport.of_encoder(encoder),
        "weights": weights_of(weights, trained) | average,
        "range": list(plan.range),
        "seeds": {"seed": plan.seed, "count": seeds, "first": 0, "last": n - 1},
        "dtype": dtype(trained),
        **passport.of_machine(trained.device),
        "code": code(trained, [plan], encoder),
        "command": job.line,
    }


def dtype(trained: Trained) -> str:
    """The number format that the network computes in, e.g. "bfloat16"."""
    return str(trained.denoiser.precision).removeprefix("torch.")


def code(trained: Trained, plans: Sequence[Plan], encoder: Encoder) -> str:
    """sha256 of all code that draws and scores: samplers, objective, network and encoder."""
    walks = [plan.sampler for plan in plans]  # in any order
    network = map(type, trained.denoiser.net.modules())
    return passport.of_code(encoder, *network, trained.denoiser.objective.coefficients, *walks)
