"""`diffuse plot trajectory`: a trained network on its way from noise to images."""

import math
from pathlib import Path

from omegaconf import DictConfig

from diffuse import config, planning
from diffuse.commands import guiding, restoring
from diffuse.commands.plotting import Picture, Said, called, opened
from diffuse.config import Job
from diffuse.console import Meter
from diffuse.errors import ConfigError
from diffuse.plots import trajectory as pictures
from diffuse.plots.trajectory import Trajectory
from diffuse.sampling import classes, walk

IMAGES = 4


def trajectory(cfg: DictConfig, job: Job) -> Picture:
    """A strip of x and denoised, what each step did, all steps as a GIF."""
    check_steps(cfg)
    trained, run = opened(cfg)
    restoring.as_its_own(cfg, job, trained.cfg)
    check_steps(cfg)  # of its own
    n = cfg.n or IMAGES
    plan = restoring.planned(cfg, trained, n)
    guiding.refuse_idle(cfg, job)
    labels = classes(trained.spec, range(n), restoring.class_number(cfg, trained))
    steps = len(plan.sigmas) - 1
    counted = f"{steps:,} step{'s' * (steps != 1)}"
    about = f"{called(job, 'sampler')}, {counted}, grid {called(job, 'grid')}"
    rows = {
        "run": run,
        "images": f"{n}, seed {cfg.seed}",
        "sampler": f"{about}, clip {plan.clip}, start {plan.start}",
        "levels": f"sigma from {plan.sigmas[0]:.3g} to {plan.sigmas[-2]:.3g}, then 0",
    }

    def draw(folder: Path) -> tuple[list[Path], Said]:
        seen = Trajectory(plan.sigmas, trained.range, trained.denoiser.eval(), cfg.columns)
        with Meter("step", steps, images=n) as meter, seen.watching():
            for state in walk(trained.denoiser, trained.spec, plan, range(n), labels):
                seen.add(*state)
                if meter.due():
                    meter.show(len(seen.rows))
        title = trained.title
        names = [trained.spec.classes[k] if trained.conditional else "" for k in labels.tolist()]
        files = pictures.draw(seen, f"{title}: {about}", names, folder)
        return files, _numbers(seen)

    return Picture("Trajectory", Said(rows), draw, trained)


def check_steps(cfg: DictConfig) -> None:
    """Refuse a sampler, steps or a grid that do not go with walking step by step."""
    if planning.meta(cfg).get("adaptive"):
        raise ConfigError(
            f"sampler: {cfg.sampler.name} takes other steps for every image, so they have no "
            "level in common; choose another one"
        )
    planning.check_steps(cfg)
    config.bind("grid", cfg.grid, "steps", "schedule")


def _numbers(seen: Trajectory) -> Said:
    half, steps = seen.half(), seen.steps
    clipped = [share for share in seen.column("clipped") if not math.isnan(share)]
    largest = seen.column("largest")
    by = f"by step {half:,} of {steps:,}, {half / steps:.0%} of the way"
    calls = int(seen.rows[-1]["calls"])
    facts = {
        "steps": steps, "calls": calls, "half_change_step": half, "half_change_share": half / steps,
        "clipped_mean": sum(clipped) / len(clipped), "clipped_last": clipped[-1],
        "largest_first": largest[0], "largest_last": largest[-1],
    }  # fmt: skip
    rows = {
        "calls": f"{calls:,} an image",
        **({"half of the change": by} if steps > 1 else {}),
        "outside the range": f"{facts['clipped_mean']:.1%} of the estimates, "
        f"{clipped[-1]:.1%} of the last one",
        "largest |x|": f"{largest[0]:.3g} after the first step, {largest[-1]:.3g} at the end",
    }
    return Said(rows, facts)
