"""Trackers: who else hears of a run. metrics.jsonl is the record, so a tracker may fail."""

import contextlib
import hashlib
import logging
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any, Protocol

from diffuse import runs
from diffuse.errors import ConfigError, reason

log = logging.getLogger(__name__)

PATIENCE = 20.0  # seconds that W&B has to answer; `Quiet.finish` waits longer


class Tracker(Protocol):
    """What every tracker does. It may raise: `Quiet` stands between it and the training."""

    def start(self, folder: Path, name: str, config: dict[str, Any]) -> None: ...
    def log(self, step: int, values: dict[str, Any]) -> None: ...
    def image(self, step: int, name: str, path: Path) -> None: ...
    def finish(self) -> None: ...


class none:
    """Nobody."""

    def start(self, folder: Path, name: str, config: dict[str, Any]) -> None: ...
    def log(self, step: int, values: dict[str, Any]) -> None: ...
    def image(self, step: int, name: str, path: Path) -> None: ...
    def finish(self) -> None: ...


class wandb:
    """Weights & Biases. Without a key or a network it logs offline, into the run folder."""

    def __init__(self, project: str, entity: str | None, mode: str) -> None:
        if mode not in ("auto", "online", "offline"):
            raise ValueError(f"mode must be one of auto, online, offline, got {mode!r}")
        self.project, self.entity, self.mode = project, entity, mode
        self.run: Any = None

    def start(self, folder: Path, name: str, config: dict[str, Any]) -> None:
        import wandb as client

        mode = os.environ.get("WANDB_MODE") or self.mode
        begin = partial(self._begin, client, folder, name, config)
        if mode != "auto":
            self.run = begin(mode)
            return
        why = "no key" if not client.api.api_key else None
        if why is None:
            try:
                self.run = begin("online")
                return
            except Exception as error:
                why = reason(error)
                with contextlib.suppress(Exception, SystemExit):
                    client.teardown()  # its own process still waits for an answer to this run
        self.run = begin("offline")
        kept = Path(self.run.dir).parent
        log.warning("tracker wandb: %s; offline, `wandb sync %s` sends it later", why, kept)

    def _begin(
        self, client: Any, folder: Path, name: str, config: dict[str, Any], mode: str
    ) -> Any:
        return client.init(
            project=self.project,
            entity=self.entity,
            id=_run_id(folder),
            resume="allow",
            name=f"{name}/{folder.name}",
            group=name,
            dir=folder.absolute(),  # its own process may be in another folder
            config=config,
            mode=mode,
            reinit="finish_previous",  # of a job that failed, in the same process
            # with the console on, wandb wraps stdout and fights the progress bar
            settings=client.Settings(
                console="off", silent=True, x_disable_stats=True, init_timeout=PATIENCE
            ),
        )

    def log(self, step: int, values: dict[str, Any]) -> None:
        self.run.log(values, step=step)

    def image(self, step: int, name: str, path: Path) -> None:
        import wandb as client

        self.run.log({name: client.Image(str(path))}, step=step)

    def finish(self) -> None:
        self.run.finish()


def _run_id(folder: Path) -> str:
    """The name of a run folder at W&B: of a training that goes on it is the same one."""
    started = runs.facts_of(folder).get("started", "")
    return hashlib.sha256(f"{folder.resolve()} {started}".encode()).hexdigest()[:16]


def made(name: str, make: Callable[[], Tracker], seconds: float = PATIENCE) -> "Quiet":
    """What `make` makes, or nobody, with a warning, if it raises or does not return in time.

    ConfigError goes through: an option that is wrong is for the user to mend.
    """
    box: Queue[Tracker | BaseException] = Queue()

    def work() -> None:
        try:
            box.put(make())
        except BaseException as error:
            box.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        found = box.get(timeout=seconds)
    except Empty:
        found = TimeoutError(f"no answer in {seconds:g} s")
    if isinstance(found, ConfigError):
        raise found
    if isinstance(found, BaseException):
        log.warning("tracker %s cannot be made (%s); going on without it", name, reason(found))
        return Quiet(none())
    return Quiet(found)


class Quiet:
    """A tracker that never stops or holds up a run: a thread of its own tells it what happens.

    It fails once, with a warning. Only `finish` waits, and not longer than `seconds`.
    """

    def __init__(self, tracker: Tracker, seconds: float = 35.0, most: int = 10_000) -> None:
        self.tracker, self.seconds = tracker, seconds
        self.calls: Queue[tuple[str, Callable[[Tracker], None]]] = Queue(most)
        self.ended, self.failed, self.verb = threading.Event(), threading.Lock(), "start"
        if not isinstance(tracker, none):
            threading.Thread(target=self._work, daemon=True).start()

    def start(self, folder: Path, name: str, config: dict[str, Any]) -> None:
        self._tell("start", lambda t: t.start(folder, name, config))

    def log(self, step: int, values: dict[str, Any]) -> None:
        self._tell("log", lambda t: t.log(step, values))

    def image(self, step: int, name: str, path: Path) -> None:
        self._tell("image", lambda t: t.image(step, name, path))

    def finish(self, seconds: float | None = None) -> None:
        """Wait until the tracker has heard everything, or for so many seconds."""
        self._tell("finish", lambda t: t.finish())
        patience = self.seconds if seconds is None else seconds
        if not isinstance(self.tracker, none) and not self.ended.wait(patience):
            self._leave(self.verb, f"no answer in {patience:g} s")

    def _tell(self, verb: str, call: Callable[[Tracker], None]) -> None:
        if isinstance(self.tracker, none) or self.failed.locked():
            return
        try:
            self.calls.put_nowait((verb, call))
        except Full:
            self._leave(self.verb, f"{self.calls.maxsize} messages wait for it")

    def _work(self) -> None:
        while not self.failed.locked() and self.verb != "finish":
            self.verb, call = self.calls.get()
            try:
                call(self.tracker)
            except BaseException as e:
                self._leave(self.verb, f"{type(e).__name__}: {' '.join(str(e).split())}")
        self.ended.set()

    def _leave(self, verb: str, why: str) -> None:
        if self.failed.acquire(blocking=False):  # never released: one warning
            name = type(self.tracker).__name__
            log.warning("tracker %s failed to %s (%s); going on without it", name, verb, why)
        self.ended.set()
