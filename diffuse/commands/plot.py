"""Pictures: which there are, and the folder that each is put in with its numbers."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from diffuse import conditions, hardware, schemas
from diffuse.commands import describing, starting
from diffuse.commands.plotting import (
    Picture,
    curves,
    data,
    denoise,
    fid_trajectory,
    noise,
    preprocessing,
    samplers,
    trajectory,
)
from diffuse.config import Job
from diffuse.console import print_json, print_table
from diffuse.errors import ConfigError
from diffuse.interrupts import Interrupts

WALKED = (
    "run checkpoint weights label sampler grid reuse steps nfe clip start noise_level "
    "guidance guide guidance_levels"
)
# what= -> the function that prepares it, and what it reads besides the keys of every command
PICTURES: dict[str, tuple[Callable[[DictConfig, Job], Picture], str]] = {
    "data": (data.data, "dataset n range"),
    "schedule": (curves.schedule, "schedule"),
    "noise_law": (curves.noise_law, "noise_law schedule"),
    "grid": (curves.grid, "grid schedule steps"),
    "embedding": (curves.embedding, "schedule"),
    "noise": (noise.noise, "dataset schedule objective n columns range"),
    "denoise": (denoise.denoise, "run checkpoint weights n columns"),
    "trajectory": (trajectory.trajectory, f"{WALKED} n columns"),
    "fid_trajectory": (fid_trajectory.fid_trajectory, f"{WALKED} encoder n"),
    "samplers": (
        samplers.samplers,
        "run checkpoint weights label samplers nfe clip start guidance guide guidance_levels n",
    ),
    "preprocessing": (preprocessing.preprocessing, "dataset encoder n"),
}


def main(cfg: DictConfig, job: Job) -> int:
    """`diffuse plot <what>`: prepare it, then claim a folder and draw."""
    check(cfg)
    prepare, reads = PICTURES[cfg.what]
    uses = reads.split()
    job.refuse(_idle(uses), f"`plot {cfg.what}` does not use it; it uses {', '.join(uses)}")
    hardware.device(cfg.device)
    picture = prepare(cfg, job)
    said = picture.said
    if cfg.dry_run:
        _show(
            job, f"{picture.title} (nothing is written)", said.rows, {"what": cfg.what} | said.facts
        )
        return 0
    facts: dict[str, Any] = {}
    if picture.trained:
        cfg.name = cfg.name or starting.name_of(picture.trained)
        facts["weights"] = describing.weights_of(cfg.weights, picture.trained)
    folder, run = starting.start("plot", cfg, job, **facts)
    with conditions.repeatable(), run.logged(), run.watched(), Interrupts(at_once=True):
        files, more = picture.draw(folder)
        names = [str(path) for path in files]
        facts = {"what": cfg.what} | said.facts | more.facts
        run.finish("done", data=facts, files=names)
    facts |= {"folder": str(folder), "plot": names[0], "files": names}
    _show(job, picture.title, said.rows | more.rows | _written(files), facts)
    return 0


def check(cfg: DictConfig) -> None:
    """Everything that can be wrong without looking at a run or data."""
    if cfg.what is None:
        raise ConfigError(
            f"plot takes a picture: diffuse plot schedule; choices: {', '.join(PICTURES)}"
        )


def _idle(uses: list[str]) -> set[str]:
    """The keys of `diffuse plot` that a picture does not read."""
    common = {entry.name for entry in fields(schemas.Common)}
    return {entry.name for entry in fields(schemas.Plot)} - common - {"what", *uses}


def _show(job: Job, title: str, rows: dict[str, str], facts: dict[str, Any]) -> None:
    print_json(facts) if job.json else print_table(title, rows)


def _written(files: list[Path]) -> dict[str, str]:
    others = " ".join(path.name for path in files[1:])
    return {"picture": str(files[0]), "beside it": others}
