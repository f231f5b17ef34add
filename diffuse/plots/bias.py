"""FID against the number of images, and what would be left of it with infinitely many."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffuse.plots.figures import COLOURS, INK, WIDTH, apart, drawing, files

CROWDED = 0.06  # of the axis: labels closer than this would stand in each other


def bias(
    curve: Sequence[Sequence[float]],  # n, mean and deviation of random subsets
    infinity: Mapping[str, Any],  # value, ci95, slope, points: as in a record
    floor: float | None,  # FID of as many real images as the last n of the curve
    title: str,
    path: Path,
) -> list[Path]:
    """Over 1/n, in which the bias is a line: the subsets, the fit, and where it meets 0."""
    n, mean, sd = (np.array(column) for column in zip(*curve, strict=True))
    value, (low, high) = infinity["value"], infinity["ci95"]
    fitted = np.array([point[:2] for point in infinity["points"]])
    ends = np.array([0.0, 1 / min(n.min(), fitted[:, 0].min())])
    with drawing(path, WIDTH, 3.7, layout="constrained") as figure:
        axes = figure.add_subplot()
        axes.plot(
            ends, value + infinity["slope"] * ends, color=COLOURS[1], linestyle="--",
            label=f"fit: {value:.3g} + {infinity['slope']:.3g} / n",
        )  # fmt: skip
        axes.plot(
            1 / fitted[:, 0], fitted[:, 1], "D", color=COLOURS[1], markersize=4.5, mfc="white",
            label="what it goes through: means over all parts of n, n/2, n/4, n/5",
        )  # fmt: skip
        axes.errorbar(
            1 / n, mean, yerr=sd, fmt="o", color=COLOURS[0], markersize=4.5, capsize=2, zorder=3,
            label="random subsets of n of the images: mean and deviation",
        )  # fmt: skip
        axes.errorbar(
            [0], [value], yerr=[[value - low], [high - value]], fmt="s", color=COLOURS[1],
            markersize=5, capsize=3, clip_on=False, zorder=4,
            label=f"infinitely many: {value:.3g}  (95%: {low:.3g} to {high:.3g})",
        )  # fmt: skip
        if floor is not None:
            axes.plot(
                1 / n.max(), floor, "^", color=INK, markersize=5, clip_on=False,
                label=f"{n.max():,.0f} real training images: {floor:.3g}",
            )  # fmt: skip
        places = apart(sorted([0.0, *(1 / n)]), lambda at: at + CROWDED * ends[1])
        axes.set_xticks(places, [f"{1 / at:,.0f}" if at else "infinity" for at in places])
        axes.set_xlim(-0.02 * ends[1], 1.04 * ends[1])
        axes.set_xlabel("n, evenly by 1/n")
        axes.set_ylabel("FID")
        if axes.dataLim.y0 < 0:
            axes.axhline(0, color=INK, linewidth=0.9)
        else:
            axes.set_ylim(bottom=0)
        axes.set_title(title)
        axes.legend(loc="best")
    return files(path)
