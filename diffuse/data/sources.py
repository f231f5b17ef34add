"""Where published data comes from: the cache, or the first source that answers and is genuine."""

import errno
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from diffuse import files
from diffuse.errors import DataError, NoSpaceError

log = logging.getLogger("diffuse.data")
PATIENCE = 10.0  # seconds without a sign of life after which a source is left
ORIGIN = "SOURCE.txt"  # lies beside fetched files and says where they came from


class NoAnswerError(Exception):
    """A source did not deliver; the text is the reason."""


class SilentError(NoAnswerError):
    """A source that gave no sign of life for too long: asking it again would cost as much."""


@dataclass(frozen=True)
class Source:
    """One place to fetch from."""

    name: str
    fill: Callable[[Path, Path], None]  # (target, scratch): puts the files into target


def cache() -> Path:
    """The folder where fetched and decoded data is kept: $DIFFUSE_CACHE or the platform's own."""
    chosen = os.environ.get("DIFFUSE_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("diffuse")


def fetch(
    name: str, sources: Sequence[Source], check: Callable[[Path], None], advice: str
) -> tuple[Path, str]:
    """The cache's folder for `name`, filled by the first source that delivers, and its origin.

    Fetching happens in a folder beside it, is checked there, and is moved into place by one rename
    under a lock: whoever sees the folder sees all of it, and two processes fetch once.
    """
    home = cache() / name
    if not home.exists():
        with locked(home):
            if not home.exists():
                _fill(home, sources, check, advice)
    try:
        origin = (home / ORIGIN).read_text().strip()
    except OSError:
        origin = "put there by hand"
    log.debug("%s: in the cache %s (%s)", name, home, origin)
    return home, f"cache ({origin})"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that belongs to one path of the cache; it opens when its holder dies."""
    lock = FileLock(path.with_name(path.name + ".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1)
        except Timeout:
            log.info("%s: another process is at work on it, waiting", path.name)
            lock.acquire()
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield
    finally:
        lock.release()


def unwritable(path: Path, error: OSError) -> Exception:
    """What to say when the cache cannot be written."""
    if error.errno in files.FULL:
        return NoSpaceError(f"no space left for {path}; DIFFUSE_CACHE=<folder> names another place")
    return DataError(f"cannot write {path}: {error.strerror}; DIFFUSE_CACHE=<folder> names another")


def _fill(
    home: Path, sources: Sequence[Source], check: Callable[[Path], None], advice: str
) -> None:
    for left in home.parent.glob(f".{home.name}-*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    reasons = []
    for source in sources:
        log.info("%s: trying %s", home.name, source.name)
        started = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(
                prefix=f".{home.name}-", dir=home.parent, ignore_cleanup_errors=True
            ) as folder:
                target, scratch = Path(folder, "files"), Path(folder, "scratch")
                target.mkdir()
                scratch.mkdir()
                source.fill(target, scratch)
                check(target)
                (target / ORIGIN).write_text(f"{source.name}, {time.strftime('%Y-%m-%d')}\n")
                target.rename(home)
        except (NoAnswerError, DataError) as error:
            log.warning("%s: %s: %s", home.name, source.name, error)
            reasons.append(f"  {source.name}: {error}")
        except OSError as error:
            raise unwritable(home, error) from error
        else:
            log.info("%s: %s, %.1f s", home.name, source.name, time.monotonic() - started)
            return
    lines = [f"{home.name}: no source answered", f"  the cache: no folder {home}", *reasons]
    raise DataError("\n".join([*lines, f"  what to do: {advice}"]))


def watched(
    command: Sequence[str | Path],
    scratch: Path,
    patience: float | None = None,  # seconds between signs of life, PATIENCE if None
    environment: dict[str, str] | None = None,
) -> None:
    """Run a command in `scratch`, and end it when neither its output nor that folder grows.

    A name server, a connection or a library that hangs cannot be interrupted from inside a
    process; from outside it can, while a large download that makes progress may go on.
    """
    patience = PATIENCE if patience is None else patience
    output = scratch / "output.txt"
    with output.open("ab") as stream:
        try:
            child = subprocess.Popen(
                [str(word) for word in command],
                cwd=scratch,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LC_ALL": "C", **(environment or {})},
            )
        except FileNotFoundError as error:
            raise NoAnswerError(f"{command[0]} is not installed") from error
        except OSError as error:
            raise NoAnswerError(f"{command[0]} cannot be started: {error.strerror}") from error
    try:
        _watch(child, scratch, patience)
    finally:  # also when this process is interrupted
        if child.poll() is None:
            child.kill()
            child.wait()
    if child.returncode:
        said = _last_line(output)
        if child.returncode == errno.ENOSPC or any(os.strerror(e) in said for e in files.FULL):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(scratch))
        raise NoAnswerError(said or f"exit code {child.returncode}")


def download(url: str, path: Path, most: int) -> None:
    """Download a file of at most `most` bytes into a scratch folder."""
    program = Path(__file__).with_name("download.py")
    watched([sys.executable, "-P", program, url, path, str(most)], path.parent)


def _watch(child: subprocess.Popen[bytes], scratch: Path, patience: float) -> None:
    now = time.monotonic()
    size, told, deadline = _size(scratch), now, now + patience
    while child.poll() is None:
        time.sleep(0.05)
        now, grown = time.monotonic(), _size(scratch)
        if grown != size:
            size, deadline = grown, now + patience
        if now > deadline:
            raise SilentError(f"no answer within {patience:g} s")
        if now > told + 10:
            log.info("%.1f MB so far", size / 1e6)
            told = now


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # it may have been renamed meanwhile
            total += path.stat().st_size
    return total


def _last_line(output: Path) -> str:
    lines = output.read_text(errors="replace").split("\n")
    told = [line.strip() for line in lines if line.strip()]
    errors = [line for line in told if line.startswith(("E:", "Error", "error"))]
    return (errors or told or [""])[-1].removeprefix("error: ")[:300]
