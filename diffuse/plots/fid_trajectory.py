"""FID after each step of a sampler: a figure and a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffuse.files import write_csv
from diffuse.metrics import Estimate
from diffuse.plots.figures import INK, WIDTH, above, drawing, files, look, plain, whole_steps
from diffuse.scoring.along import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = {
    "denoised": "denoised: the estimate of x0 that the step is taken with",
    "x": "x: the state that it leads to, as the network sees it",
}
COLUMNS = ("step", "sigma", "calls", "denoised", "denoised_low", "denoised_high", "x", "x_low",
           "x_high")  # fmt: skip


def draw(
    points: Sequence[Point], floor: float, floor_n: int, title: str, folder: Path
) -> list[Path]:
    """Both curves over the steps and over the levels, the FID of real images, and all numbers."""
    path = folder / "fid_trajectory"
    with drawing(path, WIDTH, 3.6, layout="constrained") as figure:
        title += f", {_short(points[-1].x.value)} at the end"
        left, right = figure.subplots(1, 2, sharey=True)
        _curves(left, [point.step for point in points], points, floor)
        whole_steps(left, points[-1].step)
        left.set_xlabel("after step")
        _curves(right, [point.sigma for point in points], points, floor)
        right.set_xscale("log")
        right.invert_xaxis()
        right.set_xlabel("sigma that the step begins at")
        left.set_yscale("log")
        plain(left.yaxis, *left.get_ylim())
        right.tick_params(labelleft=False)
        left.set_ylabel("FID (band: 95%)")
        left.annotate(
            f"{floor_n:,} real images: {_short(floor)}", (0, floor), (3, 3),
            ("axes fraction", "data"), "offset points", fontsize=8,
        )  # fmt: skip
        above(figure, left, title)
    return [*files(path), table(points, folder)]


def _curves(axes: "Axes", at: Sequence[float], points: Sequence[Point], floor: float) -> None:
    for k, (kind, label) in enumerate(KINDS.items()):
        estimates = [getattr(point, kind) for point in points]
        mark = {"marker": "o", "markersize": 3} if len(points) <= 60 else {}
        axes.plot(at, [e.value for e in estimates], label=label, **look(k), **mark)
        low = [_lower(e) for e in estimates]
        colour = look(k)["color"]
        axes.fill_between(at, low, [e.high for e in estimates], color=colour, alpha=0.2, lw=0)
    axes.axhline(floor, color=INK, linewidth=0.9, linestyle=(0, (1, 1)))


def _lower(estimate: Estimate) -> float:
    """The lower end of an interval; 0 has no place on this axis."""
    return max(estimate.low, 0.05 * estimate.value)


def _short(number: float) -> str:
    return f"{number:.2f}" if number < 100 else f"{number:.0f}"


def table(points: Sequence[Point], folder: Path) -> Path:
    """All points as CSV."""
    rows = [[p.step, p.sigma, p.calls, *p.denoised, *p.x] for p in points]
    return write_csv(folder / "fid_trajectory.csv", [COLUMNS, *rows])
