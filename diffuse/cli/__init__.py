"""`diffuse <verb>`: help at once, Hydra for the config, one line for an error, an exit code."""

import contextlib
import importlib
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from diffuse import files, secrets
from diffuse.cli import usage
from diffuse.commands import VERBS
from diffuse.errors import (
    CLOSED_PIPE,
    INTERRUPTED,
    TERMINATED,
    ConfigError,
    DataError,
    DiffuseError,
    NoSpaceError,
    nearest,
    say,
)
from diffuse.interrupts import Interrupts

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from diffuse.cli.arguments import Arguments

SMALLER = {  # key of a command -> what of it may fit into the memory: of several, the first one
    "batch": "a smaller batch=",
    "train": "a smaller network, or fewer images (dataset.subset=),",
    "n": "a smaller n=",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    _open_what_is_closed()
    try:
        code = _dispatch(words)
        sys.stdout.flush()  # a closed pipe shows here rather than at exit
        return code
    except SystemExit as leaving:  # 130 or 143: a command was told to stop
        if leaving.code in (INTERRUPTED, TERMINATED):
            say("stopped")
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException as error:
        return report(error)


def _open_what_is_closed() -> None:
    """Who closes stdout (`>&-`) wants to hear nothing: no file of ours is to take its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (it stays open)


def _dispatch(words: list[str]) -> int:
    verb, rest = (words[0], words[1:]) if words else ("--help", [])
    if verb in ("--help", "-h", "help"):
        if rest and rest[0] != "--help":
            return _dispatch([rest[0], "--help"])
        print(usage.front_page())
    elif verb == "--version":
        from diffuse import __version__

        print(f"diffuse {__version__}")
    elif verb == "completion":
        from diffuse.cli import completion

        return completion.main(rest)
    elif secrets.found(verb):
        raise ConfigError("a secret does not belong on the command line")
    elif verb not in VERBS:
        kind = "flag" if verb.startswith("-") else "command"
        known = [*VERBS, "completion", "--help", "--version"]
        raise ConfigError(f"unknown {kind} {verb!r}; {nearest(verb, known)}")
    elif {"--help", "-h"} & set(rest):
        from diffuse.cli import arguments

        group = arguments.topic(verb, rest)
        if group and secrets.found(group):
            raise ConfigError("--help: that is no group, it holds a secret")
        print(usage.group_page(verb, group) if group else usage.page(verb))
    else:
        with Interrupts(at_once=True):  # from here on: imports and data take a while
            return _hydra_verb(verb, rest)
    return 0


def _refuse_torchrun(verb: str) -> None:
    """Processes that know nothing of each other would each do the whole work."""
    if verb == "train" or "RANK" not in os.environ:
        return
    from diffuse import launching  # torch

    if launching.under_torchrun():
        shares = "devices" in usage.root(verb).keys
        how = "shares its work with devices=N" if shares else "is the work of one process"
        raise ConfigError(f"torchrun starts trainings only; {verb} {how}")


def _hydra_verb(verb: str, rest: list[str]) -> int:
    _refuse_torchrun(verb)
    from diffuse.cli import arguments

    parsed = arguments.parse(verb, rest)
    from diffuse import yamls
    from diffuse.cli import composing, overlays  # Hydra: a tenth of a second

    parsed, choices = overlays.taken_apart(verb, parsed)
    if parsed.flags.get("--cfg") == "job" and "--package" not in parsed.flags:
        cfg = overlays.laid(composing.compose(verb, parsed), choices, parsed.value("what"))
        print(yamls.as_yaml(cfg, resolve="--resolve" in parsed.flags))
        return 0
    log_to_stderr()
    if parsed.multirun:
        from diffuse.cli import sweeping

        return sweeping.sweep(verb, parsed)
    codes: list[int] = []

    def job(cfg: "DictConfig") -> None:
        cfg = overlays.laid(cfg, choices, parsed.value("what"))
        codes.append(run_command(verb, parsed, cfg, parsed.typed))

    composing.run_alone(verb, parsed, job)
    return codes[0] if codes else 0  # none ran: --info or --cfg hydra


def run_command(
    verb: str,
    parsed: "Arguments",
    cfg: "DictConfig",
    overrides: list[str],  # as typed; in a sweep, those of this job
    folder: Path | None = None,  # in a sweep, that of this job
) -> int:
    """Make the config final and hand it to commands/<verb>.py."""
    from omegaconf import OmegaConf

    from diffuse import config, meanings, yamls
    from diffuse.cli import composing, overlays

    cfg = overlays.with_samplers(composing.finished(verb, cfg), parsed)
    if cfg.get("trust") and parsed.value("trust") is None:
        raise ConfigError(f"trust={cfg.trust} counts on the command line only")
    config.trust(cfg.get("trust"))
    chosen = composing.choices()
    if "name" in cfg:
        cfg.name = meanings.run_name(cfg, chosen)
    secrets.refuse(yamls.as_yaml(cfg), OmegaConf.to_container(cfg))
    own = parsed.flags.get("--config-dir")
    job = config.Job(verb, overrides, "--json" in parsed.flags, folder, chosen, own)
    try:
        return importlib.import_module(f"diffuse.commands.{verb}").main(cfg, job) or 0
    except SystemExit as leaving:
        if leaving.code:  # ours after a signal, submitit's of a job that is queued again
            raise
        raise RuntimeError("code that is not ours ended the command: sys.exit()") from leaving
    except (RuntimeError, MemoryError) as error:
        _refuse_out_of_memory(error, cfg)
        raise


def _refuse_out_of_memory(error: Exception, cfg: "DictConfig") -> None:
    """OutOfMemory if this is how it is said, outside of a training step, with what may help."""
    from diffuse import memory  # torch

    if memory.ran_out(error):
        ways = [f"; {way} may fit" for key, way in SMALLER.items() if key in cfg]
        said = f"out of memory{memory.wanted(error)}{''.join(ways[:1])}"
        raise memory.OutOfMemory(said) from error


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


def log_to_stderr(least: str = "info") -> None:
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
