"""Files that are replaced in one go, and a full disk called by its name."""

import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import itertools
import json
import logging
import math
import os
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from diffuse import owners
from diffuse.errors import DataError, NoSpaceError

log = logging.getLogger(__name__)

SEAL = b"# sha256"  # begins a text that nobody is to change
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, one's share of it, the largest file


@contextlib.contextmanager
def room_for(path: Path, size: int) -> Iterator[None]:
    """While `size` bytes are written to `path`: a full disk is a NoSpaceError that names both."""
    try:
        yield
    except OSError as e:
        if e.errno in FULL:
            raise NoSpaceError(f"no space for {path} ({size:,} bytes): {e.strerror}") from e
        raise


def sha256(path: Path) -> str:
    """Of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace(path: Path, content: str | bytes, synced: bool = False) -> Path:
    """Write a file so that a reader, and a kill at any point, finds the old one or the new one.

    Whole files are made in memory first: what libraries write to a full disk themselves fails in
    words of their own ("encoder error -2", "16384 requested and 8176 written"). `synced` outlasts a
    power cut, too.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = _beside(path)
    try:
        with room_for(path, len(data)):
            with open(temporary, "wb") as file:
                file.write(data)
                if synced:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:  # a signal that stops the command, too
        temporary.unlink(missing_ok=True)
        raise
    return path


def write_sealed(path: Path, text: str) -> Path:
    """Replace a text whose first line, a comment in yaml, is the sha256 of the rest."""
    data = text.encode()
    return replace(path, _seal(data) + b"\n" + data, synced=True)


def _seal(data: bytes) -> bytes:
    """The line for a text; an editor may leave an empty line at its end."""
    return SEAL + f" of what follows: {hashlib.sha256(data.rstrip()).hexdigest()}".encode()


def read_sealed(path: Path) -> str:
    """A text that may be sealed, earlier ones are not; DataError if it is no longer what it was."""
    data = path.read_bytes()
    first, _, rest = data.partition(b"\n")
    if first.startswith(SEAL) and first != _seal(rest):
        raise DataError(
            f"{path} is damaged, or was edited: its first line says another sha256; "
            "a setting is changed by typing it"
        )
    return data.decode()


def write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> Path:
    """Rows as CSV; the first one names the columns."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return replace(path, text.getvalue())


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON has no word for infinity and NaN: they become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def append(path: Path, line: str) -> None:
    """One more line at the end of a text file."""
    data = f"{line}\n".encode()
    with room_for(path, len(data)), open(path, "ab") as file:
        file.write(data)


def point(link: Path, target: str) -> None:
    """Make `link` point to `target`, valid at every instant.

    A copy that has followed links (`cp -rL`, `shutil.copytree`) has a folder there: it is renamed.
    """
    temporary = _beside(link)
    temporary.unlink(missing_ok=True)  # of a killed process with our number
    temporary.symlink_to(target)
    try:
        os.replace(temporary, link)
    except IsADirectoryError:
        _put_aside(link)
        os.replace(temporary, link)


def _put_aside(link: Path) -> None:
    """Rename a folder that stands where a link belongs, once: others may have come here, too."""
    parent = os.open(link.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(parent, fcntl.LOCK_EX)
        if link.is_symlink() or not link.is_dir():
            return
        names = (f"{link.name}-copied-{k}" for k in itertools.count(1))
        aside = next(path for path in map(link.with_name, names) if not path.exists())
        os.rename(link, aside)
        log.warning("%s was a copied folder, not a link: it is called %s now", link, aside.name)
    finally:
        os.close(parent)


def tidy(folder: Path) -> None:
    """Delete what `replace` and `point` of dead processes of this machine have left in a folder."""
    for left in folder.glob(f".*-{platform.node()}-*"):
        pid = left.name.rpartition("-")[2]
        if pid.isdigit() and not owners.alive(int(pid)):
            left.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    """A name next to `path` that no other living process uses, on whatever machine."""
    return path.with_name(f".{path.name}-{platform.node()}-{os.getpid()}")
