"""Hydra behind one door: compose a command's config, or run a function as a Hydra application."""

import copy
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import hydra
import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from diffuse import schemas, values
from diffuse.cli.arguments import Arguments, quote
from diffuse.cli.complaints import complaint
from diffuse.cli.usage import conf_folder
from diffuse.errors import ConfigError

# In a single run Hydra makes no file and no folder and leaves logging alone.
QUIET = (
    "hydra.run.dir=.",
    "hydra.output_subdir=null",
    "hydra.job.chdir=false",
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
)


HYDRA_FLAGS = (  # the flags that are for Hydra to act on
    *("--multirun", "--run", "--cfg", "--package", "--resolve", "--info", "--hydra-help"),
    "--shell-completion",
)


def compose(verb: str, parsed: Arguments, overrides: Sequence[str] | None = None) -> DictConfig:
    """The config of one job, with Hydra's own under `hydra`; nothing is run or written."""
    schemas.register()
    words = [*_searchpath(parsed), *(parsed.overrides if overrides is None else overrides)]
    with (
        explained(verb),
        _beside_a_running_one(),
        hydra.initialize_config_dir(str(conf_folder()), job_name=verb, version_base="1.3"),
    ):
        return hydra.compose(verb, words, return_hydra_config=True)


@contextmanager
def _beside_a_running_one() -> Iterator[None]:
    """A command may compose another one's config: Hydra itself allows one at a time."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = running


def run_alone(verb: str, parsed: Arguments, task: Callable[[DictConfig], Any]) -> None:
    """Call `task(cfg)` for one job, composed once: `hydra.main` composes twice, the mode first."""
    asked = parsed.flags.keys() & set(HYDRA_FLAGS)
    cfg = None if asked else compose(verb, parsed)
    if cfg is None or cfg.hydra.mode is not None:  # all else is Hydra's own to do
        run(verb, parsed, task)
        return
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(cfg)
    try:
        task(cfg)
    finally:
        HydraConfig.instance().cfg = before


def run(
    verb: str, parsed: Arguments, task: Callable[[DictConfig], Any], extra: Sequence[str] = ()
) -> None:
    """Call `task(cfg)` as `@hydra.main` does; what it raises is raised here, as it is."""
    schemas.register()
    flags = [
        word for flag in parsed.flags.items() if flag[0] in HYDRA_FLAGS for word in flag if word
    ]
    quiet = [*QUIET, f"hydra.job.name={verb}", *_searchpath(parsed)]
    argv = [sys.argv[0], *flags, *quiet, *parsed.overrides, *extra]
    guarded = _Guarded(task, sys.argv, os.environ.get("HYDRA_FULL_ERROR"))
    application = hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=verb)
    with explained(verb), _as_process(argv, "1"):  # "1": exceptions reach us
        application(guarded)()
    if guarded.failures:
        raise guarded.failures[0]


@dataclass
class _Guarded:
    """A task as Hydra calls it, in this process or, pickled by a launcher, in another one."""

    task: Callable[[DictConfig], Any]
    argv: list[str]
    full_error: str | None
    failures: list[Exception] = field(default_factory=list)  # of this process

    def __call__(self, cfg: DictConfig) -> Any:
        with _as_process(self.argv, self.full_error):
            try:
                return self.task(cfg)
            except Exception as error:
                self.failures.append(error)


def finished(verb: str, cfg: DictConfig) -> DictConfig:
    """A copy without Hydra's own part, interpolations filled in, and checked."""
    cfg = copy.deepcopy(cfg)
    with flag_override(cfg, ["struct", "readonly"], [False, False]):
        cfg.pop("hydra", None)
    with explained(verb):
        OmegaConf.to_container(cfg, resolve=True)  # the same, but its errors name the key
        OmegaConf.resolve(cfg)
        OmegaConf.to_container(cfg, resolve=True)  # an escaped \${ that has become a reference
    values.check(cfg)
    return cfg


def choices() -> dict[str, str]:
    """Group -> yaml of the job that is running, without the groups that nobody types."""
    chosen = HydraConfig.get().runtime.choices
    return {
        str(group): str(choice)
        for group, choice in chosen.items()
        if choice is not None and "/" not in str(group)
    }


def combinations(parsed: Arguments) -> list[list[str]]:
    """The overrides of each job of a sweep, in the order in which Hydra runs them."""
    overrides = OverridesParser.create().parse_overrides(parsed.overrides)
    return BasicSweeper.split_arguments(overrides, max_batch_size=None)[0]


def fixed(parsed: Arguments) -> list[str]:
    """The overrides that all jobs of a sweep share."""
    overrides = OverridesParser.create().parse_overrides(parsed.overrides)
    return [str(o.input_line) for o in overrides if not o.is_sweep_override()]


def job_words() -> list[str]:
    """The overrides of the job of a sweep that is running, without Hydra's own."""
    return [str(word) for word in HydraConfig.get().overrides.task]


def job_number() -> int:
    """Of the job of a sweep that is running: Hydra's, so any launcher's."""
    return int(HydraConfig.get().job.num)


def _searchpath(parsed: Arguments) -> list[str]:
    """`--config-dir` as an override, so that composing and running see the same."""
    folder = parsed.flags.get("--config-dir")
    if folder is None:
        return []
    if not os.path.isdir(folder):
        raise ConfigError(f"--config-dir: there is no folder {folder!r}")
    return [f"hydra.searchpath=[{quote('file://' + os.path.abspath(folder))}]"]


@contextmanager
def explained(verb: str) -> Iterator[None]:
    """Turn what Hydra and OmegaConf complain about into a ConfigError of one line."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(complaint(error, verb)) from error


@contextmanager
def _as_process(argv: list[str], full_error: str | None) -> Iterator[None]:
    """Hydra reads sys.argv and an environment variable; put back what was there."""
    before = (sys.argv, os.environ.get("HYDRA_FULL_ERROR"))
    _set_process(argv, full_error)
    try:
        yield
    finally:
        _set_process(*before)


def _set_process(argv: list[str], full_error: str | None) -> None:
    sys.argv = argv
    if full_error is None:
        os.environ.pop("HYDRA_FULL_ERROR", None)
    else:
        os.environ["HYDRA_FULL_ERROR"] = full_error
