"""What Hydra and OmegaConf complain about, in one line: where, what was given, what is nearest."""

import os
import re
import shlex
from collections.abc import Iterable

import yaml
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException, ValidationError

from diffuse.cli import usage
from diffuse.errors import closest, first_line, nearest

# what comes with an extra of ours: (group, choice) -> its name
EXTRAS = {
    ("hydra/launcher", "joblib"): "joblib",
    ("hydra/launcher", "submitit_local"): "slurm",
    ("hydra/launcher", "submitit_slurm"): "slurm",
    ("hydra/sweeper", "optuna"): "optuna",
}
KINDS = {"Integer": "an integer", "Float": "a number", "bool": "true or false"}


def complaint(error: BaseException, verb: str) -> str:
    """One line for an exception that came out of composing a config of `verb`."""
    chain = list(_chain(error))
    where = ""
    if inside := re.match(r"In '([^']+)': \w+ raised while composing", str(error)):
        where = f"{inside[1]}: "  # an experiment, say
    for link in chain:
        if isinstance(link, OverrideParseException):
            said = f"cannot read {link.override!r}: {first_line(link.__cause__ or link)}"
            return said + _of_ones_own(*str(link.override).split("=", 1))
        if isinstance(link, MissingConfigException):
            return _unknown_choice(link, verb)
        if isinstance(link, yaml.MarkedYAMLError) and link.problem_mark:
            mark = link.problem_mark
            return f"{mark.name}, line {mark.line + 1}: {link.problem}"
        if isinstance(link, OmegaConfBaseException) and link.full_key:
            return where + _of_a_key(link, verb)
    return _of_a_message(str(error), verb)


def unknown_key(key: str, verb: str, siblings: Iterable[object] = ()) -> str:
    """`siblings` are the keys that stand where this one was looked for, inside a group."""
    group, _, name = key.partition(".")
    if group in usage.root(verb).groups and name:
        own = [f"{group}.{sibling}" for sibling in siblings if sibling not in ("name", "meta")]
        others = [choice for choice in usage.choices(group) if usage.has_key(group, choice, name)]
        if others:
            return f"unknown key {key!r}; this {group} has none, {' and '.join(others)} would"
        return f"unknown key {key!r}; {nearest(key, own)}"
    return f"unknown key {key!r}; {usage.nearest_key(key, verb)}"


def _chain(error: BaseException | None) -> Iterable[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unknown_choice(error: MissingConfigException, verb: str) -> str:
    group, _, choice = (error.missing_cfg_file or "").partition("/")
    if group not in usage.root(verb).groups:  # hydra/launcher
        group, _, choice = (error.missing_cfg_file or "").rpartition("/")
    if extra := EXTRAS.get((group, choice)):
        return f"{group}: {choice} is not installed; pip install 'diffuse-lab[{extra}]'"
    options = error.options or usage.choices(group)
    options = {*options, *(name for where, name in EXTRAS if where == group)}
    said = f"{group}: unknown choice {choice!r}; {nearest(choice, options)}"
    return said + _of_ones_own(group, choice)


def _of_ones_own(group: str, choice: str = "") -> str:
    """What to add where a path stands in place of a data set."""
    if group != "dataset" or not os.path.exists(choice):
        return ""
    own = f"dataset={'folder' if os.path.isdir(choice) else 'parquet'}"
    return f"; of images of your own: {own} {shlex.quote(f'dataset.root={choice}')}"


def _of_a_key(error: OmegaConfBaseException, verb: str) -> str:
    key, message = str(error.full_key), first_line(error)
    if isinstance(error, InterpolationResolutionError):
        return f"{key}: {message}"
    if isinstance(error, ValidationError):
        if "is not Optional" in message:
            return f"{key} cannot be null"
        if "not a ListConfig" in message:
            return f"{key} cannot be {error.value!r}, it is a list: write {key}=[{error.value}]"
        if "Invalid " in message:  # a mapping was expected
            return f"{key} cannot be {error.value!r}; `diffuse {verb} --help` shows its default"
        kind = re.search(r"converted to (\w+)|a valid (bool)", message)
        if kind and (expected := KINDS.get(kind[1] or kind[2])):
            return f"{key} must be {expected}, got {error.value!r}"
        return f"{key}: {message}"
    parent = error.parent_node
    return unknown_key(key, verb, parent.keys() if isinstance(parent, DictConfig) else ())


def _of_a_message(message: str, verb: str) -> str:
    """Hydra's own complaints, which carry no data but their text."""
    if group := re.search(
        r"(?:In '([^']+)': )?Could not override '([^']+)'\. No match in the defaults list", message
    ):
        where = f"{group[1]}: " if group[1] else ""
        return where + _unknown_group(group[2], verb)
    if group := re.search(r"config group '([^']+)' does not exist", message):
        return _unknown_group(group[1], verb)
    if gone := re.search(r"Could not delete from config\. '([^']+)' does not exist", message):
        return f"~{gone[1]}: there is no value to delete"
    if several := re.search(r"Ambiguous value for argument '(.+?)'\n", message):
        key, _, value = several[1].partition("=")
        return f"{several[1]}: add --multirun to run each, or write a list: {key}=[{value}]"
    return first_line(message)


def _unknown_group(word: str, verb: str) -> str:
    known = usage.root(verb)
    if key := closest(word, known.keys, 0.85):  # sampler -> samplers
        return f"unknown group {word!r}; did you mean the key {key!r}?"
    return f"unknown group {word!r}; {nearest(word, known.groups)}"
