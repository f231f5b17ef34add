"""Figures in one style, each written as PNG and SVG: panels of curves, and sheets of images."""

import io
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffuse.files import replace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

WIDTH = 8.0  # inches
INK, PALE = "#222222", "#e4e4e4"
GAP = 1  # pixels of the images between two of them
CELL = 1.5  # inches; an image is not drawn larger
LINE = 0.155  # inches of a line of text
CHARACTER = 0.075  # inches of a character
EDGE = 0.12  # inches around everything
NARROW = 40  # characters that a title has room for, however few images are below it

# Okabe & Ito (2008), without yellow: told apart by the colour-blind; the dashes do it in gray
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (6, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": PALE,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.7,
    "legend.frameon": False,
    "figure.constrained_layout.w_pad": EDGE / 2,
    "figure.constrained_layout.h_pad": EDGE / 2,
    "savefig.dpi": 150,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "diffuse",  # the same figure is the same file
}


def apart(places: Sequence[float], after: Callable[[float], float]) -> list[float]:
    """Of ascending places on an axis those with room for a label, none before `after` the last."""
    kept = [places[0]]
    for place in places[1:]:
        if place >= after(kept[-1]):
            kept.append(place)
    return kept


def look(k: int) -> dict[str, Any]:
    """The colour and dashes of the k-th curve."""
    return {"color": COLOURS[k % len(COLOURS)], "linestyle": DASHES[k % len(DASHES)]}


def thinner(k: int, n: int) -> dict[str, Any]:
    """The look of the k-th of n curves that may lie on each other: what is below is wider."""
    return look(k) | ({"linewidth": 2.8 - 1.7 * k / (n - 1)} if n > 3 else {})


def whole_steps(panel: "Axes", steps: int) -> None:
    """Steps to the right, from 1: no fractions of one, and in every panel the same."""
    from matplotlib.ticker import MaxNLocator

    panel.set_xlabel("step")
    places = MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]).tick_values(1, steps)
    panel.set_xticks([place for place in places if 1 <= place <= steps])
    beside = max(0.02 * (steps - 1), 0.05)
    panel.set_xlim(1 - beside, steps + beside)


def plain(
    axis: "Axis", low: float, high: float, said: Callable[[float], str] = "{:g}".format
) -> None:
    """A logarithmic axis from low to high with numbers that people say: 5, 10, 20, not 10^1."""
    from matplotlib.ticker import MaxNLocator

    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for digits in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        if len(ticks) < 4:
            places = [digit * 10.0**power for power in powers for digit in digits]
            ticks = [place for place in places if low <= place <= high]
    if len(ticks) < 3:
        ticks = [t for t in MaxNLocator(4).tick_values(low, high) if low <= t <= high]
    axis.set_ticks(ticks, [said(tick) for tick in ticks])
    axis.set_ticks([], minor=True)


@contextmanager
def drawing(path: Path, width: float, height: float, **options: Any) -> Iterator["Figure"]:
    """An empty figure, in inches; afterwards it is written as `path`.png and `path`.svg."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), **options)
        yield figure
        path.parent.mkdir(parents=True, exist_ok=True)
        for file in files(path):
            content, form = io.BytesIO(), file.suffix[1:]
            # without a date the same figure is the same file
            metadata = {"Date": None} if form == "svg" else None
            figure.savefig(content, format=form, metadata=metadata)
            replace(file, content.getvalue())


def files(path: Path) -> list[Path]:
    """What a figure is written as."""
    return [path.with_name(path.name + suffix) for suffix in (".png", ".svg")]


@contextmanager
def panels(
    path: Path, names: Sequence[str], columns: int = 2, height: float = 2.5, title: str = ""
) -> Iterator[list["Axes"]]:
    """Panels with a title each; what has a label in the first one is named above them all."""
    rows = -(-len(names) // columns)
    high = 0.35 + height * rows + (LINE + EDGE) * bool(title)
    with drawing(path, WIDTH, high, layout="constrained") as figure:
        axes = [figure.add_subplot(rows, columns, k + 1) for k in range(len(names))]
        for panel, name in zip(axes, names, strict=True):
            panel.set_title(name)
        yield axes
        above(figure, axes[0], title)


def above(figure: "Figure", panel: "Axes", title: str) -> None:
    """The title of a figure, and under it what has a label in this panel."""
    handles, labels = panel.get_legend_handles_labels()
    if handles:
        wide = max(map(len, labels)) + 6
        figure.legend(
            handles,
            labels,
            loc="outside upper left",
            ncols=min(len(labels), max(1, 105 // wide)),
            title=title or None,
            title_fontsize=9.5,
            alignment="left",
        )
    elif title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=9.5)


def sheet(
    path: Path,
    images: Tensor,  # uint8 [rows columns c h w]
    title: str,
    rows: Sequence[str],  # what stands at the left of each row
    columns: Sequence[str] = (),  # above each column, as many lines for each
    heading: str = "",  # what those lines are
    groups: int | None = None,  # rows that belong together: a wider gap follows
    counts: Sequence[int] = (),  # a bar at the right of each row
    largest: float = CELL,  # inches of an image
) -> list[Path]:
    """Images in rows and columns that fill the sheet; pixels stay square and sharp."""
    mosaic, tops, lefts = _mosaic(images, groups or len(images))
    tall, wide = mosaic.shape[:2]
    h, w = images.shape[-2:]
    left = EDGE + CHARACTER * _longest([*rows, heading]) + 0.05
    right = EDGE + (1.7 if counts else 0)
    across = min(WIDTH - left - right, largest * images.shape[1])
    down = across * tall / wide
    lines = len(columns[0].split("\n")) if columns else 0
    title = wrapped(title, max(NARROW, int((left + across + right - 2 * EDGE) / CHARACTER)))
    top = 2 * EDGE + LINE * (title.count("\n") + 1 + lines)
    wide_title = 2 * EDGE + CHARACTER * max(map(len, title.split("\n")))
    width, height = max(left + across + right, wide_title), top + down + EDGE
    every = math.ceil(CHARACTER * _longest(columns) / (across / images.shape[1])) or 1
    columns = [label if k % every == 0 else "" for k, label in enumerate(columns)]
    with drawing(path, width, height) as figure:
        area = (left / width, EDGE / height, across / width, down / height)
        axes = figure.add_axes(area)
        axes.imshow(mosaic.numpy(), interpolation="none", aspect="auto")
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False, pad=2)
        axes.set_yticks([t + h / 2 - 0.5 for t in tops], rows)
        axes.set_xticks([x + w / 2 - 0.5 for x in lefts] if columns else [], columns or [])
        axes.annotate(
            heading, (0, 1), (-3, 2), "axes fraction", "offset points", ha="right", va="bottom"
        )
        figure.text(EDGE / width, 1 - EDGE / height, title, va="top", fontsize=9.5)
        if counts:
            _bars(figure.add_axes(_beside(area, width, right)), counts, axes)
    return files(path)


def wrapped(title: str, characters: int) -> str:
    """A title in lines of at most so many characters; paths stay whole."""
    wrap = textwrap.TextWrapper(characters, break_long_words=False, break_on_hyphens=False)
    return "\n".join(part for line in title.split("\n") for part in wrap.wrap(line))


def _longest(labels: Sequence[str]) -> int:
    """Characters of the longest line."""
    return max((len(line) for label in labels for line in label.split("\n")), default=0)


def _beside(
    area: tuple[float, float, float, float], width: float, right: float
) -> tuple[float, float, float, float]:
    """The strip between the images and the right edge."""
    left, bottom, across, down = area
    return left + across + 0.1 / width, bottom, (right - EDGE - 0.6) / width, down


def _bars(axes: "Axes", counts: Sequence[int], beside: "Axes") -> None:
    """How many images there are of each row's kind, level with it."""
    at = list(beside.get_yticks())
    step = min((b - a for a, b in pairwise(at)), default=1.0)
    bars = axes.barh(at, counts, height=0.4 * step, color=COLOURS[0])
    axes.bar_label(bars, [f"{count:,}" for count in counts], padding=3)
    axes.set_ylim(beside.get_ylim())
    axes.set_axis_off()
    axes.annotate("images", (0, 1), (0, 2), "axes fraction", "offset points", va="bottom")


def _mosaic(images: Tensor, group: int) -> tuple[Tensor, list[int], list[int]]:
    """uint8 [rows columns c h w] -> white sheet [y x 3], and where rows and columns begin."""
    rows, columns, c, h, w = images.shape
    tops = [k * (h + GAP) + k // group * max(1, h // 6) for k in range(rows)]
    lefts = [k * (w + GAP) for k in range(columns)]
    mosaic = torch.full((tops[-1] + h, lefts[-1] + w, c), 255, dtype=torch.uint8)
    for row, top in zip(images, tops, strict=True):
        for image, left in zip(row, lefts, strict=True):
            mosaic[top : top + h, left : left + w] = image.permute(1, 2, 0)
    return mosaic.expand(-1, -1, 3), tops, lefts  # gray as RGB: a colour map is off by a level
