"""Train a diffusion model."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from diffuse import assembly, checkpoints, config, hardware, plots, runs, schemas
from diffuse.checkups import Checkup
from diffuse.commands import resuming
from diffuse.config import Job
from diffuse.console import Meter, clock, print_json, print_table
from diffuse.data import ImageSet, open_dataset
from diffuse.data.images import moments
from diffuse.evaluation import Scores
from diffuse.interrupts import Interrupts
from diffuse.noise_laws import Law
from diffuse.sampling import Plan
from diffuse.trackers import Quiet
from diffuse.training import Recipe, Step, Training, fit, seconds_per_step

log = logging.getLogger(__name__)


@dataclass
class Work:
    """A training, ready to go."""

    cfg: DictConfig  # resolved: its length is a number of steps
    data: ImageSet
    test: ImageSet
    law: Law
    plan: Plan
    levels: tuple[float, float]
    training: Training
    recipe: Recipe
    peaks: list[float]  # learning rates of the optimizer's groups
    device: torch.device
    window: list[float]  # the losses since the last line of the log: sum and count


def main(cfg: DictConfig, job: Job) -> int:
    """Check the config, then the run to continue, then the data; then claim a folder and train."""
    _check(cfg)
    folder = resuming.folder(cfg)
    work = _prepare(cfg, folder)
    if work.training.step >= work.recipe.steps:
        print(f"{folder} has its {work.training.step:,} steps; a larger train.steps extends it")
        return 0
    if cfg.dry_run:
        return _print_plan(work, job)
    text = OmegaConf.to_yaml(work.cfg, resolve=True)
    if folder is None:
        folder = job.folder or runs.claim(Path(cfg.outputs), "train", cfg.name)
        folder.mkdir(parents=True, exist_ok=True)
        run = runs.Run.start(folder, "train", text, job.overrides, **_facts(work))
    else:
        run = runs.Run.reopen(folder)
        run.truncate_log(work.training.step)
        (folder / "config.yaml").write_text(text)
    with run.logged(), run.watched(), Interrupts() as interrupts:
        log.info("%s", folder)
        log.info("%s on %s", work.data.source, hardware.describe(work.device))
        return _train(work, run, job, interrupts)


def _check(cfg: DictConfig) -> None:
    """Everything that can be wrong without looking at runs or data."""
    schedule, _ = assembly.process(cfg)
    config.build("objective", cfg.objective)
    config.bind("optimizer", cfg.optimizer)
    config.bind("model", cfg.model, "channels", "size", "classes")
    config.bind("encoder", cfg.encoder, "spec")
    config.build("tracker", cfg.tracker)
    assembly.plan(cfg, schedule, schedule.range, (cfg.range[0], cfg.range[1]), 1, (0.0, 0.0))
    hardware.device(cfg.device)


def _prepare(cfg: DictConfig, folder: Path | None) -> Work:
    """Data, network, optimizer; the state of the run if one is continued; the length in steps."""
    if folder is not None:
        cfg = resuming.continued(cfg, folder)
    device = hardware.device(cfg.device)
    cfg.precision, _ = hardware.precision(cfg.precision, device)
    data = open_dataset(cfg.dataset, "train").to(device)
    test = open_dataset(cfg.dataset, "test").to(device)
    schedule, law = assembly.process(cfg)
    denoiser = assembly.denoiser(cfg, data.spec, device)
    optimizer = assembly.optimizer(cfg, denoiser.net)
    peaks = [group["lr"] for group in optimizer.param_groups]
    training, window = Training.new(denoiser, optimizer, cfg.train.ema), [0.0, 0.0]
    if folder is not None and (checkpoint := checkpoints.newest(folder / "checkpoints")):
        training.load(checkpoint)
        window = checkpoints.load_state(checkpoint)["window"]
    recipe = _recipe(cfg, training, data, law)
    for unit in schemas.LENGTHS:
        cfg.train[unit] = recipe.steps if unit == "steps" else None
    pixels = (cfg.range[0], cfg.range[1])
    batch = assembly.sampling_batch(None, cfg.n, device)
    plan = assembly.plan(
        cfg, schedule, schedule.range, pixels, batch, moments(data.images, pixels)
    )
    return Work(cfg, data, test, law, plan, schedule.range, training, recipe, peaks, device, window)


def _recipe(cfg: DictConfig, training: Training, data: ImageSet, law: Law) -> Recipe:
    """The `train` section with its length as a number of steps."""
    unit, amount = schemas.length(cfg.train)
    words = {k: v for k, v in cfg.train.items() if k in Recipe.__dataclass_fields__}
    words |= {"steps": 1, "range": (cfg.range[0], cfg.range[1]), "seed": cfg.seed}
    recipe = Recipe(**words)
    if unit == "steps":
        steps = amount
    elif unit == "images":
        steps = amount / recipe.batch
    elif unit == "epochs":
        steps = amount * len(data) / recipe.batch
    else:
        seconds = seconds_per_step(training, data, law, recipe)
        steps = amount * 60 / seconds
        log.info("%g ms a step: %g minutes are %d steps", seconds * 1e3, amount, steps)
    return Recipe(**{**asdict(recipe), "steps": max(1, round(steps))})


def _print_plan(work: Work, job: Job) -> int:
    """What would happen, with a few steps run to say how long it takes."""
    seconds = seconds_per_step(work.training, work.data, work.law, work.recipe)
    left = work.recipe.steps - work.training.step
    c, h, w = work.data.spec.shape
    facts = _facts(work)
    rows = {
        "data": f"{work.data.spec.name}: {len(work.data):,} images {c}x{h}x{w}, {work.data.source}",
        "model": f"{work.cfg.model.name}, {facts['parameters']:,} parameters, {facts['precision']}",
        "levels": "sigma from {:.3g} to {:.3g}".format(*work.levels),
        "steps": f"{work.recipe.steps:,} of {work.recipe.batch} images, {left:,} to do",
        "grids": f"{work.plan.batch} images at a time, {len(work.plan.sigmas) - 1} steps",
        "device": facts["device"],
        "memory": f"about {hardware.peak_memory(work.device) / 2**20:,.0f} MiB",
        "time": f"about {clock(left * seconds)} ({work.recipe.batch / seconds:.0f} images/s)",
    }
    if job.json:
        print_json(facts | {"plan": rows, "config": OmegaConf.to_container(work.cfg)})
    else:
        print(OmegaConf.to_yaml(work.cfg, resolve=True))
        print_table("Plan (nothing is written)", rows)
    return 0


def _facts(work: Work) -> dict[str, Any]:
    return {
        "name": work.cfg.name,
        "hypothesis": work.cfg.hypothesis,
        "seed": work.cfg.seed,
        "smoke": work.cfg.smoke,
        "device": hardware.describe(work.device),
        "precision": work.cfg.precision,
        "data": {"source": work.data.source, "sha256": work.data.sha256},
        "parameters": sum(p.numel() for p in work.training.denoiser.parameters()),
        "steps": work.recipe.steps,
    }


def _train(work: Work, run: runs.Run, job: Job, interrupts: Interrupts) -> int:
    """The loop: what happens when."""
    every, recipe, training = work.cfg.train, work.recipe, work.training
    journal = Journal(work, run)
    checkup = Checkup(training, work.test, work.law, work.plan)
    judge = assembly.judge(work.cfg, work.test, work.data) if every.eval_every else None
    meter = Meter("train", recipe.steps, training.step, recipe.batch)
    with meter:
        for step in fit(training, work.data, work.law, recipe, work.peaks):
            journal.window.add(step.loss)
            if meter.due() or step.last:
                log.debug(meter.show(step.number, f"loss {step.loss.item():.4f}"))
            if step.every(every.log_every):
                journal.steps(step)
            if step.every(every.sample_every):
                journal.log(step, test_loss=checkup.loss())
                journal.picture(step, checkup.grid(work.cfg.n))
            if judge is not None and step.every(every.eval_every):
                journal.score(step, checkup.score(judge, every.eval_n))
            if step.every(every.save_every) or interrupts.caught or step.last:
                journal.save()
            if interrupts.caught:
                break
    journal.tracker.finish()
    if interrupts.caught:
        run.finish("stopped", reason=f"signal {interrupts.caught}")
        log.warning("stopped at step %d; resume=auto continues", training.step)
        return interrupts.exit_code
    run.finish("done", images_per_second=round(meter.rate(training.step), 1))
    _print_result(work, run, job)
    return 0


class Journal:
    """Everything a training run leaves behind, in its folder and with its tracker."""

    def __init__(self, work: Work, run: runs.Run) -> None:
        self.work, self.run = work, run
        self.window = Window(work.device, work.window)
        self.best = run.facts.get("best")
        self.tracker = Quiet(config.build("tracker", work.cfg.tracker))
        settings = OmegaConf.to_container(work.cfg, resolve=True)
        assert isinstance(settings, dict)
        self.tracker.start(run.folder, work.cfg.name, {str(k): v for k, v in settings.items()})

    def log(self, step: Step, **values: float) -> None:
        self.run.log(step=step.number, images_seen=step.number * self.work.recipe.batch, **values)
        self.tracker.log(step.number, values)

    def steps(self, step: Step) -> None:
        """The mean loss since the last such line."""
        loss = self.window.close()
        self.log(step, loss=loss, lr=step.lr, grad_norm=step.grad_norm.item())

    def picture(self, step: Step, grid: Image.Image) -> None:
        folder = self.run.folder / "samples"
        path = plots.save(grid, folder / f"step_{step.number:08d}.png")
        plots.save(grid, folder / "latest.png")
        self.tracker.image(step.number, "samples", path)

    def score(self, step: Step, scores: Scores) -> None:
        """Log a quick FID; the checkpoint with the lowest one is kept."""
        self.log(step, fid=scores.fid, kid=scores.kid, eval_n=scores.n)
        if self.best is None or scores.fid < self.best["fid"]:
            self.best = {"step": step.number, "fid": scores.fid, "n": scores.n}
            self.save()
            self.run.update(best=self.best)

    def save(self) -> None:
        """A checkpoint of this step, unless there is one; then delete the ones too many."""
        work, folder = self.work, self.run.folder / "checkpoints"
        files, state = work.training.tensors()
        state |= {
            "images_seen": work.training.step * work.recipe.batch,
            "spec": asdict(work.data.spec),
            "levels": work.levels,
            "moments": work.plan.moments,
            "device": work.device.type,
            "window": self.window.state(),
        }
        checkpoints.save(folder, work.training.step, files, state)
        # this one by name: a damaged one that training has not passed again may look newer
        spared = [work.training.step, *([self.best["step"]] if self.best else [])]
        checkpoints.purge(folder, work.cfg.train.keep, spared)
        self.run.update(step=work.training.step, images_seen=state["images_seen"])


class Window:
    """The mean loss of some steps; it stays on the device until somebody asks."""

    def __init__(self, device: torch.device, state: list[float]) -> None:
        self.sum = torch.tensor(state[0], dtype=torch.float32, device=device)
        self.count = int(state[1])

    def add(self, loss: torch.Tensor) -> None:
        self.sum += loss
        self.count += 1

    def close(self) -> float:
        mean = self.sum.item() / max(1, self.count)
        self.sum.zero_()
        self.count = 0
        return mean

    def state(self) -> list[float]:
        return [self.sum.item(), self.count]


def _print_result(work: Work, run: runs.Run, job: Job) -> None:
    if job.json:
        print_json(run.facts)
        return
    facts = run.facts
    rows = {
        "steps": f"{work.training.step:,} ({facts['images_seen']:,} images)",
        "parameters": f"{facts['parameters']:,}",
        "speed": f"{facts['images_per_second']:,} images/s",
        "time": clock(facts["seconds"]),
    }
    if work.cfg.train.sample_every:
        rows["grid"] = str(run.folder / "samples" / "latest.png")
    rows["run"] = str(run.folder)
    print_table("Trained", rows)
