"""Trackers: who else hears of a run. metrics.jsonl is the record, so a tracker may fail."""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

log = logging.getLogger(__name__)


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
    """Weights & Biases. Without an account or a key it logs offline, into the run folder."""

    def __init__(self, project: str, entity: str | None, mode: str) -> None:
        if mode not in ("auto", "online", "offline"):
            raise ValueError(f"mode must be one of auto, online, offline, got {mode!r}")
        self.project, self.entity, self.mode = project, entity, mode
        self.run: Any = None

    def start(self, folder: Path, name: str, config: dict[str, Any]) -> None:
        import wandb as client

        # decided before init: a failed online start cannot be turned into an offline one
        mode = os.environ.get("WANDB_MODE") or self.mode
        if mode == "auto":
            mode = "online" if client.api.api_key else "offline"
        self.run = client.init(
            project=self.project,
            entity=self.entity,
            name=f"{name}/{folder.name}",
            group=name,
            dir=folder,
            config=config,
            mode=mode,  # pyright: ignore[reportArgumentType] (checked above, or by wandb)
            # with the console on, wandb wraps stdout and fights the progress bar
            settings=client.Settings(
                console="off", silent=True, x_disable_stats=True, init_timeout=30
            ),
        )

    def log(self, step: int, values: dict[str, Any]) -> None:
        self.run.log(values, step=step)

    def image(self, step: int, name: str, path: Path) -> None:
        import wandb as client

        self.run.log({name: client.Image(str(path))}, step=step)

    def finish(self) -> None:
        self.run.finish()


class Quiet:
    """A tracker that never stops or holds up a run: it fails once, with a warning."""

    def __init__(self, tracker: Tracker, seconds: float = 35.0) -> None:
        self.tracker: Tracker | None = tracker
        self.seconds = seconds  # how long one call may take

    def start(self, folder: Path, name: str, config: dict[str, Any]) -> None:
        self._try("start", lambda t: t.start(folder, name, config))

    def log(self, step: int, values: dict[str, Any]) -> None:
        self._try("log", lambda t: t.log(step, values))

    def image(self, step: int, name: str, path: Path) -> None:
        self._try("image", lambda t: t.image(step, name, path))

    def finish(self) -> None:
        self._try("finish", lambda t: t.finish())

    def _try(self, verb: str, call: Callable[[Tracker], None]) -> None:
        tracker, failure = self.tracker, []
        if tracker is None or isinstance(tracker, none):
            return

        def guarded() -> None:
            try:
                call(tracker)
            except BaseException as e:
                failure.append(f"{type(e).__name__}: {' '.join(str(e).split())}")

        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        thread.join(self.seconds)
        if thread.is_alive():
            failure.append(f"no answer in {self.seconds:g} s")
        if failure:
            name = type(tracker).__name__
            log.warning("tracker %s failed to %s (%s); going on without it", name, verb, failure[0])
            self.tracker = None
