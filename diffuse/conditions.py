"""What decides the last bits of a number besides what is computed: machine, versions, code."""

import ast
import contextlib
import hashlib
import inspect
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import diffuse
from diffuse import files, hardware

PACKAGE = Path(diffuse.__file__).parent
OURS = ("diffuse", "torch", "builtins")  # they have versions, or are hashed as a whole
INSTALLED = {"site-packages", "dist-packages"}  # folders of packages that are large, and versioned


def key(description: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON; floats are written with all their digits."""
    canonical = json.dumps(description, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def machine(device: torch.device) -> dict[str, Any]:
    """The device, how many threads compute, and torch, oneDNN and NumPy with their switches."""
    return {
        "device": [device.type, hardware.describe(device)],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numpy": np.__version__,  # the weights of some samplers' steps
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
        "matmul": torch.get_float32_matmul_precision(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "onednn": {k: v for k, v in os.environ.items() if k.startswith(("ONEDNN_", "DNNL_"))},
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


@contextlib.contextmanager
def repeatable() -> Iterator[None]:
    """On a GPU, the same bytes in every process, wherever torch has a way to them.

    No choice of a convolution by trial, and no sums in the order in which threads come to an end.
    float32 is float32, too: convolutions in TF32 would differ from a CPU's by about 1e-3.
    """
    cudnn = torch.backends.cudnn
    before, mode = (cudnn.benchmark, cudnn.deterministic), torch.get_deterministic_debug_mode()
    tf32, cudnn.allow_tf32 = cudnn.allow_tf32, False
    cudnn.benchmark, cudnn.deterministic = False, True
    attention = torch.backends.cuda.cudnn_sdp_enabled()  # its way back adds up as it comes
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.backends.cuda.enable_cudnn_sdp(False)
    if torch.cuda.is_available():
        torch.use_deterministic_algorithms(True, warn_only=True)
        memory.fill_uninitialized_memory = False  # else every output is written twice
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before
        cudnn.allow_tf32 = tf32
        torch.backends.cuda.enable_cudnn_sdp(attention)
        memory.fill_uninitialized_memory = filled
        torch.set_deterministic_debug_mode(mode)


@contextlib.contextmanager
def strict(wanted: bool = True) -> Iterator[None]:
    """Where torch has no way to the same bytes it raises, rather than to go on with a warning.

    The way back of attention on a GPU is repeatable in here only.
    """
    mode = torch.get_deterministic_debug_mode()
    if wanted:
        torch.set_deterministic_debug_mode("error")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)


def code(sources: Sequence[str], package: Path = PACKAGE) -> str:
    """sha256 of some files of ours, and of all in some folders, with their names."""
    digest = hashlib.sha256(diffuse.__version__.encode())
    for name in sources:
        path = package / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(package)} {file.stat().st_size}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def source(thing: Any) -> str | None:
    """sha256 of the file that a class or function comes from; None for ours, torch's and builtins.

    Where there is no file it is a repr: of the code of a function, else of the thing itself.
    """
    if _package(thing) in OURS:
        return None
    try:
        return hashlib.sha256(Path(inspect.getfile(thing)).read_bytes()).hexdigest()
    except (OSError, TypeError):  # typed into a session, or compiled
        code = getattr(thing, "__code__", None)
        return repr((code.co_code, code.co_consts, code.co_names)) if code else repr(thing)


def _module(thing: Any) -> str:
    """Where it is written; a wrapper often says that it is what is inside."""
    return getattr(thing, "__globals__", {}).get("__name__") or thing.__module__ or ""


def _package(thing: Any) -> str:
    return _module(thing).partition(".")[0]


def _layers(thing: Any) -> list[Any]:
    """A decorated function, and what is around it: not what torch and Python have for that."""
    found = []
    while (inside := getattr(thing, "__wrapped__", None)) is not None:
        if hasattr(thing, "__globals__") and _package(thing) not in sys.stdlib_module_names:
            found.append(thing)
        thing = inside
    return [*found, thing]


def of_others(*things: Any) -> dict[str, dict[str, str]]:
    """Of classes and functions that are neither ours nor torch's: name -> their `sources`.

    Of a partial it is the function inside, of any other object its class.
    """
    inside = [getattr(thing, "func", thing) for thing in things]
    named = dict.fromkeys(x if hasattr(x, "__qualname__") else type(x) for x in inside)
    found = {f"{x.__module__}.{x.__qualname__}": sources(x) for x in named}
    return {name: each for name, each in found.items() if each}


def sources(thing: Any) -> dict[str, str]:
    """sha256 of the file that a class or function is in, and of those beside it that it imports.

    Of a decorated function, those of its decorators, too. Empty for ours and torch's own. What an
    installed package changes is not seen, nor what code reads. Where there is no file it is what
    `source` says, under an empty name.
    """
    found: dict[str, str] = {}
    for layer in _layers(thing):
        found |= _sources(layer)
    return found


def _sources(thing: Any) -> dict[str, str]:
    if (found_in := source(thing)) is None:
        return {}
    try:
        first = Path(inspect.getfile(thing))
    except (OSError, TypeError):
        return {"": found_in}
    if not first.is_file():  # typed into a session, or made by a decorator
        return {"": found_in}
    levels = _module(thing).count(".") + (first.name == "__init__.py")
    top, found, waiting = first.parents[levels], {}, [first]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path] = files.sha256(path)
            ours = path.suffix == ".py" and not INSTALLED.intersection(path.parts)
            waiting += _imported(path, top) if ours else []
    return {path.relative_to(top).as_posix(): digest for path, digest in found.items()}


def _imported(path: Path, top: Path) -> list[Path]:
    """The files below `top`, where absolute imports begin, that a file imports."""
    wanted: list[Path] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            wanted += [top.joinpath(*alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            home = path.parents[node.level - 1] if node.level else top
            home = home.joinpath(*(node.module or "").split("."))
            wanted += [home, *(home / alias.name for alias in node.names)]
    both = [file for p in wanted for file in (p.with_name(f"{p.name}.py"), p / "__init__.py")]
    return [file for file in both if file.is_file()]
