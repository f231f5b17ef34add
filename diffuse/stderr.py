"""What is said on stderr: an error in one line, and what the `diffuse` logger has to say."""

import contextlib
import logging
import os
import sys
import traceback

from diffuse import files, secrets
from diffuse.errors import CLOSED_PIPE, INTERRUPTED, DataError, DiffuseError, NoSpaceError


def say(line: str) -> None:
    """A closed pipe or terminal, or a full disk behind it, is no reason to fail."""
    with contextlib.suppress(OSError):
        if sys.stderr is not None:  # else print takes stdout
            print(line, file=sys.stderr, flush=True)


def report(error: BaseException) -> int:
    """Say what went wrong on stderr, in one line; the exit code for it."""
    if isinstance(error, BrokenPipeError):
        # whoever read our output has left; without this Python would complain about it at exit
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    if isinstance(error, KeyboardInterrupt):
        say("interrupted")
        return INTERRUPTED
    if isinstance(error, OSError) and error.errno in files.FULL:
        error = NoSpaceError(f"no space left on the disk: {error.filename or error.strerror}")
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    if full:
        say(secrets.redacted("".join(traceback.format_exception(error))))
    # a line for each source of data that was tried; all else is one line
    message = str(error) if isinstance(error, DataError) else one_line(error)
    say(f"error: {secrets.redacted(message)}")
    if isinstance(error, DiffuseError):
        return error.exit_code
    if not full:
        say("set HYDRA_FULL_ERROR=1 for the traceback")
    return 1


def one_line(error: BaseException) -> str:
    """An error for a person: its text, and its type only if nobody foresaw it."""
    text = secrets.redacted(" ".join(str(error).split()))
    return text if isinstance(error, DiffuseError) else f"unexpected {type(error).__name__}: {text}"


class _Stderr:
    """Whatever sys.stderr is at the moment: a progress bar replaces it while it is up."""

    def write(self, text: str) -> None:
        sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _with_prefix(record: logging.LogRecord) -> bool:
    record.prefix = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
    return True


def log_here(least: str = "info") -> None:
    """The `diffuse` logger as plain lines; called again, it changes nothing."""
    logging.raiseExceptions = False  # a closed pipe is not worth a traceback
    logger = logging.getLogger("diffuse")
    logger.setLevel(logging.DEBUG)  # log.txt has it all
    if any(handler.name == "stderr" for handler in logger.handlers):
        return
    handler = logging.StreamHandler(_Stderr())
    handler.set_name("stderr")
    handler.setLevel(least.upper())
    handler.addFilter(_with_prefix)
    handler.setFormatter(secrets.Formatter("%(prefix)s%(message)s"))  # Slurm keeps stderr in a file
    logger.addHandler(handler)
