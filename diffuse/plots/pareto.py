"""FID against what it costs: a curve for each sampler, with intervals, the floor and the choice."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffuse.plots.figures import COLOURS, INK, apart, files, look, panels, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE = 12  # times from the lowest to the highest value from which on the scale is logarithmic
FLOOR, CHOSEN = "#8a8a8a", "#E69F00"
APART = 1.02  # times between samplers of as many calls, whose intervals would hide each other
RING: dict[str, Any] = {
    "marker": "o", "markerfacecolor": "none", "markeredgecolor": CHOSEN, "markeredgewidth": 2.2,
    "linestyle": "none",
}  # fmt: skip
LINE = 0.2  # inches of a line that is below the panels
AXES = {"nfe": "calls of the network an image", "seconds": "time an image"}


def pareto(
    cells: Sequence[Mapping[str, Any]],  # as they stand in a record
    floor: Mapping[str, Any],  # value and ci95 of n real images
    path: Path,
) -> list[Path]:
    """Two panels: FID over calls and over seconds; a ring is around the cheapest that is enough."""
    scored = [cell for cell in cells if cell.get("value") is not None]
    if not scored:
        raise ValueError("there is no cell with a value to draw")
    names = list(dict.fromkeys(cell["sampler"] for cell in cells))
    chosen = next(cell for cell in scored if cell["cheapest"])
    said = _said(chosen, floor, lost=len(scored) < len(cells))
    high = 3.6 + LINE * len(said)
    with panels(path, ["FID against calls", "FID against time"], height=high) as axes:
        for panel, key in zip(axes, AXES, strict=True):
            _floor(panel, floor)
            for k, name in enumerate(names):
                ours = [cell for cell in scored if cell["sampler"] == name]
                places = [(_aside(cell, scored, key), cell) for cell in ours]
                places.sort(key=lambda place: place[0])
                _curve(panel, places, look(k) | {"label": name})
            at = [_aside(chosen, scored, key)]
            panel.plot(at, [chosen["value"]], markersize=12, zorder=4, **RING)
            _scales(panel, scored, floor, key)
        _lost(axes[0], cells, names)
        figure = axes[0].get_figure(root=True)
        assert figure is not None
        _explained(figure, said)
        axes[1].sharey(axes[0])
        axes[0].set_ylabel("FID")
    return files(path)


def _aside(cell: Mapping[str, Any], scored: Sequence[Mapping[str, Any]], key: str) -> float:
    """Where a cell stands: at what it costs, or a little aside of it where intervals of as many
    calls overlap.
    """
    if key != "nfe":
        return cell[key]
    low, high = cell["ci95"]
    same = [one for one in scored if one["nfe"] == cell["nfe"]]
    over = [one for one in same if one["ci95"][0] <= high and low <= one["ci95"][1]]
    return cell[key] * APART ** (over.index(cell) - (len(over) - 1) / 2)


def _curve(
    panel: "Axes", places: Sequence[tuple[float, Mapping[str, Any]]], style: dict[str, Any]
) -> None:
    """One sampler: a point with its interval for each number of calls."""
    cells = [cell for _, cell in places]
    values = [cell["value"] for cell in cells]
    below = [cell["value"] - cell["ci95"][0] for cell in cells]
    above = [cell["ci95"][1] - cell["value"] for cell in cells]
    panel.errorbar(
        [at for at, _ in places], values, yerr=[below, above], marker="o",
        markersize=3.8, markeredgecolor="white", markeredgewidth=0.5, capsize=2.2, elinewidth=1.0,
        capthick=1.0, zorder=3, **style,
    )  # fmt: skip


def _floor(panel: "Axes", floor: Mapping[str, Any]) -> None:
    """What as many real images score, with its interval."""
    panel.axhline(floor["value"], color=FLOOR, linewidth=1.2, zorder=1.5)
    panel.axhspan(*floor["ci95"], color=FLOOR, alpha=0.18, linewidth=0, zorder=1)


def _lost(panel: "Axes", cells: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """What diverged has no height: a cross at the upper edge, over its calls."""
    for cell in cells:
        if cell.get("value") is None:
            colour = COLOURS[names.index(cell["sampler"]) % len(COLOURS)]
            panel.plot(
                [cell["nfe"]], [1.0], transform=panel.get_xaxis_transform(), marker="X",
                markersize=6.5, color=colour, linestyle="none", zorder=4, clip_on=False,
            )  # fmt: skip


def _said(cell: Mapping[str, Any], floor: Mapping[str, Any], lost: bool) -> dict[str, Any]:
    """What ring, band and cross are: words -> the sign that they stand beside."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    cost = f"{cell['nfe']:g} calls, {duration(cell['seconds'])}"
    chosen = f"{cell['sampler']}, {cost}, FID {cell['value']:.3g}"
    band = (Patch(color=FLOOR, alpha=0.18, linewidth=0), Line2D([], [], color=FLOOR))
    said: dict[str, Any] = {
        f"cheapest within noise of the best: {chosen}": Line2D([], [], markersize=8, **RING),
        f"{floor['n']:,} real images: {floor['value']:.3g}  (band: 95%)": band,
    }
    if lost:
        cross = Line2D([], [], marker="X", color=INK, markersize=6.5, linestyle="none")
        said["diverged, at the upper edge"] = cross
    return said


def _explained(figure: "Figure", said: Mapping[str, Any]) -> None:
    """Below the panels, where there are no curves."""
    from matplotlib.legend_handler import HandlerTuple

    figure.legend(
        [*said.values()], [*said], loc="outside lower left", labelcolor=INK, handlelength=1.8,
        handler_map={tuple: HandlerTuple(ndivide=1, pad=0)},
    )  # fmt: skip


def _scales(
    panel: "Axes", scored: Sequence[Mapping[str, Any]], floor: Mapping[str, Any], key: str
) -> None:
    """Costs on a logarithmic scale, with the calls as they are; FID too if it has a wide range."""
    panel.set_xscale("log")
    panel.set_xlabel(AXES[key])
    asked = sorted({nfe for cell in scored for nfe in cell["asked"]})
    at = sorted([cell[key] for cell in scored] + (asked if key == "nfe" else []))
    panel.set_xlim(at[0] / 1.3, at[-1] * 1.3)
    if key == "nfe":
        ticks = apart(asked, lambda tick: tick * 1.15)
        panel.set_xticks(ticks, [f"{nfe:g}" for nfe in ticks])
    else:
        plain(panel.xaxis, *panel.get_xlim(), duration)
    values = [floor["value"], *(cell["value"] for cell in scored)]
    if min(values) > 0 and max(values) > WIDE * min(values):
        panel.set_yscale("log")
        plain(panel.yaxis, *panel.get_ylim())
    panel.minorticks_off()


def duration(seconds: float) -> str:
    """E.g. 0.5 ms, 20 ms, 1.5 s."""
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
