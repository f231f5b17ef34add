"""What is said of a training: before it, and when it is over."""

import logging
from typing import Any

from omegaconf import OmegaConf

from diffuse import assembly, hardware, planning, runs
from diffuse.commands import guiding
from diffuse.commands.training.preparing import Work
from diffuse.config import Job
from diffuse.console import clock, print_dry_run, print_json, print_table, rate
from diffuse.utilisation import convolution_peak, utilisation

log = logging.getLogger(__name__)

PATIENCE = 4.0  # seconds of the peak


def plan(work: Work, job: Job) -> None:
    """What would happen, with a few steps run to say how long it takes."""
    log.info("timing some steps")  # of a large batch each may take minutes
    seconds = work.seconds()
    left = work.recipe.steps - work.training.step
    c, h, w = work.data.spec.shape
    images = f"{work.recipe.batch} images"
    if work.recipe.micro_batch:
        images += f" in parts of {work.recipe.micro_batch}"
    known, cfg = facts(work), work.cfg
    begun, away = known.get("init_from"), guiding.settled(cfg, cfg, work.recipe.steps)
    rows = {
        "data": f"{work.data.spec.name}: {len(work.data):,} images {c}x{h}x{w}, {work.data.source}",
        "model": f"{cfg.model.name}, {known['parameters']:,} parameters, {known['precision']}",
        "objective": f"{cfg.objective.name}, weighting {cfg.weighting.name}",
        "schedule": f"{cfg.schedule.name}, noise law {cfg.noise_law.name}",
        "levels": "sigma from {:.3g} to {:.3g}".format(*work.levels),
        "range": "[{:g}, {:g}]".format(*cfg.range),
        "steps": f"{work.recipe.steps:,} of {images}, {left:,} to do",
        "samples": f"{cfg.n} images, {len(work.plan.sigmas) - 1} steps of {cfg.sampler.name}",
        **({"guidance": f"{cfg.guidance:g}, away from {away}"} if planning.is_guided(cfg) else {}),
        **({"begins with": f"{begun['run']}, step {begun['step']:,}"} if begun else {}),
        "device": known["device"],
        "memory": f"about {hardware.peak_memory(work.device) / 2**20:,.0f} MiB",
        "time": f"about {clock(left * seconds)} ({rate(work.recipe.batch / seconds)} images/s)",
    }
    if assembly.compiles(cfg, work.device, lambda: left * seconds):
        rows["compile"] = "first, a minute or two; steps are faster then than was timed"
    if job.json:
        print_json(known | {"plan": rows, "config": OmegaConf.to_container(cfg)})
    else:
        print_dry_run(rows, json=False)


def facts(work: Work) -> dict[str, Any]:
    """What run.json says of it from the beginning."""
    return {
        "name": work.cfg.name,
        "hypothesis": work.cfg.hypothesis,
        "seed": work.cfg.seed,
        "smoke": work.cfg.smoke,
        "device": hardware.describe(work.device),
        "devices": work.ranks.world,
        "precision": work.cfg.precision,
        "data": {
            "source": work.data.source,
            "sha256": work.data.sha256,
            "test_sha256": work.test.sha256,
        },
        "parameters": sum(p.numel() for p in work.training.denoiser.parameters()),
        "steps": work.recipe.steps,
        **({"init_from": work.initial.facts} if work.initial else {}),
    }


def result(work: Work, run: runs.Run, job: Job) -> None:
    """How it ended, in a table or as JSON."""
    if job.json:
        print_json(run.facts)
        return
    known = run.facts
    rows = {
        "steps": f"{work.training.step:,} ({known['images_seen']:,} images)",
        "parameters": f"{known['parameters']:,}",
        "loss": f"{known['loss']:.4f}" if "loss" in known else "",
        "test loss": f"{known['test_loss']:.4f}" if "test_loss" in known else "",
        "speed": _fast(known),
        "memory": f"{known['memory'] / 2**20:,.0f} MiB",
        "time": clock(known["seconds"]),
    }
    if work.cfg.train.sample_every:
        rows["samples"] = str(run.folder / "samples" / "latest.png")
    rows["run"] = str(run.folder)
    print_table("Trained", {key: value for key, value in rows.items() if value})


def share(work: Work, rate: float) -> dict[str, float]:
    """What is possible here, and how much of it the training made use of."""
    device, net = work.device, work.training.denoiser.net
    if work.ranks.world > 1 or device.type not in ("cpu", "cuda"):
        return {}
    try:
        peak, _ = convolution_peak(device, PATIENCE)
        used = utilisation(net, work.data.spec.shape, rate, peak)
    except Exception as error:  # a network of someone else's may not count on shapes alone
        log.debug("utilisation is unknown: %s", error)
        return {}
    return {"peak_flops": round(peak), "utilisation": round(used, 4)}


def _fast(known: dict[str, Any]) -> str:
    if "images_per_second" not in known:  # a kill came before they were written down
        return ""
    part = known.get("utilisation")
    used = "" if part is None else f", {part:.0%} of the fastest convolution's FLOP/s"
    return f"{rate(known['images_per_second'])} images/s{used}"
