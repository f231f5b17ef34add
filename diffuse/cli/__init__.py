"""`diffuse <verb>`: help at once, Hydra for the config, one line for an error, an exit code."""

import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from diffuse import children, secrets, stderr
from diffuse.cli import usage
from diffuse.commands import VERBS
from diffuse.errors import INTERRUPTED, TERMINATED, ConfigError, nearest
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
            stderr.say("stopped")
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException as error:
        return stderr.report(error)


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
    if verb != "train" and children.under_torchrun():
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
    stderr.log_here(least="error" if children.is_led() else "info")
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
