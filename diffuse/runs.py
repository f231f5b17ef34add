"""The run folder: outputs/<verb>/<name>/v001, claimed by one process and never used twice."""

import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from diffuse import files, owners, provenance, secrets
from diffuse.errors import ConfigError, DataError, DivergedError, NoSpaceError

log = logging.getLogger(__name__)

SCHEMA = 1


def claim(outputs: Path, verb: str, name: str) -> Path:
    """The next outputs/<verb>/<name>/vNNN. mkdir is exclusive: two starts never share a folder."""
    parent = outputs / verb / name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        newest = max((number(p) for p in parent.glob("v*")), default=0)
        while True:
            newest += 1
            folder = parent / f"v{newest:03d}"
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            _point_to_newest(parent)
            return folder
    except OSError as e:
        kind = NoSpaceError if e.errno in files.FULL else ConfigError
        raise kind(f"outputs: cannot make a run folder in {parent}: {e.strerror}") from e


def _point_to_newest(parent: Path) -> None:
    """Of several that claim at once, whoever points last has seen the newest."""
    target = ""
    while (newest := max(parent.glob("v*"), key=number).name) != target:
        files.point(parent / "latest", newest)
        target = newest


def number(folder: Path) -> int:
    """Of a version folder; 0 of any other."""
    digits = folder.name[1:]
    return int(digits) if digits.isdigit() else 0


def write_json(path: Path, value: Any) -> None:
    """Replace a small file in one go: a reader sees the old one or the new one."""
    files.replace(path, files.as_json(value, indent=2) + "\n", synced=True)


@dataclass
class Run:
    """A run folder being written: run.json, metrics.jsonl, config.yaml, overrides.yaml."""

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    lock: IO[bytes] | None = None

    @classmethod
    def start(
        cls, folder: Path, command: str, config: str, overrides: list[str], **facts: Any
    ) -> "Run":
        """Begin a run in a folder that `claim` made. `config` is the resolved config as yaml."""
        files.write_sealed(folder / "config.yaml", config)
        typed = [f"- {json.dumps(o)}\n" for o in overrides]
        files.replace(folder / "overrides.yaml", "".join(typed))
        run = cls(folder)
        run.update(**_beginning(folder, command, facts))
        return run

    @classmethod
    def reopen(
        cls,
        folder: Path,
        command: str,
        as_it_was: Callable[[], bool] = lambda: True,  # when somebody looked what there is
        **facts: Any,
    ) -> "Run":
        """Continue a run in its own folder, which it holds from now on.

        Without a whole run.json there, `facts` are what it begins anew with.
        """
        run = cls(folder)
        run.hold()
        if not as_it_was():
            run.let_go()
            raise ConfigError(f"resume: another process has trained {folder} meanwhile; try again")
        run.facts = facts_of(folder)
        if not run.facts:
            log.warning("%s is damaged or gone: it begins anew", folder / "run.json")
            run.facts = _beginning(folder, command, facts)
        seconds = run.facts.get("seconds")
        run.started -= seconds if isinstance(seconds, int | float) else 0.0
        run.facts.pop("reason", None)  # of its last end
        run.update(status="running", **owners.facts())
        return run

    def goes_on(self, step: int, device: str, changes: Sequence[str] = ()) -> None:
        """Write down where and how the run goes on, if that is not as it was.

        On another device or torch last bits may differ; `changes` are of its settings.
        """
        here = {"device": device, "versions": provenance.versions()}
        before = (self.facts.get("resumed") or [self.facts])[-1]
        moved = [
            f"{name} {there} there, {now} here"
            for name, there, now in (
                ("device", before.get("device"), device),
                ("torch", before.get("versions", {}).get("torch"), here["versions"]["torch"]),
            )
            if there not in (None, now)
        ]
        if moved:
            log.warning("%s: what is trained now may differ in last bits", "; ".join(moved))
        if moved or changes:
            more = {"changed": [*changes]} if changes else {}
            known, git = self.facts.get("resumed", []), provenance.git_revision()
            self.update(resumed=[*known, {"step": step, **here, "git": git, **more}])

    def hold(self) -> None:
        """Keep all others out: of many that continue a run at once, one does."""
        path = self.folder / "overrides.yaml"  # never replaced
        self.lock = self.lock or lock(path, self.folder)
        if self.lock is None:
            raise ConfigError(f"resume: {self.folder} is being trained by another process")

    def let_go(self) -> None:
        """Somebody else may hold it now."""
        if self.lock:
            self.lock.close()
        self.lock = None

    def update(self, **facts: Any) -> None:
        """Write more facts into run.json."""
        self.facts |= facts
        write_json(self.folder / "run.json", self.facts)

    def log(self, **values: Any) -> None:
        """One line of metrics.jsonl, the record of the run whatever tracker is on."""
        files.append(self.folder / "metrics.jsonl", files.as_json(values))

    def truncate_log(self, step: int) -> None:
        """Forget what was logged after `step`: training goes on from there and logs it again."""
        path = self.folder / "metrics.jsonl"
        if path.exists():
            rows = [line for line in path.read_bytes().splitlines() if _step(line) <= step]
            files.replace(path, b"".join(line + b"\n" for line in rows))

    def logged_at(self, step: int) -> set[str]:
        """The names of the values that were logged of a step."""
        path = self.folder / "metrics.jsonl"
        rows = path.read_bytes().splitlines() if path.exists() else []
        return {name for row in rows if _step(row) == step for name in json.loads(row)}

    def finish(self, status: str, **facts: Any) -> None:
        """status: done, failed, diverged or stopped."""
        seconds = round(time.monotonic() - self.started, 1)
        self.update(status=status, seconds=seconds, **facts)

    @contextlib.contextmanager
    def logged(self) -> Iterator[None]:
        """Everything the program says also goes into log.txt."""
        handler = logging.FileHandler(self.folder / "log.txt")
        handler.setFormatter(secrets.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger = logging.getLogger("diffuse")
        logger.addHandler(handler)
        try:
            yield
        except Exception:
            logger.debug("failed", exc_info=True)
            raise
        finally:
            logger.removeHandler(handler)
            with contextlib.suppress(OSError):  # a full disk: what failed before is told, not this
                handler.close()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Hold the folder; write down how the run ended, whatever happens inside."""
        self.hold()
        try:
            yield
        except BaseException as e:
            stopped = isinstance(e, (KeyboardInterrupt, SystemExit))
            diverged = isinstance(e, DivergedError)
            with contextlib.suppress(OSError, NoSpaceError):  # neither must hide what went wrong
                status = "stopped" if stopped else "diverged" if diverged else "failed"
                self.finish(status, reason=secrets.redacted(f"{type(e).__name__}: {e}"))
            raise
        finally:
            self.let_go()


def lock(path: Path, what: Path) -> IO[bytes] | None:
    """`owners.lock` of a file in a run or sweep that goes on; said if that cannot be written to."""
    try:
        return owners.lock(path)
    except OSError as e:
        why = f"resume: {what} cannot be written to: {e.strerror}"
        raise (NoSpaceError if e.errno in files.FULL else ConfigError)(why) from e


def _beginning(folder: Path, command: str, facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema": SCHEMA, "status": "running", "command": command, "version": folder.name, **facts,
        "git": provenance.git_revision(), "versions": provenance.versions(), **owners.facts(),
        "started": datetime.now(UTC).isoformat(timespec="microseconds"),
    }  # fmt: skip


def _step(line: bytes) -> int:
    """Of a row of metrics.jsonl; one cut short by a kill, or damaged, is of none that was done."""
    try:
        step = json.loads(line).get("step", 0)
    except (ValueError, AttributeError):
        return sys.maxsize
    return step if type(step) is int else sys.maxsize


def read(folder: Path) -> dict[str, Any]:
    """The facts of a run."""
    path = folder / "run.json"
    try:
        facts = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{folder} is not a run folder: it has no run.json") from None
    except ValueError as e:
        raise DataError(f"{path} is damaged: {e}") from None
    if not isinstance(facts, dict):
        raise DataError(f"{path} is damaged: it holds no mapping")
    return facts


def facts_of(folder: Path) -> dict[str, Any]:
    """The facts of a run; none if they are not there or damaged: its checkpoints may be whole."""
    try:
        return read(folder)
    except DataError:
        return {}


def table(facts: Mapping[str, Any], key: str) -> dict[str, Any]:
    """What stands under a key of a run.json, if it is a table: one that is damaged is empty."""
    return found if isinstance(found := facts.get(key), dict) else {}


def is_done(folder: Path) -> bool:
    """Did this run come to its end?"""
    return facts_of(folder).get("status") == "done"


def is_alive(folder: Path) -> bool:
    """Is the process that writes this run still there? Only this machine's can be asked."""
    facts = facts_of(folder)
    return facts.get("status") == "running" and owners.is_there(facts)
