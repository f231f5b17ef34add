"""`diffuse plot schedule schedule=linear,cosine`: the choices of a group, in one picture.

The commas that are a sweep with --multirun are one job here, if they are in the group that the
picture is of. Every choice is composed on its own; a key goes to those that have it.
"""

from dataclasses import replace
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, flag_override

from diffuse.cli import composing
from diffuse.cli.arguments import Arguments, quote
from diffuse.cli.complaints import unknown_key
from diffuse.config import key_of
from diffuse.errors import ConfigError

GROUPS = ("schedule", "noise_law", "grid")  # each has a picture of its name


def taken_apart(verb: str, parsed: Arguments) -> tuple[Arguments, dict[str, DictConfig]]:
    """The arguments of the first choice alone, and what each choice is; none without commas."""
    group = parsed.value("what")
    if verb != "plot" or parsed.multirun or group not in GROUPS:
        return parsed, {}
    own = [word for word in parsed.overrides if key_of(word).partition(".")[0] == group]
    others = [word for word in parsed.overrides if word not in own]
    with composing.explained(verb):
        typed = OverridesParser.create().parse_overrides(own)
        jobs = BasicSweeper.split_arguments(typed, max_batch_size=None)[0]
    if len(jobs) == 1:
        return parsed, {}
    varied = [override.key_or_group for override in typed if override.is_sweep_override()]
    bare = {}  # choice -> its config as it is in conf/
    nodes: dict[str, DictConfig] = {}
    words: dict[str, list[str]] = {}
    for job in jobs:
        choice = tuple(word for word in job if key_of(word) == group)
        if choice not in bare:
            bare[choice] = composing.compose(verb, parsed, [*others, *choice])
        keys = [word for word in job if key_of(word) in _keys(bare[choice], group)]
        own_name = bare[choice].hydra.runtime.choices[group]
        label = " ".join([own_name, *(w.partition(".")[2] for w in keys if key_of(w) in varied)])
        if label not in nodes:
            words[label] = [*others, *choice, *keys]
            cfg = composing.compose(verb, parsed, words[label]) if keys else bare[choice]
            nodes[label] = cfg[group]
    _refuse_unknown(own, set().union(*(_keys(cfg, group) for cfg in bare.values())), group)
    return replace(parsed, overrides=next(iter(words.values()))), nodes


def _keys(cfg: DictConfig, group: str) -> set[str]:
    return {f"{group}.{key}" for key in cfg[group]}


def _refuse_unknown(words: list[str], known: set[str], group: str) -> None:
    """A key that none of the choices has."""
    siblings = [name.partition(".")[2] for name in known]
    for key in map(key_of, words):
        if key != group and key not in known:
            raise ConfigError(unknown_key(key, "plot", siblings))


def laid(cfg: DictConfig, nodes: dict[str, Any], group: str | None) -> DictConfig:
    """The config with all the choices in place of one: label -> node."""
    if nodes and group:
        with flag_override(cfg, ["struct", "readonly"], [False, False]):
            cfg[group] = nodes
    return cfg


def with_samplers(cfg: DictConfig, parsed: Arguments) -> DictConfig:
    """In place of the names in `samplers=` what each of them is, with the grid it was made for.

    `diffuse sample` is what composes them: a choice means the same in both.
    """
    if "samplers" not in cfg or cfg.get("what", "samplers") != "samplers":
        return cfg
    nodes: dict[str, Any] = {}
    for name in [cfg.samplers] if isinstance(cfg.samplers, str) else cfg.samplers:
        words = [f"sampler={quote(str(name))}"]
        try:
            composed = composing.finished("sample", composing.compose("sample", parsed, words))
        except ConfigError as error:
            raise ConfigError(f"samplers: {str(error).removeprefix('sampler: ')}") from error
        nodes[str(name)] = {"sampler": composed.sampler, "grid": composed.grid}
    with flag_override(cfg, ["struct", "readonly"], [False, False]):
        cfg.samplers = nodes
    return cfg
