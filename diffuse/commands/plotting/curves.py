"""`diffuse plot schedule`, `noise_law`, `grid` and `embedding`: no data, no network."""

from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from diffuse import config
from diffuse.commands.plotting import Picture, Said, called, overlaid
from diffuse.config import Job
from diffuse.files import write_csv
from diffuse.plots import curves
from diffuse.schedules import alpha_bar
from diffuse.seeds import generator

DRAWS = 100_000  # levels that a noise law is asked for
STEPS = 20  # of a grid
WIDTH = 64  # of the embedding
PERIODS = (10_000, 1_000, 10)  # the lessons' three


def schedule(cfg: DictConfig, job: Job) -> Picture:
    """alpha_bar, sigma, slope and beta, and how many steps see all but noise."""
    choices = {
        label: config.build("schedule", node)
        for label, node in overlaid(cfg, job, "schedule").items()
    }
    said = Said(facts={"schedules": {}})
    for label, one in choices.items():
        low, high = one.range
        flat, last = curves.flat(one), alpha_bar(torch.tensor(high)).item()
        of = "of t" if one.table is None else f"of {len(one.table):,} steps"
        said.rows[label] = (
            f"{flat:.1%} {of} flat; sigma {low:.3g} to {high:.4g}, alpha_bar ends at {last:.2g}"
        )
        said.facts["schedules"][label] = {
            "sigma": [low, high], "alpha_bar_last": last, "flat": flat,
            "levels": None if one.table is None else len(one.table),
        }  # fmt: skip

    def draw(folder: Path) -> tuple[list[Path], Said]:
        return curves.schedules(choices, folder / "schedule"), Said()

    return Picture("Schedules", said, draw)


def noise_law(cfg: DictConfig, job: Job) -> Picture:
    """Which levels training sees: the density over t and over log sigma."""
    levels = config.build("schedule", cfg.schedule)
    title = f"Noise laws on the schedule {called(job, 'schedule')}"
    said = Said(facts={"schedule": job.choices["schedule"], "draws": DRAWS, "noise_laws": {}})
    drawn: dict[str, Tensor] = {}
    for label, node in overlaid(cfg, job, "noise_law").items():
        law = config.build("noise_law", node, schedule=levels)
        drawn[label] = sigma = law(DRAWS, generator(cfg.seed, "noise_law"))
        shares = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
        low, median, high = sigma.quantile(shares).tolist()
        said.rows[label] = (
            f"median sigma {median:.3g} (t = {levels.t(sigma.median()).item():.2f}), "
            f"nine in ten from {low:.3g} to {high:.3g}"
        )
        said.facts["noise_laws"][label] = {"median": median, "middle90": [low, high]}

    def draw(folder: Path) -> tuple[list[Path], Said]:
        return curves.noise_laws(drawn, levels, title, folder / "noise_law"), Said()

    return Picture(title, said, draw)


def grid(cfg: DictConfig, job: Job) -> Picture:
    """Which levels a sampler visits."""
    schedule = config.build("schedule", cfg.schedule)
    steps = cfg.steps or STEPS
    title = f"Grids of {steps} steps on the schedule {called(job, 'schedule')}"
    levels = {
        label: config.build("grid", node, steps=steps, schedule=schedule)[:-1]
        for label, node in overlaid(cfg, job, "grid").items()
    }
    said = Said(facts={"schedule": job.choices["schedule"], "steps": steps})
    said.facts["grids"] = {label: sigmas.tolist() for label, sigmas in levels.items()}
    for label, sigmas in levels.items():
        step = (sigmas[:-1] / sigmas[1:]).max().item() if steps > 1 else 1.0
        said.rows[label] = (
            f"sigma {sigmas[0]:.4g} to {sigmas[-1]:.3g}, then 0; at most {step:.3g} times a step"
        )

    def draw(folder: Path) -> tuple[list[Path], Said]:
        files = curves.grids(levels, title, folder / "grid")
        rows = zip(range(1, steps + 1), *said.facts["grids"].values(), strict=True)
        return [*files, write_csv(folder / "grid.csv", [["step", *levels], *rows])], Said()

    return Picture(title, said, draw)


def embedding(cfg: DictConfig, job: Job) -> Picture:
    """What the network is told of a level, for three longest periods of its sines."""
    schedule = config.build("schedule", cfg.schedule)
    title = f"Embedding of log(sigma) / 4 on the schedule {called(job, 'schedule')}"
    told = {period: curves.told(schedule, WIDTH, period) for period in PERIODS}
    said = Said(facts={"schedule": job.choices["schedule"], "width": WIDTH, "max_period": {}})
    near = curves.POINTS // 100
    for period, values in told.items():
        varying = (values.amax(0) - values.amin(0) > 1).float().mean().item()
        alike = torch.cosine_similarity(values[near:], values[:-near]).mean().item()
        said.rows[f"max_period {period}"] = (
            f"{varying:.0%} of the dimensions vary by more than 1; "
            f"levels 0.01 of t apart: cosine {alike:.2f}"
        )
        said.facts["max_period"][str(period)] = {"varying": varying, "alike": alike}

    def draw(folder: Path) -> tuple[list[Path], Said]:
        shown = {
            f"max_period = {period:,}": curves.blended(schedule, WIDTH, period)
            for period in PERIODS
        }
        about = f"{title}; white, too, where it turns faster than the picture shows"
        return curves.embeddings(shown, about, folder / "embedding"), Said()

    return Picture(title, said, draw)
