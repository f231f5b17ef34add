"""A signal to a sweep whose jobs run in other processes of this machine: they save, and end.

While the command runs its jobs it is named in a file, and each of their processes looks there now
and then. If it is not, because it was told to stop or is gone, a job ends as if told itself.
"""

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Self

from diffuse import files, owners
from diffuse.cli import sweep_records
from diffuse.errors import TERMINATED, NoSpaceError, reason
from diffuse.interrupts import Interrupts

log = logging.getLogger("diffuse")
NAME = ".command"  # the file, in the folder of a sweep
AT_ONCE = "at once"  # stands in it if nobody waits for the jobs
GRACE = 120.0  # seconds that jobs have to save and end
LAST = 30.0  # seconds that a launcher has to notice that its jobs are gone: submitit takes 16
LOOK = 0.3  # seconds between two looks
SUBMITIT = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher"
LAUNCHERS = (  # whose jobs are for the command to end; those on a cluster run on without it
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    SUBMITIT,
)
_busy = threading.Event()  # does a job run in this process?
_watched: set[Path] = set()  # sweeps that it has had jobs of


def reached(launcher: Any) -> str:
    """Hydra's launcher, if its processes are beside this one; else nothing."""
    name = str(launcher.get("_target_"))
    return name if name in LAUNCHERS else ""


class Relay(Interrupts):
    """While the command is in it, the first signal is for the jobs, and the command waits for them.

    Then, or after GRACE seconds, it raises SystemExit(exit_code). A second signal ends all at once.
    """

    def __init__(self, folder: Path, launcher: str = "") -> None:
        super().__init__()
        self.folder, self.name, self.launcher = folder, folder / NAME, launcher
        self.door = threading.Lock()  # between the thread that waits and who leaves
        self.left = self.over = False

    def __enter__(self) -> Self:
        files.replace(self.name, files.as_json(owners.facts()))
        super().__enter__()
        # Ctrl-C reaches submitit's own processes between us and the jobs, too: they inherit that
        # they are to hear nothing. We do, by the thread that counts.
        unheard = self.SIGNALS if self.launcher == SUBMITIT else ()
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, unheard)
        return self

    def __exit__(self, *error: object) -> None:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
            with self.door:
                self.left = True
            if self.caught is None:
                self.name.unlink(missing_ok=True)
        finally:
            super().__exit__(*error)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        super()._handle(number, frame)
        if self.over:
            raise SystemExit(self.exit_code)

    def first(self, number: int) -> None:
        """No job begins any more, and those that run are told."""
        self.name.unlink(missing_ok=True)
        threading.Thread(target=self._wait, daemon=True).start()
        log.warning("waiting for the jobs to save; a second signal ends them at once")

    def second(self, number: int) -> None:
        """Nobody is waited for."""
        if not self.over:  # else it is our own
            self._end()
            super().second(number)

    def wait(self) -> bool:
        """Until no job runs any more; False if one still does after GRACE seconds."""
        until = time.monotonic() + GRACE
        while running := sweep_records.running(self.folder):
            if time.monotonic() > until:
                log.warning("job %s did not end within %g s: killed", ", ".join(running), GRACE)
                return False
            time.sleep(0.05)
        return True

    def _wait(self) -> None:
        if not self.wait():
            self._end()
        time.sleep(2 * LOOK)  # until jobs have ended; a launcher may then leave by itself
        with self.door:
            if self.left:
                return
            self.over = True
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LAST)
        if not self.left:
            os._exit(self.exit_code)

    def _end(self) -> None:
        try:
            files.replace(self.name, json.dumps(AT_ONCE))
        except (OSError, NoSpaceError) as error:  # then they save and end in their own time
            log.warning("the jobs are not told to end at once: %s", reason(error))


def prepare_process(folder: Path, command: int) -> None:
    """Of a launcher, for jobs: between them a signal would take those of other processes along."""
    for number in Interrupts.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, Interrupts.SIGNALS)
    if folder not in _watched:
        _watched.add(folder)
        threading.Thread(target=_watch, args=[folder, command], daemon=True).start()


@contextmanager
def listening() -> Iterator[Interrupts]:
    """A signal at any moment ends the job, but not the process, which others may follow in."""
    _busy.set()
    try:
        with Interrupts(at_once=True) as told:
            yield told
    finally:
        _busy.clear()


def is_over(folder: Path, command: int) -> bool:
    """Has the command been told to stop, or is it gone?"""
    said = _said(folder)
    return not isinstance(said, dict) or said.get("pid") != command or not owners.is_there(said)


def _said(folder: Path) -> Any:
    """What stands in the file, None if there is none."""
    try:
        return json.loads((folder / NAME).read_text())
    except (OSError, ValueError):
        return None


def _watch(folder: Path, command: int) -> None:
    """Tell the job of this process, once; end the process if nobody wants it any more."""
    while True:
        time.sleep(LOOK)
        if not is_over(folder, command):
            continue
        if _said(folder) == AT_ONCE or not (_busy.is_set() or owners.alive(command)):
            os._exit(TERMINATED)
        if _busy.is_set() and not Interrupts.asked.is_set():
            os.kill(os.getpid(), signal.SIGTERM)
