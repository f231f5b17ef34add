"""SIGINT, SIGTERM, SIGUSR1, SIGHUP: the first asks for a tidy end, the second ends at once."""

import os
import signal
import threading
import time
from types import FrameType
from typing import ClassVar, Self

from diffuse.errors import INTERRUPTED, TERMINATED

BURST = 0.05  # seconds in which several signals are one: a shell and a scheduler may both send it
RELAYED = 5.0  # the same under torchrun, which is told, too, and then tells us again


class Interrupts:
    """While it is entered, `caught` is the signal that asks to stop, or None.

    With `at_once` there is nothing to tidy up: the signal raises SystemExit(exit_code), once only,
    however many are entered: what follows is the tidy end of somebody further out. SIGUSR1 is what
    Slurm is told to send before the time is over (`--signal=USR1@120`); it counts as SIGTERM. So
    does SIGHUP, of a terminal that is closed, but for two things: whoever ignores it goes on
    (nohup), and it never is a second signal, because a shell and the kernel both send it.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
    asked: ClassVar[threading.Event] = threading.Event()  # since the outermost one was entered?
    last: ClassVar[int] = 0  # which it was

    def __init__(self, at_once: bool = False) -> None:
        self.at_once = at_once
        self.caught: int | None = None

    @property
    def exit_code(self) -> int:
        """INTERRUPTED or TERMINATED."""
        return exit_code(self.caught or 0)

    def __enter__(self) -> Self:
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.write_end, False)
        self.wakeup = signal.set_wakeup_fd(self.write_end, warn_on_full_buffer=False)
        if self.wakeup == -1:
            self.asked.clear()
        threading.Thread(target=self._count, args=[self.read_end], daemon=True).start()
        deaf = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        heard = [s for s in self.SIGNALS if s != signal.SIGHUP or not deaf]
        self.before = {s: signal.signal(s, self._handle) for s in heard}
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.caught is not None:
            return
        self.caught, again = number, self.asked.is_set()
        Interrupts.last = number
        self.asked.set()
        if self.at_once and not again:
            raise SystemExit(self.exit_code)

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self.wakeup)
        os.close(self.write_end)  # the thread reads the end of the file, and closes the other end

    def _count(self, read_end: int) -> None:
        """Python runs no handler while a long computation lasts, so a thread counts signals."""
        begun, burst = None, RELAYED if "TORCHELASTIC_RUN_ID" in os.environ else BURST
        while number := os.read(read_end, 1):
            if number[0] not in self.SIGNALS:
                continue
            if begun is None:
                begun = time.monotonic()
                self.first(number[0])
            elif number[0] != signal.SIGHUP and time.monotonic() - begun > burst:
                self.second(number[0])
        os.close(read_end)

    def first(self, number: int) -> None:
        """What the thread does, whatever the work is busy with: nothing."""

    def second(self, number: int) -> None:
        """The work has no say any more."""
        os._exit(exit_code(number))


def exit_code(number: int) -> int:
    """INTERRUPTED for SIGINT, TERMINATED for all that ask to stop."""
    return INTERRUPTED if number == signal.SIGINT else TERMINATED
