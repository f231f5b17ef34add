"""One job of a sweep, as a launcher calls it: in this process, in another, on another machine."""

import contextlib
import io
import json
import logging
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, flag_override

from diffuse import checkpoints, cli, files, hardware, runs, secrets, stderr
from diffuse.cli import composing, sweep_records, sweep_signals
from diffuse.cli.arguments import Arguments
from diffuse.errors import CLOSED_PIPE, INTERRUPTED, TERMINATED, DataError
from diffuse.interrupts import Interrupts, exit_code

log = logging.getLogger("diffuse")
PRINTED = "printed.json"  # beside job.json
RECORDS = ("record.json", "run.json")  # what a job has come to: of an evaluation, of others
STOPPED = (INTERRUPTED, CLOSED_PIPE, TERMINATED)  # by a signal: the jobs after it do not run either
# what a sweeper that searches makes smaller: the first of these that a job has
SCORES = (
    ("record.json", ("fid", "value")),
    ("run.json", ("best", "fid")),
    ("run.json", ("test_loss",)),
    ("run.json", ("loss",)),
)


@dataclass(frozen=True)
class SweepJob:
    """All that a job has to know; Hydra tells it its number. Launchers pickle it."""

    verb: str
    parsed: Arguments
    folder: Path | None  # of the sweep; None if a dry run has none to continue
    told: Path  # where the job leaves job.json: how it ended
    labels: list[str]  # of each job; none if the sweeper decides as it goes
    longer: bool  # another length than before: done jobs may have to go on
    own_resume: bool  # the sweep is over runs to resume
    beside: str  # the launcher, if its processes are of this machine: they hear of a signal to it
    pid: int  # of the command

    def __call__(self, cfg: DictConfig) -> float | None:
        number, words = composing.job_number(), composing.job_words()
        label = self.labels[number] if self.labels else self._found(words)
        own = self.folder / str(number) if self.folder else None
        away = os.getpid() != self.pid
        if away:
            os.environ["TERM"] = "dumb"  # bars of several processes would overwrite each other
            stderr.log_here()
        if away and self.beside and self.folder:
            sweep_signals.prepare_process(self.folder, self.pid)
        if own and runs.is_done(own) and not self.longer:
            code, what = 0, ""
        elif self.beside and self.folder and sweep_signals.is_over(self.folder, self.pid):
            return None  # it never began, so it does not say how it ended
        else:
            log.info("job %d: %s", number, label)
            run = self._run_listening if self.beside else self._run
            code, what = run(cfg, words, number, own)
        told = self.told / str(number)
        told.mkdir(parents=True, exist_ok=True)
        runs.write_json(
            told / "job.json", {"job": label, "code": code, "error": secrets.redacted(what)}
        )
        if code in STOPPED and not away:
            raise SystemExit(code)
        if Interrupts.asked.is_set() and not away:  # when the job had nothing more to stop
            raise SystemExit(exit_code(Interrupts.last))
        return score(own) if own and not code else None

    def _found(self, words: list[str]) -> str:
        """What sets a job apart whose words a sweeper has chosen."""
        return " ".join(word for word in words if word not in self.parsed.overrides)

    def _run_listening(self, *what: Any) -> tuple[int, str]:
        """A signal is for the job, from its first moment."""
        try:
            with sweep_signals.listening() as told:
                end = self._run(*what)
                told.at_once = False
                return end
        except SystemExit as leaving:  # between the last two lines
            if leaving.code not in STOPPED:
                raise
            return int(leaving.code), "stopped"

    def _run(
        self, cfg: DictConfig, words: list[str], number: int, own: Path | None
    ) -> tuple[int, str]:
        """The exit code, and what went wrong."""
        try:
            with ExitStack() as stack:
                if own is not None and not cfg.dry_run:
                    own.mkdir(parents=True, exist_ok=True)
                    lock = sweep_records.lock_of(own.parent, number)
                    stack.enter_context(sweep_records.locked(lock, own))
                    if not _whole(own):
                        _set_aside(own)
                    stack.enter_context(_traceback_in(own / "log.txt"))
                return self._command(cfg, words, own)
        except (KeyboardInterrupt, SystemExit) as leaving:
            code = leaving.code if isinstance(leaving, SystemExit) else INTERRUPTED
            if code not in STOPPED:
                raise  # not ours: submitit leaves a job like this that it has queued again
            return int(code), "stopped"
        except Exception as error:
            return stderr.report(error), stderr.one_line(error)

    def _command(self, cfg: DictConfig, words: list[str], own: Path | None) -> tuple[int, str]:
        """Its checkpoint goes on wherever it has one: only this job can have written it."""
        number = composing.job_number()
        with flag_override(cfg, ["struct", "readonly"], [False, False]):
            if "resume" in cfg and not self.own_resume:
                found = str(own) if cfg.dry_run else "auto"  # in its own folder
                cfg.resume = found if own and _whole(own) else "none"
            if os.getpid() != self.pid and "device" in cfg and cfg.get("devices", 1) == 1:
                cfg.device = hardware.turn(cfg.device, number)
        with ExitStack() as stack:
            if "--json" in self.parsed.flags:
                stack.enter_context(_printed_to(self.told / str(number) / PRINTED))
            typed = [word for word in words if word not in self.parsed.implied]
            code = cli.run_command(self.verb, self.parsed, cfg, typed, None if cfg.dry_run else own)
        return code, f"exit code {code}" if code else ""


def _whole(own: Path) -> bool:
    return checkpoints.newest(own / "checkpoints") is not None


def _set_aside(own: Path) -> None:
    """What an attempt left that cannot be continued: kept, but out of the way of the next one."""
    left = [path for path in own.iterdir() if not path.name.startswith("attempt-")]
    if not left:
        return
    there = [path.name.removeprefix("attempt-") for path in own.glob("attempt-*")]
    number = 1 + max((int(word) for word in there if word.isdigit()), default=0)
    (own / f"attempt-{number}").mkdir()
    for path in left:
        path.rename(own / f"attempt-{number}" / path.name)


@contextmanager
def _traceback_in(path: Path) -> Iterator[None]:
    """Of a failure, unless the run has written it there itself: many fail before they are one."""
    since = path.stat().st_size if path.exists() else 0
    try:
        yield
    except Exception as error:
        said = path.read_bytes()[since:].decode(errors="replace") if path.exists() else ""
        if "".join(traceback.format_exception_only(error)).strip() not in said:
            with open(path, "a") as file:
                file.write(secrets.redacted("".join(traceback.format_exception(error))))
        raise


@contextmanager
def _printed_to(path: Path) -> Iterator[None]:
    """With --json the sweep prints one list: until then what a job prints is kept in a file."""
    path.unlink(missing_ok=True)  # of an earlier attempt
    with contextlib.redirect_stdout(io.StringIO()) as said:
        yield
    path.parent.mkdir(parents=True, exist_ok=True)
    files.replace(path, said.getvalue())


def printed(told: Path) -> Any:
    """What a job printed with --json; None if it failed, or was done before without."""
    try:
        return json.loads((told / PRINTED).read_text())
    except (FileNotFoundError, ValueError):
        return None


def outcome(told: Path) -> dict[str, Any] | None:
    """How a job ended; None if it never said, or so that it cannot be read."""
    try:
        end = json.loads((told / "job.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    whole = isinstance(end, dict) and {"job", "code", "error"} <= end.keys()
    return end if whole else None


def row_of(told: Path, summary: Callable[[Path], dict[str, str]]) -> dict[str, str]:
    """What its command says of a job that is done, for a table; nothing if it cannot be read."""
    try:
        return summary(told)
    except Exception as error:  # whatever a damaged number or name leads to
        file = next((path for name in RECORDS if (path := told / name).exists()), told)
        why = error if isinstance(error, DataError) else f"{file} is damaged: {error!r}"
        log.warning("%s; its row is empty", why)
        return {}


def score(own: Path) -> float | None:
    """How good a finished job is, for a sweeper that searches."""
    for name, keys in SCORES:
        value = json.loads((own / name).read_text()) if (own / name).exists() else None
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, int | float):
            return float(value)
    return None
