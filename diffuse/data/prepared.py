"""Decoded images kept in the cache, so that thousands of small files are decoded once."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from diffuse.data.images import sha256_of
from diffuse.data.sources import cache, locked
from diffuse.errors import DiffuseError

log = logging.getLogger("diffuse.data")
RULES = 5  # by which files are decoded or refused; other rules, other copies


class Table(NamedTuple):
    """Images with their labels, as they come out of files."""

    images: Tensor  # uint8 [n c h w]
    labels: Tensor | None  # int64 [n]
    classes: tuple[str, ...]


def prepared(files: Iterable[Path], settings: object, make: Callable[[], Table]) -> Table:
    """What `make` returns, or what it returned when the same files were decoded the same way.

    A file counts as the same while its path, size and times are; the decoded copy carries its own
    checksum, and a damaged one is made anew.
    """
    files = sorted(path.absolute() for path in files)
    what = _digest([*map(str, files), repr(settings)])
    state = _digest([str(RULES), *map(_state, files)])
    path = cache() / "decoded" / f"{what}-{state}.safetensors"
    table = _load(path)
    if table is not None:
        return table
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path.with_name(what)))
        except DiffuseError as error:  # a cache that cannot be written only costs time
            log.warning("%s", error)
            return make()
        table = _load(path)  # another process may have made it while this one waited
        if table is None:
            table = make()
            _save(path, table)
    return table


def _state(path: Path) -> str:
    """What no other content can have: `cp -p`, rsync and tar set the time of modification, but the
    time of the last change is the system's own.
    """
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def _digest(words: Iterable[str]) -> str:
    text = "\n".join(words).encode(errors="surrogateescape")  # the names of files are any bytes
    return hashlib.sha256(text).hexdigest()[:16]


def _load(path: Path) -> Table | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            notes = file.metadata() or {}
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError) as error:
        log.warning("%s is damaged (%s), decoding again", path, error)
        return None
    images, labels, names = tensors.get("images"), tensors.get("labels"), notes.get("classes", "")
    if images is None or _checksum(images, labels, names) != notes.get("sha256"):
        log.warning("%s is damaged (checksum), decoding again", path)
        return None
    return Table(images, labels, tuple(json.loads(names)))


def _save(path: Path, table: Table) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    names = json.dumps(table.classes)
    notes = {"classes": names, "sha256": _checksum(table.images, table.labels, names)}
    tensors = {"images": table.images.contiguous()}
    if table.labels is not None:
        tensors["labels"] = table.labels.contiguous()
    part = path.with_suffix(".part")
    try:
        save_file(tensors, part, notes)
        part.chmod(0o644)  # safetensors lets nobody else read, but a cache may be shared
        part.replace(path)
    except (SafetensorError, OSError) as error:
        part.unlink(missing_ok=True)
        log.warning("%s cannot be written (%s), so it will be decoded again next time", path, error)
        return
    for old in path.parent.glob(f"{path.stem.partition('-')[0]}-*.safetensors"):
        if old != path:  # of files that have changed since
            old.unlink(missing_ok=True)


def _checksum(images: Tensor, labels: Tensor | None, names: str) -> str:
    """Of all that is in a copy: a class under another name would be another set, too."""
    pixels = sha256_of(images, torch.empty(0) if labels is None else labels)
    return hashlib.sha256(f"{pixels} {names}".encode()).hexdigest()
