"""From a yaml node to a call of one of our functions, and the checks that a schema cannot make.

A node of `conf/<group>/` is one function call: `name` is a public function or class defined in the
group's room, `meta` is for the program, everything else is a keyword argument.
"""

import importlib
import inspect
import os
import re
import shlex
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffuse.errors import ConfigError, nearest, reason

ROOMS = {
    "dataset": ("diffuse.data",),
    "model": ("diffuse.models",),
    "objective": ("diffuse.objectives",),
    "weighting": ("diffuse.weightings",),
    "schedule": ("diffuse.schedules",),
    "noise_law": ("diffuse.noise_laws",),
    "grid": ("diffuse.grids",),
    "sampler": ("diffuse.samplers",),
    "reuse": ("diffuse.reuse",),
    "optimizer": ("diffuse.optimizers", "torch.optim"),
    "encoder": ("diffuse.encoders",),
    "tracker": ("diffuse.trackers",),
}

_trusted: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Job:
    """What a command has to know besides its config."""

    command: str  # the verb
    overrides: list[str] = field(default_factory=list)  # as typed
    json: bool = False
    folder: Path | None = None  # set in a sweep only: outputs/<verb>/<name>/vNNN/<k>
    choices: dict[str, str] = field(default_factory=dict)  # group -> the yaml that was chosen
    config_dir: str | None = None  # a folder of yamls, as typed

    @property
    def line(self) -> str:
        """What was typed."""
        given = [word.removeprefix("what=") for word in self.overrides]  # of `diffuse plot`
        flags = ["--config-dir", self.config_dir] if self.config_dir else []
        return shlex.join(["diffuse", self.command, *given, *flags, *(["--json"] * self.json)])

    def typed(self, *keys: str) -> str | None:
        """The first word that was typed for one of these keys, or for one inside of it."""
        for word in self.overrides:
            key = key_of(word)
            if any(key == one or key.startswith(f"{one}.") for one in keys):
                return word
        return None

    def refuse(self, keys: Iterable[str], why: str) -> None:
        """ConfigError if one was typed: a key that changes nothing is not to look as if it did."""
        if word := self.typed(*keys):
            raise ConfigError(f"{word}: {why}")


def key_of(word: str) -> str:
    """What an override is about: the key of `+key=value`, `key@package=value` or `~key`."""
    return re.split(r"[=@]", word.lstrip("+~"), maxsplit=1)[0]


def trust(packages: str | Iterable[str] | None) -> None:
    """From now on, `name: package.module:thing` may import these packages, and no others."""
    global _trusted
    words = packages.split(",") if isinstance(packages, str) else packages or ()
    _trusted = frozenset(str(word).strip() for word in words)


def build(group: str, node: Mapping[str, Any], *args: Any, **extra: Any) -> Any:
    """Call the function that `node` names; a key or value it refuses is a ConfigError."""
    function, written = _resolve(group, node)
    for key in sorted(written.keys() & extra.keys()):
        raise ConfigError(f"{group}: {key} is set by the program, it cannot be set in the config")
    _check_arguments(group, function, written, args, extra)
    try:
        return function(*args, **written, **extra)
    except ValueError as error:
        raise ConfigError(f"{group}: {reason(error, None)}") from error
    except OverflowError as error:
        said = ", ".join(f"{key}={value}" for key, value in written.items())
        what = f"{node['name']}({said})"
        raise ConfigError(f"{group}: {what} leads to numbers that are too large") from error
    except TypeError as error:
        if ":" not in str(node["name"]):
            raise
        # a module without an __init__ of its own takes any keyword until it is called
        raise ConfigError(f"{group}: {node['name']}: {reason(error, None)}") from error


def bind(group: str, node: Mapping[str, Any], *later: str) -> partial[Any]:
    """The function that `node` names with its keywords filled in, not called yet.

    `later` names the arguments that the program passes when it calls; given them, a missing key is
    found now.
    """
    function, written = _resolve(group, node)
    if later:
        for key in sorted(written.keys() & set(later)):
            raise ConfigError(f"{group}: {key} is set by the program, it cannot be set here")
        _check_arguments(group, function, written, (), dict.fromkeys(later))
    else:
        _check_arguments(group, function, written, None, {})
    return partial(function, **written)


def _resolve(group: str, node: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function and the keyword arguments that a node writes down."""
    if not isinstance(node, Mapping | DictConfig):
        raise ConfigError(f"{group}: must be a mapping with a name, got {node!r}")
    try:
        plain = OmegaConf.to_container(node, resolve=True) if _is_omega(node) else dict(node)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{group}: {reason(error, None)}") from error
    assert isinstance(plain, dict)
    written = {str(key): value for key, value in plain.items() if key not in ("name", "meta")}
    if "_target_" in written:
        raise ConfigError(f"{group}: '_target_' is refused, write `name:` (and `trust=` if needed)")
    name = plain.get("name")
    if not isinstance(name, str):
        raise ConfigError(f"{group}: needs a name (a function of {_rooms(group)[0]}), got {name!r}")
    return (_foreign(group, name) if ":" in name else _ours(group, name)), written


def _is_omega(node: object) -> bool:
    return isinstance(node, DictConfig | ListConfig)


def _rooms(group: str) -> tuple[str, ...]:
    if group not in ROOMS:
        raise ConfigError(f"unknown group {group!r}; {nearest(group, ROOMS)}")
    return ROOMS[group]


def _ours(group: str, name: str) -> Callable[..., Any]:
    """A public function or class *defined* in the group's room, so never `torch` or `os`."""
    known: set[str] = set()
    for room in _rooms(group):
        try:
            module = importlib.import_module(room)
        except ModuleNotFoundError as error:
            if error.name != room:
                raise
            continue
        things = {
            key: thing for key, thing in vars(module).items() if _defined_in(room, key, thing)
        }
        if name in things:
            return things[name]
        known |= things.keys()
    raise ConfigError(f"{group}: unknown name {name!r}; {nearest(name, known)}")


def _defined_in(room: str, key: str, thing: object) -> bool:
    if key.startswith("_") or not (inspect.isfunction(thing) or inspect.isclass(thing)):
        return False
    home = thing.__module__
    return home == room or home.startswith(room + ".")


def _foreign(group: str, name: str) -> Callable[..., Any]:
    """`my_package.module:thing`, only if the command line trusts the package."""
    path, _, attribute = name.partition(":")
    package = path.partition(".")[0]
    if not all(part.isidentifier() for part in (*path.split("."), attribute)):
        raise ConfigError(f"{group}: {name!r} is not of the form package.module:thing")
    if package not in _trusted and path not in _trusted:
        raise ConfigError(
            f"{group}: {name!r} is code from outside; add trust={package} to the command line "
            "if you trust it"
        )
    added = os.getcwd() not in sys.path  # an installed script does not see the caller's folder
    if added:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(path)
    except Exception as error:
        raise ConfigError(f"{group}: importing {path!r} failed: {reason(error, None)}") from error
    finally:
        if added:
            sys.path.remove(os.getcwd())
    things = {key: thing for key, thing in vars(module).items() if _defined_in(package, key, thing)}
    if attribute not in things:
        raise ConfigError(f"{group}: {path} has no {attribute!r}; {nearest(attribute, things)}")
    return things[attribute]


def _check_arguments(
    group: str,
    function: Callable[..., Any],
    written: dict[str, Any],
    args: tuple[Any, ...] | None,  # None: some arguments come later, only check what is written
    extra: dict[str, Any],
) -> None:
    """Bind to the signature before any work starts, and compare plain values with annotations."""
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError:  # an annotation that exists for the type checker only
        signature = inspect.signature(function)
    name = getattr(function, "__name__", str(function))
    parameters = signature.parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        keys = [key for key, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL,)]
        own = [key for key in keys[len(args or ()) :] if key not in extra]
        for key in [key for key in (*written, *extra) if key not in keys]:
            hint = nearest(key, own).replace("choices:", "it takes")
            raise ConfigError(f"{group}: {name} got an unexpected argument {key!r}; {hint}")
    try:
        if args is None:
            signature.bind_partial(**written)
        else:
            signature.bind(*args, **written, **extra)
    except TypeError as error:
        raise ConfigError(f"{group}: {name}: {error}") from error
    for key, value in written.items():
        if key in parameters:
            _check_value(f"{group}: {key}", value, parameters[key].annotation)


PLAIN = {int: "an integer", float: "a number", bool: "true or false", str: "text"}


def _check_value(where: str, value: Any, annotation: Any) -> None:
    """Compare with an annotation of plain types, Literal, lists and unions; others are not ours."""
    union = get_origin(annotation) in (Union, types.UnionType)
    allowed: list[str] = []
    for option in get_args(annotation) if union else (annotation,):
        origin = get_origin(option) or option
        if origin is Literal:
            if value in get_args(option):
                return
            if not union:
                hint = nearest(value, get_args(option))
                raise ConfigError(f"{where}: unknown choice {value!r}; {hint}")
            allowed += map(str, get_args(option))
        elif origin in (type(None), None):
            if value is None:
                return
            allowed.append("null")
        elif origin in PLAIN:
            if type(value) is origin or (origin is float and type(value) is int):
                return
            allowed.append(PLAIN[origin])
        elif origin in (tuple, list, Sequence):
            if isinstance(value, list | tuple):
                return _check_items(where, value, get_args(option))
            allowed.append("a list")
        elif union and getattr(option, "__name__", "") == "Tensor":
            continue  # torch.optim's `lr: float | Tensor`: no yaml holds one
        else:
            return  # for the function to check
    raise ConfigError(f"{where} must be {' or '.join(allowed)}, got {value!r}")


def _check_items(where: str, values: Sequence[Any], kinds: tuple[Any, ...]) -> None:
    if len(kinds) == 1 or kinds[1:] == (...,):
        kinds = kinds[:1] * len(values)
    elif kinds and len(kinds) != len(values):
        raise ConfigError(f"{where} must be a list of {len(kinds)}, got {list(values)!r}")
    for i, (value, kind) in enumerate(zip(values, kinds, strict=False)):
        _check_value(f"{where}[{i}]", value, kind)
