"""A walk from noise to images, watched: what each step did, and pictures of it."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffuse.data import to_uint8
from diffuse.denoiser import Denoiser
from diffuse.files import write_csv
from diffuse.plots.figures import INK, files, look, panels, sheet, whole_steps
from diffuse.plots.images import animation, grid
from diffuse.plots.states import scaled, short
from diffuse.scoring.along import spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOVING = 4  # images in an animation
PIXELS = 256  # and about its width
LARGEST = 0.9  # inches of an image of the strip
COLUMNS = ("step", "sigma", "calls", "change", "clipped", "largest")


@dataclass
class Trajectory:
    """What is kept of a walk down `sigmas`: a row of numbers a step, some states as pixels."""

    sigmas: Tensor  # the grid [steps + 1]
    range: tuple[float, float]  # of the pixels the network knows
    denoiser: Denoiser
    columns: int  # states kept for a strip
    rows: list[dict[str, float]] = field(default_factory=list)
    strip: list[Tensor] = field(default_factory=list)  # uint8 [n 2 c h w]: x and denoised
    frames: list[Tensor] = field(default_factory=list)  # uint8 [2 min(n, MOVING) ...]
    _outside: list[float] = field(default_factory=list)
    _before: Tensor | None = None

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    @property
    def shown(self) -> list[int]:
        """The steps of the strip."""
        return spread(self.steps, self.columns)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at every estimate of the network before it is clipped."""
        low, high = self.range

        def look_at(_module: object, _inputs: object, estimate: Tensor) -> None:
            self._outside.append(((estimate < low) | (estimate > high)).float().mean().item())

        hook = self.denoiser.register_forward_hook(look_at)
        try:
            yield
        finally:
            hook.remove()

    def add(self, x: Tensor, denoised: Tensor, calls: int) -> None:
        """The next step: the state it led to, and the estimate of x0 that led there."""
        step = len(self.rows) + 1
        x, denoised = x.float().cpu(), denoised.float().cpu()
        change = math.nan if self._before is None else _rms(denoised - self._before)
        outside = self._outside or [math.nan]  # the network was not called: an estimate reused
        self.rows.append(
            dict(zip(COLUMNS, (
                step, self.sigmas[step - 1].item(), calls, change,
                sum(outside) / len(outside), x.abs().max().item(),
            ), strict=True))
        )  # fmt: skip
        self._before, self._outside = denoised, []
        seen = scaled(x, self.sigmas[step].expand(len(x)), self.denoiser.objective)
        pixels = to_uint8(torch.stack([seen, denoised], dim=1), self.range)
        if step in self.shown:
            self.strip.append(pixels)
        self.frames.append(pixels[:MOVING].transpose(0, 1).flatten(0, 1))

    def column(self, name: str) -> list[float]:
        return [row[name] for row in self.rows]

    def half(self) -> int:
        """The step by which half of all change of the estimate has happened."""
        change = torch.tensor(self.column("change"), dtype=torch.float64).nan_to_num()
        reached = change.cumsum(0) >= change.sum() / 2
        return int(reached.nonzero()[0]) + 1


def _rms(difference: Tensor) -> float:
    return difference.double().square().mean().sqrt().item()


def draw(trajectory: Trajectory, title: str, labels: Sequence[str], folder: Path) -> list[Path]:
    """A strip, curves, an animation and a table."""
    shown, n = trajectory.shown, len(trajectory.strip[0])
    sigmas = trajectory.sigmas[torch.tensor(shown)].tolist()
    strip = sheet(
        folder / "trajectory",
        torch.stack(trajectory.strip, dim=2).flatten(0, 1),  # [n 2 columns ...] -> rows
        title,
        [kind for label in labels for kind in (f"class {label}, x" if label else "x", "denoised")],
        [f"{step}\n{short(sigma)}" for step, sigma in zip(shown, sigmas, strict=True)],
        "after step\nat sigma",
        groups=2,
        largest=LARGEST,
    )
    moving = min(n, MOVING)
    pictures = (grid(frame, moving, PIXELS) for frame in trajectory.frames)
    gif = animation(pictures, len(trajectory.frames), folder / "trajectory.gif")
    return [*strip, *curves(trajectory, title, folder / "curves"), gif, table(trajectory, folder)]


def curves(trajectory: Trajectory, title: str, path: Path) -> list[Path]:
    """What each step did, over the steps."""
    titles = {
        "sigma": "sigma",
        "change": "change of the estimate (rms)",
        "clipped": "share of the estimate outside the range",
        "largest": "largest |x|",
    }
    half = trajectory.half()
    with panels(path, list(titles.values()), height=2.2, title=title) as axes:
        for panel, name in zip(axes, titles, strict=True):
            mark = {"marker": "o", "markersize": 3} if trajectory.steps <= 60 else {}
            panel.plot(trajectory.column("step"), trajectory.column(name), **look(0), **mark)
            whole_steps(panel, trajectory.steps)
            panel.set_yscale("log" if name in ("sigma", "largest") else "linear")
        if trajectory.steps > 1:
            _mark(axes[1], half, late=half > trajectory.steps / 2)
        else:
            axes[1].annotate(
                "there is no step before it", (0.5, 0.5), None, "axes fraction", ha="center"
            )
            axes[1].set_yticks([])
        axes[1].set_ylim(bottom=0)
        axes[2].set_ylim(bottom=0)
    return files(path)


def _mark(panel: "Axes", half: int, late: bool) -> None:
    """A line where half of the change has happened."""
    panel.axvline(half, color=INK, linewidth=0.8)
    panel.annotate(
        f"half of it by step {half:,}", (half, 1), (-4 if late else 4, -2),
        ("data", "axes fraction"), "offset points", ha="right" if late else "left", va="top",
    )  # fmt: skip


def table(trajectory: Trajectory, folder: Path) -> Path:
    """The rows as CSV; what is not known is left empty."""
    rows = [
        ["" if math.isnan(row[name]) else row[name] for name in COLUMNS] for row in trajectory.rows
    ]
    return write_csv(folder / "trajectory.csv", [COLUMNS, *rows])
