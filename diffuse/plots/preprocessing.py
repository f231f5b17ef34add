"""How far each thing that is done to real images moves their FID, and what it does to an image."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from diffuse.plots.figures import COLOURS, INK, PALE, WIDTH, drawing, files, sheet
from diffuse.scoring.preprocessing import Effect, sorted_by_size

AMPLIFIED = 4  # differences, so that a few grey levels are seen
MIDDLE = 128  # the grey of no difference


def draw(found: Sequence[Effect], about: str, encoder: str, folder: Path) -> list[Path]:
    """A chart with the largest effect on top, and some images with their differences."""
    changed = [e for e in sorted_by_size(found) if e.treatment.change]
    examples = [found[0].examples, *(effect.examples for effect in changed)]
    original = found[0].examples
    rows = torch.stack([torch.cat([some, difference(some, original)]) for some in examples])
    names = [found[0].treatment.name, *(effect.treatment.name for effect in changed)]
    count = len(original)
    strip = sheet(
        folder / "images",
        rows,
        f"images after each treatment and its change, {AMPLIFIED} times as strong (gray: none)\n"
        f"untouched first, then what most moves the FID of {about}",
        [_arrows(name) for name in names],
        ["image"] * count + ["change"] * count,
        groups=1,
    )
    title = f"FID of {about}, by {encoder}"
    return [*chart(found, title, folder / "preprocessing"), *strip]


def difference(treated: Tensor, original: Tensor) -> Tensor:
    """uint8 images minus others, amplified around a middle gray."""
    return (MIDDLE + AMPLIFIED * (treated.short() - original)).clamp(0, 255).byte()


def _arrows(name: str) -> str:
    return name.replace("->", "\N{RIGHTWARDS ARROW}")


def chart(found: Sequence[Effect], title: str, path: Path) -> list[Path]:
    """A FID with its interval a row, the difference at its right, the untouched one as a line."""
    base, effects = found[0].fid, sorted_by_size(found)
    kinds = list(dict.fromkeys(effect.treatment.kind for effect in found[1:]))
    order = dict.fromkeys(effect.treatment.kind for effect in effects)  # that of the rows
    with drawing(path, WIDTH, 1.25 + 0.25 * len(effects), layout="constrained") as figure:
        axes = figure.add_subplot()
        axes.axvspan(base.low, base.high, color=PALE, linewidth=0)
        axes.axvline(base.value, color=INK, linewidth=1, linestyle="--")
        for row, effect in enumerate(effects):
            value, low, high = effect.fid
            colour = COLOURS[kinds.index(effect.treatment.kind) % len(COLOURS)]
            axes.errorbar(
                [value], [row], xerr=[[value - low], [high - value]], fmt="o", markersize=5,
                color=colour, elinewidth=1.4,
            )  # fmt: skip
            axes.annotate(
                f"{effect.change.value:+.3f}", (max(high, base.high), row), (6, 0),
                textcoords="offset points", va="center", fontsize=8,
            )  # fmt: skip
        axes.set_yticks(range(len(effects)), [_arrows(effect.treatment.name) for effect in effects])
        axes.set_ylim(len(effects) - 0.4, -1.2)
        axes.grid(False, axis="y")
        left, right = axes.get_xlim()
        axes.set_xlim(min(0, left), right + 0.08 * (right - left))
        axes.set_xlabel("FID with its 95% interval; the number is what the treatment adds to it")
        axes.annotate(
            f"untouched: {base.value:.3f} (gray: 95%)", (max(base.value, base.high), 1),
            (6, -3), ("data", "axes fraction"), "offset points", va="top", fontsize=8,
        )  # fmt: skip
        dots = [
            axes.plot([], [], "o", color=COLOURS[k % len(COLOURS)])[0] for k in range(len(kinds))
        ]
        legend = {_arrows(kind): dots[kinds.index(kind)] for kind in order}
        axes.legend([*legend.values()], [*legend], loc="lower right")
        axes.set_title(title)
    return files(path)
