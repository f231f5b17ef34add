"""Train a diffusion model."""

import copy
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from diffuse import (
    assembly,
    checkpoints,
    conditions,
    config,
    files,
    hardware,
    planning,
    runs,
    yamls,
)
from diffuse.commands import guiding
from diffuse.commands.training import following, inheriting, resuming
from diffuse.commands.training.loop import loop
from diffuse.commands.training.preparing import Work, prepare
from diffuse.config import Job
from diffuse.console import Meter, clock, print_json, print_table
from diffuse.data import check_dataset
from diffuse.encoders import check_encoder
from diffuse.interrupts import Interrupts
from diffuse.journal import Journal
from diffuse.launching import crew, leads
from diffuse.scoring import Judge
from diffuse.trackers import Quiet
from diffuse.utilisation import convolution_peak, utilisation

log = logging.getLogger(__name__)

LONG = 60.0  # seconds of training, beside which the few that the peak takes do not count
PATIENCE = 4.0  # seconds of the peak


def main(cfg: DictConfig, job: Job) -> int:
    """Check the config, then the run to continue, then the data; then claim a folder and train."""
    cfg = inheriting.filled(cfg, job)
    check(cfg)
    guiding.refuse_idle(cfg, job)
    hardware.check_devices(cfg.devices, hardware.device(cfg.device))
    tracker = assembly.tracker(cfg) if leads(cfg.devices) else None
    with conditions.repeatable(), crew(cfg.devices) as meet:
        if tracker is None:
            return following.main(meet)
        folder = resuming.folder(cfg, job.folder)
        work = prepare(cfg, folder, meet)
        done, asked = work.training.step, work.recipe.steps
        # a kill after the last step may have left something to do
        over = done > asked or (done == asked and folder and runs.is_done(folder))
        work.ranks.agree(cfg.dry_run and not over)  # whether steps are timed
        if over:
            said = f"{folder} has {done:,} steps, {asked:,} are asked for; train.steps= extends it"
            print_json(runs.facts_of(folder)) if job.json and folder else print(said)
            return work.leave()
        if cfg.dry_run:
            _print_plan(work, job)
            return work.leave()
        with work.ranks.as_one():
            judge = _judge(work) if work.cfg.train.eval_every else None
        with Interrupts() as interrupts:  # from the claim on: it is for the loop to end the run
            run = _claimed(work, job) if folder is None else _reopened(work, folder)
            with run.logged(), run.watched():
                return _train(work, run, job, tracker, judge, interrupts)


def _claimed(work: Work, job: Job) -> runs.Run:
    """A folder of its own."""
    folder = job.folder or runs.claim(Path(work.cfg.outputs), "train", work.cfg.name)
    text = yamls.as_yaml(work.cfg)
    return runs.Run.start(folder, "train", text, job.overrides, **_facts(work))


def _reopened(work: Work, folder: Path) -> runs.Run:
    """The folder of the run that goes on."""
    step = work.training.step
    known = _facts(work) | {"step": step, "images_seen": work.seen.images}
    run = runs.Run.reopen(folder, "train", **known)
    changing = ("steps", "devices", "precision", "data")
    run.update(**{key: value for key, value in _facts(work).items() if key in changing})
    run.goes_on(step, hardware.describe(work.device))
    run.truncate_log(step)
    checkpoints.tidy(folder / "checkpoints")
    for place in (folder, folder.parent, folder / "samples", folder / "checkpoints"):
        files.tidy(place)
    files.replace(folder / "config.yaml", yamls.as_yaml(work.cfg), synced=True)
    return run


def check(cfg: DictConfig) -> None:
    """Everything that can be wrong without looking at runs, data or devices."""
    schedule, _ = assembly.process(cfg)
    measured = copy.deepcopy(cfg)  # the data's deviation is not known yet
    assembly.fill_sigma_data(measured, 1.0)
    assembly.objective_and_weighting(measured)
    config.bind("optimizer", cfg.optimizer)
    config.bind("model", cfg.model, "channels", "size", "classes")
    with torch.device("meta"):
        resuming.unfed(cfg)
    check_encoder(cfg.encoder)
    check_dataset(cfg.dataset)
    config.bind("tracker", cfg.tracker)
    guiding.check(cfg, cfg, "this training")
    pixels, looks = (cfg.range[0], cfg.range[1]), guiding.of_looks(cfg)
    planning.plan(cfg, schedule, schedule.range, pixels, 1, (0.0, 0.0), guidance=looks)
    resuming.check_allowed(cfg)


def _print_plan(work: Work, job: Job) -> None:
    """What would happen, with a few steps run to say how long it takes."""
    log.info("timing some steps")  # of a large batch each may take minutes
    seconds = work.seconds()
    left = work.recipe.steps - work.training.step
    c, h, w = work.data.spec.shape
    images = f"{work.recipe.batch} images"
    if work.recipe.micro_batch:
        images += f" in parts of {work.recipe.micro_batch}"
    facts, cfg = _facts(work), work.cfg
    begun = facts.get("init_from")
    rows = {
        "data": f"{work.data.spec.name}: {len(work.data):,} images {c}x{h}x{w}, {work.data.source}",
        "model": f"{cfg.model.name}, {facts['parameters']:,} parameters, {facts['precision']}",
        "objective": f"{cfg.objective.name}, weighting {cfg.weighting.name}",
        "schedule": f"{cfg.schedule.name}, noise law {cfg.noise_law.name}",
        "levels": "sigma from {:.3g} to {:.3g}".format(*work.levels),
        "range": "[{:g}, {:g}]".format(*cfg.range),
        "steps": f"{work.recipe.steps:,} of {images}, {left:,} to do",
        "grids": f"{cfg.n} images, {len(work.plan.sigmas) - 1} steps of {cfg.sampler.name}",
        **(
            {"guidance": f"{cfg.guidance:g}, away from {cfg.guide}"}
            if planning.is_guided(cfg)
            else {}
        ),
        **({"begins with": f"{begun['run']}, step {begun['step']:,}"} if begun else {}),
        "device": facts["device"],
        "memory": f"about {hardware.peak_memory(work.device) / 2**20:,.0f} MiB",
        "time": f"about {clock(left * seconds)} ({work.recipe.batch / seconds:.0f} images/s)",
    }
    if job.json:
        print_json(facts | {"plan": rows, "config": OmegaConf.to_container(cfg)})
    else:
        print_table("Plan (nothing is written)", rows)


def _facts(work: Work) -> dict[str, Any]:
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


def _train(
    work: Work,
    run: runs.Run,
    job: Job,
    tracker: Quiet,
    judge: Judge | None,  # of quick FIDs
    interrupts: Interrupts,
) -> int:
    """The loop in its run folder, and what is said of how it ended."""
    every, recipe, training = work.cfg.train, work.recipe, work.training
    log.info("%s", run.folder)
    log.debug("data: %s", work.data.source)
    each = f", {work.ranks.world} processes" * (work.ranks.world > 1)
    log.info("on %s, %s%s", hardware.describe(work.device), work.cfg.precision, each)
    hardware.forget_peak(work.device)  # steps were timed on a copy of all weights
    settings = OmegaConf.to_container(work.cfg, resolve=True)
    assert isinstance(settings, dict)
    tracker.start(run.folder, work.cfg.name, {str(k): v for k, v in settings.items()})
    about = {
        "spec": asdict(work.data.spec),
        "levels": work.levels,
        "moments": work.plan.moments,
        "device": work.device.type,
    }
    multiple = every.keep_every and every.save_every and every.keep_every * every.save_every
    journal = Journal(
        run, tracker, training, recipe.batch, every.keep, multiple, about,
        work.seen, work.weak_step, every.save_every if recipe.on_nan == "rollback" else None,
    )  # fmt: skip
    work.begin(run.folder)
    with Meter("train", recipe.steps, training.step, recipe.batch) as meter:
        done = loop(work, journal, interrupts, meter, judge)
    if not done:
        run.finish("stopped", reason=f"signal {interrupts.caught or 'to another process'}")
        again = inheriting.hint(run.folder, job)
        log.warning("stopped at step %d; %s continues", training.step, again)
        tracker.finish(seconds=5)  # whoever asked to stop does not wait long
        return interrupts.exit_code
    trained = training.step > meter.first  # else only what a kill had left to do was done
    rate = meter.rate(training.step)
    if trained:
        run.facts["images_per_second"] = round(rate, 1)
    run.finish("done", memory=hardware.peak_memory(work.device))
    tracker.finish()
    if trained and meter.seconds >= LONG:
        run.update(**_share(work, rate))
    _print_result(work, run, job)
    return 0


def _judge(work: Work) -> Judge:
    """Of quick FIDs; what the network sees is read again if that is not its own size."""
    resized = work.test.spec.fit != "none"
    sets = assembly.real_sets(work.cfg.dataset) if resized else (work.data, work.test)
    return assembly.judge(work.cfg, train=sets[0], test=sets[1])


def _print_result(work: Work, run: runs.Run, job: Job) -> None:
    if job.json:
        print_json(run.facts)
        return
    facts = run.facts
    rows = {
        "steps": f"{work.training.step:,} ({facts['images_seen']:,} images)",
        "parameters": f"{facts['parameters']:,}",
        "loss": f"{facts['loss']:.4f}" if "loss" in facts else "",
        "test loss": f"{facts['test_loss']:.4f}" if "test_loss" in facts else "",
        "speed": _fast(facts),
        "memory": f"{facts['memory'] / 2**20:,.0f} MiB",
        "time": clock(facts["seconds"]),
    }
    if work.cfg.train.sample_every:
        rows["grid"] = str(run.folder / "samples" / "latest.png")
    rows["run"] = str(run.folder)
    print_table("Trained", {key: value for key, value in rows.items() if value})


def summary(folder: Path) -> dict[str, str]:
    """One row of a sweep."""
    facts = runs.read(folder)
    return {
        "steps": f"{facts['steps']:,}",
        "loss": f"{facts['loss']:.4f}" if "loss" in facts else "",
        "test loss": f"{facts['test_loss']:.4f}" if "test_loss" in facts else "",
        "best quick FID": _quick(facts["best"]) if "best" in facts else "",
        "images/s": f"{facts['images_per_second']:,}" if "images_per_second" in facts else "",
        "time": clock(facts["seconds"]),
    }


def _quick(best: Mapping[str, Any]) -> str:
    """With its interval."""
    return "{:.3f} ({:.2f} to {:.2f})".format(best["fid"], *best["ci95"])


def _share(work: Work, rate: float) -> dict[str, float]:
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


def _fast(facts: dict[str, Any]) -> str:
    if "images_per_second" not in facts:  # a kill came before they were written down
        return ""
    share = facts.get("utilisation")
    used = "" if share is None else f", {share:.0%} of the fastest convolution's FLOP/s"
    return f"{facts['images_per_second']:,} images/s{used}"
