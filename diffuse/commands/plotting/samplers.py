"""`diffuse plot samplers`: what samplers make of the same noise in as many network calls."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from diffuse.commands import guiding, restoring
from diffuse.commands.evaluating import cells
from diffuse.commands.evaluating.cells import Cell
from diffuse.commands.plotting import Picture, Said, opened
from diffuse.config import Job
from diffuse.console import Meter
from diffuse.errors import ConfigError
from diffuse.plots.figures import sheet
from diffuse.sampling import images

IMAGES, CALLS = 10, 20


def samplers(cfg: DictConfig, job: Job) -> Picture:
    """A row for each sampler, a column for each image: what is below another began as the same."""
    trained, run = opened(cfg)
    n, nfe = cfg.n or IMAGES, cfg.nfe or CALLS
    label = restoring.class_number(cfg, trained)
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    one = OmegaConf.create({**plain, "nfe": [nfe]})
    table, left_out = cells.laid_out(one, trained, n)
    guiding.refuse_idle(one, job)
    if left_out:
        first = left_out[0]
        raise ConfigError(f"samplers: {first.sampler} does not go with nfe={nfe}: {first.reason}")
    rows = {"run": run, "images": f"{n}, seed {cfg.seed}, start {cfg.start}"}
    rows |= {cell.sampler: _about(cell) for cell in table}
    facts: dict[str, Any] = {"nfe": nfe, "n": n, "seed": cfg.seed}
    facts["samplers"] = {
        cell.sampler: {"nfe": cell.calls, "steps": cell.steps, "grid": cell.cfg.grid.name}
        for cell in table
    }

    def draw(folder: Path) -> tuple[list[Path], Said]:
        found = []
        with Meter("sampler", len(table), images=n) as meter:
            for cell in table:
                (drawn,) = images(trained.denoiser, trained.spec, cell.plan, n, label)
                found.append(drawn)
                if meter.due():
                    meter.show(len(found))
        names = [f"{cell.sampler}\n{cell.calls} calls, {cell.steps} steps" for cell in table]
        classes = trained.spec.classes if trained.conditional else ()
        columns = [classes[k] for k in found[0].labels.tolist()] if classes else []
        title = (
            f"{trained.title}: at most {nfe} calls an image\n"
            f"a column begins with the same noise, seed {cfg.seed}; each sampler has its own grid"
        )
        pixels = torch.stack([one.images for one in found])
        return sheet(folder / "samplers", pixels, title, names, columns, groups=1), Said()

    return Picture("Samplers from the same noise", Said(rows, facts), draw, trained)


def _about(cell: Cell) -> str:
    return f"{cell.calls} calls, {cell.steps} steps, grid {cell.cfg.grid.name}"
