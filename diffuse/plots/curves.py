"""What a run would see, in curves: schedules, noise laws, grids, the embedding of a level."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffuse.models.blocks import sinusoidal
from diffuse.plots.figures import INK, WIDTH, drawing, files, look, panels, thinner, whole_steps
from diffuse.schedules import Schedule, alpha_bar

FLAT = 0.01  # alpha_bar under which a level is all but noise
POINTS = 1001  # of a curve of a continuous schedule
COLUMNS, WITHIN = 500, 128  # of an embedding, and places in one: the fastest sines turn often in it
BINS = 80  # of a histogram


def levels(schedule: Schedule) -> Tensor:
    """The levels of its table, or those of many t, lowest first."""
    if schedule.table is not None:
        return schedule.table
    return schedule.sigma(torch.linspace(0, 1, POINTS, dtype=torch.float64))


def flat(schedule: Schedule, below: float = FLAT) -> float:
    """The share of the steps whose alpha_bar is less: of a table's levels, else of t."""
    if schedule.table is not None:
        return (alpha_bar(schedule.table) < below).double().mean().item()
    sigma = torch.tensor((1 / below - 1) ** 0.5, dtype=torch.float64)
    return 1 - schedule.t(sigma).item()


def slope(schedule: Schedule) -> Tensor:
    """d alpha_bar / dt at the same points as `levels`, by differences."""
    kept = alpha_bar(levels(schedule))
    return torch.gradient(kept, spacing=1 / (len(kept) - 1))[0]


def betas(table: Tensor) -> Tensor:
    """The betas of a table of levels: 1 - alpha_bar / (alpha_bar of the level before)."""
    kept = torch.cat([table.new_ones(1), alpha_bar(table)])
    return 1 - kept[1:] / kept[:-1]


def schedules(choices: Mapping[str, Schedule], path: Path) -> list[Path]:
    """alpha_bar, sigma and slope over t, and the betas of those that have a table."""
    names = [f"alpha_bar (dot at {FLAT})", "sigma", "d alpha_bar / dt"]
    tables = any(schedule.table is not None for schedule in choices.values())
    names += ["beta, of the tables"] if tables else []
    title = (
        f"Schedules; flat: the share of the steps whose alpha_bar is below {FLAT}, after the dot"
    )
    with panels(path, names, columns=2 if tables else 3, title=title) as axes:
        for k, (label, schedule) in enumerate(choices.items()):
            sigma, share = levels(schedule), flat(schedule)
            t = np.linspace(0, 1, len(sigma))
            axes[0].plot(
                t,
                alpha_bar(sigma).numpy(),
                label=f"{label}: {share:.1%} flat",
                **thinner(k, len(choices)),
            )
            if share > 0:
                axes[0].scatter(
                    1 - share, FLAT, color=look(k)["color"], s=20, zorder=3, clip_on=False
                )
            axes[1].semilogy(t, sigma.numpy(), **thinner(k, len(choices)))
            axes[2].plot(t, slope(schedule).numpy(), **thinner(k, len(choices)))
            if schedule.table is not None:
                axes[3].semilogy(t, betas(sigma).numpy(), **thinner(k, len(choices)))
        for panel in axes:
            panel.set_xlabel("t")
            panel.set_xlim(0, 1)
    return files(path)


def noise_laws(
    choices: Mapping[str, Tensor], schedule: Schedule, title: str, path: Path
) -> list[Path]:
    """Levels [n] that each law has drawn: their density over t and over log10 sigma."""
    low, high = torch.tensor(schedule.range, dtype=torch.float64).log10().tolist()
    names = ["density over t", "density over log10 sigma"]
    with panels(path, names, height=2.9, title=title) as axes:
        for k, (label, sigma) in enumerate(choices.items()):
            for panel, (counts, edges) in zip(axes, histograms(sigma, schedule), strict=True):
                middle = (edges[1:] + edges[:-1]) / 2
                panel.plot(middle.numpy(), counts.numpy(), label=label, **look(k))
        axes[0].set_xlim(0, 1)
        axes[0].set_xlabel("t")
        axes[1].set_xlim(low, high)
        axes[1].set_xlabel("log10 sigma")
        for panel in axes:
            panel.set_ylim(bottom=0)
    return files(path)


def histograms(sigma: Tensor, schedule: Schedule) -> list[tuple[Tensor, Tensor]]:
    """(density, edges) of levels [n] over t, and over log10 sigma."""
    low, high = torch.tensor(schedule.range, dtype=torch.float64).log10().tolist()
    values = [(schedule.t(sigma), 0.0, 1.0), (sigma.log10(), low, high)]
    return [torch.histogram(x.clamp(a, b), BINS, range=(a, b), density=True) for x, a, b in values]


def grids(choices: Mapping[str, Tensor], title: str, path: Path) -> list[Path]:
    """The levels [steps] of grids without the final 0: over the steps, and on one line each."""
    names = ["sigma", "the same, a line for each grid"]
    with panels(path, names, height=2.9, title=title) as axes:
        for k, (label, levels) in enumerate(choices.items()):
            sigmas, step = levels.tolist(), range(1, len(levels) + 1)
            mark = {"marker": "o", "markersize": 3, **look(k)}
            axes[0].semilogy(step, sigmas, label=label, **mark)
            axes[1].scatter(
                sigmas, [k] * len(sigmas), marker="|", s=160, color=mark["color"], linewidths=1.2
            )
        whole_steps(axes[0], max(map(len, choices.values())))
        axes[1].set_xscale("log")
        axes[1].set_xlabel("sigma")
        axes[1].set_yticks(range(len(choices)), list(choices))
        axes[1].set_ylim(len(choices) - 0.5, -0.5)
        axes[1].grid(False, axis="y")
    return files(path)


def told(schedule: Schedule, width: int, max_period: float) -> Tensor:
    """What a network is told of each level: the embedding [t width] of log(sigma) / 4."""
    sigma = schedule.sigma(torch.linspace(0, 1, POINTS, dtype=torch.float64))
    return sinusoidal(sigma.log() / 4, width, max_period)


def blended(schedule: Schedule, width: int, max_period: float) -> Tensor:
    """The same as an eye sees it: weighted means [t width] over columns of t and their neighbours.

    A sine that turns faster than the columns can show is 0 there; single values of it would make
    a pattern that is not there.
    """
    t = torch.linspace(0, 1, COLUMNS * WITHIN, dtype=torch.float64)
    every = sinusoidal(schedule.sigma(t).log() / 4, width, max_period)
    weights = torch.hann_window(3 * WITHIN, dtype=every.dtype)
    lines = F.pad(every.T[:, None], (WITHIN, WITHIN), mode="reflect")
    return F.conv1d(lines, (weights / weights.sum())[None, None], stride=WITHIN)[:, 0].T


def embeddings(choices: Mapping[str, Tensor], title: str, path: Path) -> list[Path]:
    """Embeddings [t width] as images, one under the other: t to the right."""
    with drawing(path, WIDTH, 0.6 + 1.9 * len(choices), layout="constrained") as figure:
        figure.suptitle(title, x=0.01, ha="left", fontsize=9.5)
        axes = figure.subplots(len(choices), 1, sharex=True, squeeze=False)[:, 0]
        for panel, (label, values) in zip(axes, choices.items(), strict=True):
            panel.imshow(
                values.T.numpy(), cmap="PuOr", vmin=-1, vmax=1, aspect="auto", interpolation="none",
                extent=(0, 1, values.shape[1], 0),
            )  # fmt: skip
            panel.set_title(label)
            half = values.shape[1] // 2
            places = {0: "0", half // 2: "sines", half: f"{half}", 3 * half // 2: "cosines"}
            panel.set_yticks([*places], [*places.values()])
            panel.axhline(half, color=INK, linewidth=0.6)
            panel.set_ylabel("dimension")
            panel.grid(False)
        axes[-1].set_xlabel("t")
        figure.colorbar(axes[0].images[0], ax=list(axes), aspect=50, pad=0.01, ticks=[-1, 0, 1])
    return files(path)
