"""SIGINT and SIGTERM: the first asks for a tidy end, the second ends at once."""

import os
import signal
from types import FrameType, TracebackType
from typing import Self


class Interrupts:
    """While it is entered, `caught` is the signal that asks to stop, or None.

    With `at_once` there is nothing to tidy up: the signal raises SystemExit(128 + signal).
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, at_once: bool = False) -> None:
        self.at_once = at_once
        self.caught: int | None = None

    @property
    def exit_code(self) -> int:
        """130 or 143, as shells report it."""
        return 128 + (self.caught or 0)

    def __enter__(self) -> Self:
        self.before = {s: signal.signal(s, self._handle) for s in self.SIGNALS}
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.caught is not None:
            os._exit(128 + number)
        self.caught = number
        if self.at_once:
            raise SystemExit(128 + number)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
