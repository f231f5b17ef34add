"""Train a diffusion model."""

import copy
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from diffuse import (
    assembly,
    checkpoints,
    conditions,
    config,
    evaluations,
    files,
    hardware,
    meanings,
    planning,
    runs,
    values,
    yamls,
)
from diffuse.commands import guiding
from diffuse.commands.evaluating import doubts
from diffuse.commands.training import following, inheriting, resuming, telling
from diffuse.commands.training.loop import loop
from diffuse.commands.training.preparing import Work, prepare
from diffuse.config import Job
from diffuse.console import Meter, clock, print_json, rate
from diffuse.data import check_dataset
from diffuse.encoders import check_encoder
from diffuse.interrupts import Interrupts
from diffuse.journal import Journal
from diffuse.launching import check as check_devices
from diffuse.launching import crew, last_words, leads
from diffuse.scoring import Judge
from diffuse.trackers import Quiet

log = logging.getLogger(__name__)

LONG = 60.0  # seconds of training, beside which the few that the peak takes do not count


def main(cfg: DictConfig, job: Job) -> int:
    """Check the config, then the run to continue, then the data; then claim a folder and train."""
    cfg = inheriting.filled(cfg, job)
    check(cfg)
    guiding.refuse_idle(cfg, job)
    saying = (*meanings.LENGTHS, "experiment", "debug", "resume")
    if (word := job.typed("steps")) and not job.typed(*saying):
        log.warning("%s is of the sampler, for samples; train.steps= is the length", word)
    check_devices(cfg.devices, hardware.device(cfg.device))
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
            telling.plan(work, job)
            return work.leave()
        with work.ranks.as_one():
            judge = _judge(work) if work.cfg.train.eval_every else None
        with Interrupts() as interrupts:  # from the claim on: it is for the loop to end the run
            run = _claimed(work, job) if folder is None else _reopened(work, folder)
            with run.logged(), run.watched(), last_words(partial(_lost, run)):
                for change in work.changes:
                    log.info("resume.allow: %s", change)
                code = _train(work, run, job, tracker, judge, interrupts)
            if code == 0:  # a terminal that is gone makes no failed run of it
                telling.result(work, run, job)
            return code


def _lost(run: runs.Run, why: str) -> None:
    """What a run that cannot end by itself is said to have ended by."""
    run.finish("failed", reason=f"Lost: {why}")


def _claimed(work: Work, job: Job) -> runs.Run:
    """A folder of its own."""
    folder = job.folder or runs.claim(Path(work.cfg.outputs), "train", work.cfg.name)
    text, facts = yamls.as_yaml(work.cfg), telling.facts(work)
    if job.config_dir:
        facts["config_dir"] = job.config_dir
    return runs.Run.start(folder, "train", text, job.overrides, **facts)


def _reopened(work: Work, folder: Path) -> runs.Run:
    """The folder of the run that goes on."""
    step = work.training.step
    known = telling.facts(work) | {"step": step, "images_seen": work.seen.images}

    def as_it_was() -> bool:
        return checkpoints.steps(folder / "checkpoints") == work.checkpoints

    run = runs.Run.reopen(folder, "train", as_it_was, **known)
    changing = ("steps", "devices", "precision", "data")
    run.update(**{key: value for key, value in telling.facts(work).items() if key in changing})
    run.goes_on(step, hardware.describe(work.device), work.changes)
    run.truncate_log(step)
    checkpoints.tidy(folder / "checkpoints")
    for place in (folder, folder.parent, folder / "samples", folder / "checkpoints"):
        files.tidy(place)
    files.write_sealed(folder / "config.yaml", yamls.as_yaml(work.cfg))
    return run


def check(cfg: DictConfig) -> None:
    """Everything that can be wrong without looking at runs, data or devices."""
    values.check_batch(cfg)
    schedule, _ = assembly.schedule_and_law(cfg)
    measured = copy.deepcopy(cfg)  # the data's deviation is not known yet
    assembly.fill_sigma_data(measured, 1.0)
    objective, _ = assembly.objective_and_weighting(measured)
    config.bind("optimizer", cfg.optimizer)
    config.bind("model", cfg.model, "channels", "size", "classes")
    with torch.device("meta"):
        resuming.unfed(cfg)
    check_encoder(cfg.encoder)
    check_dataset(cfg.dataset)
    config.bind("tracker", cfg.tracker)
    guiding.check(cfg, cfg, "this training")
    pixels, looks = assembly.pixel_range(cfg), guiding.of_looks(cfg)
    planning.plan(cfg, schedule, schedule.range, pixels, 1, (0.0, 0.0), objective, guidance=looks)
    resuming.check_allowed(cfg)


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
        "data": {"sha256": work.data.sha256, "test_sha256": work.test.sha256},
    }
    multiple = every.keep_every and every.save_every and every.keep_every * every.save_every
    journal = Journal(
        run, tracker, training, recipe.batch, every.keep, multiple, about,
        work.seen, _drawing(work.cfg), work.weak_step,
        every.save_every if recipe.on_nan == "rollback" else None,
    )  # fmt: skip
    work.begin(run.folder)
    with Meter("train", recipe.steps, training.step, recipe.batch) as meter:
        try:
            done = loop(work, journal, interrupts, meter, judge)
        except BaseException:
            journal.settle()
            raise
    if not done:
        run.finish("stopped", reason=f"signal {interrupts.caught or 'to another process'}")
        again = inheriting.hint(run.folder, job)
        log.warning("stopped at step %d; %s continues", training.step, again)
        tracker.finish(seconds=5)  # whoever asked to stop does not wait long
        return interrupts.exit_code
    trained = training.step > meter.first  # else only what a kill had left to do was done
    speed = meter.rate(training.step)
    if trained:
        run.facts["images_per_second"] = evaluations.rounded(speed)
    run.finish("done", memory=hardware.peak_memory(work.device))
    tracker.finish()
    if trained and meter.seconds >= LONG:
        run.update(**telling.share(work, speed))
    return 0


def _drawing(cfg: DictConfig) -> str:
    """How images are drawn for looks, in a word: FIDs of others are other numbers."""
    keys = ("sampler", "grid", "reuse", "steps", "nfe", "clip", "start", *guiding.KEYS)
    said = OmegaConf.to_yaml(OmegaConf.masked_copy(cfg, [key for key in keys if key in cfg]))
    return hashlib.sha256(said.encode()).hexdigest()[:12]


def _judge(work: Work) -> Judge:
    """Of quick FIDs; what the network sees is read again if that is not its own size."""
    resized = work.test.spec.fit != "none"
    sets = assembly.real_sets(work.cfg.dataset) if resized else (work.data, work.test)
    judge = assembly.judge(work.cfg, train=sets[0], test=sets[1])
    for line in doubts.of_features(judge.encoder, len(judge.test), judge.train):
        log.warning("%s", line)
    return judge


def summary(folder: Path) -> dict[str, str]:
    """One row of a sweep."""
    facts = runs.read(folder)
    return {
        "steps": f"{facts['steps']:,}",
        "loss": f"{facts['loss']:.4f}" if "loss" in facts else "",
        "test loss": f"{facts['test_loss']:.4f}" if "test_loss" in facts else "",
        "best quick FID": _quick(facts["best"]) if "best" in facts else "",
        "images/s": rate(facts["images_per_second"]) if "images_per_second" in facts else "",
        "time": clock(facts["seconds"]),
    }


def _quick(best: Mapping[str, Any]) -> str:
    """With its interval."""
    return "{:.3f} ({:.2f} to {:.2f})".format(best["fid"], *best["ci95"])
