"""What a person sees: progress and logs on stderr, results on stdout."""

import contextlib
import time
from typing import Any, Self

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from diffuse import files
from diffuse.stderr import say

WIDTH = 80  # of the terminal that a table should fit in
PLAIN_SECONDS = 10.0  # between two lines where there is no terminal
LIVE_SECONDS = 0.25  # between two redraws where there is one


class Meter:
    """A progress bar on a terminal, elsewhere a line now and then: images/s and time left."""

    def __init__(self, what: str, total: int, done: int = 0, images: int = 1) -> None:
        """`images` is how many images one unit of `total` stands for."""
        self.what, self.total, self.first, self.images = what, total, done, images
        self.started = self.shown = time.monotonic()
        console = Console(stderr=True)
        console.on_broken_pipe = lambda: None  # rich would end the program
        self.bar: Progress | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self.bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                TimeElapsedColumn(),
                TextColumn("eta"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
                expand=True,
                auto_refresh=False,
            )
            self.task = self.bar.add_task(what, total=total, completed=done, note="")

    def __enter__(self) -> Self:
        if self.bar:
            with contextlib.suppress(OSError):
                self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar:
            with contextlib.suppress(OSError):
                self.bar.stop()

    def due(self) -> bool:
        """Is it time to show something?"""
        wait = LIVE_SECONDS if self.bar else PLAIN_SECONDS
        return time.monotonic() - self.shown >= wait

    def rate(self, done: int) -> float:
        """Images a second since the meter was made."""
        return (done - self.first) * self.images / max(1e-9, time.monotonic() - self.started)

    def show(self, done: int, note: str = "") -> str:
        """Show how far it is; returns the plain line, for a log."""
        self.shown = time.monotonic()
        speed = self.rate(done)
        left = (self.total - done) * self.images / speed if speed else float("inf")
        note = f"{note}{'  ' if note else ''}{rate(speed)} images/s"
        line = f"{self.what} {done}/{self.total}  {note}"
        line += f"  {clock(left)} left" if done < self.total else f"  in {clock(self.seconds)}"
        if self.bar:
            self.bar.update(self.task, completed=done, note=note)
            with contextlib.suppress(OSError):  # the terminal was closed: work on
                self.bar.refresh()
        else:
            say(line)
        return line

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


def clock(seconds: float) -> str:
    """E.g. 0.3 s, 45 s, 3 min 20 s, 2 h 5 min."""
    if seconds == float("inf"):
        return "?"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def rate(images: float) -> str:
    """A number of images a second, e.g. 1,234, 8.2, 0.013."""
    if images >= 9.95:
        return f"{images:,.0f}"
    return f"{images:.1f}" if images >= 0.95 else f"{images:.2g}"


def print_table(title: str, rows: dict[str, str]) -> None:
    """Two columns on stdout; no lines and no colours where it is not a terminal."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        width = max(map(len, rows))
        print(title)
        for key, value in rows.items():
            print(f"  {key:<{width}}  {value}")
        return
    console.print(Text(title, "table.title"))  # a table's own is broken to its width
    table = Table(box=box.SIMPLE_HEAD, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, value in rows.items():
        table.add_row(key, value)
    console.print(table)


def print_dry_run(rows: dict[str, str], json: bool) -> None:
    """What a dry run has to say."""
    print_json(rows) if json else print_table("Dry run (nothing is written)", rows)


def print_columns(title: str, rows: dict[str, dict[str, str]]) -> None:
    """A row for each thing that is compared, with a name before it.

    The columns are those of the first one that has any, without those that are empty in all.
    """
    names = [
        k for k in next(filter(None, rows.values()), {}) if any(row.get(k) for row in rows.values())
    ]
    lines = [["", *names]] + [[row, *(rows[row].get(name, "") for name in names)] for row in rows]
    console = Console(highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        console.print(Text(title, "table.title"))
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("", no_wrap=max(map(len, rows)) <= console.width // 2)  # else it is cut
        for name in names:
            table.add_column(name)
        for line in lines[1:]:
            table.add_row(*line)
        console.print(table)
        return
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(title)
    for line in lines:
        cells = [f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)]
        print("  " + "  ".join(cells).rstrip())


def print_json(value: Any) -> None:
    """A value on stdout as JSON, indented by two."""
    print(files.as_json(value, indent=2))
