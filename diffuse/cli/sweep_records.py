"""sweep.json: which jobs a sweep has, so that the same words again do only what is missing."""

import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffuse import owners, runs
from diffuse.cli.arguments import PLAIN
from diffuse.config import key_of
from diffuse.errors import ConfigError, nearest
from diffuse.meanings import LENGTHS

log = logging.getLogger("diffuse")
SCHEMA = 1
# what these say is not which jobs there are: it may be said otherwise the next time
FREE = ("name", "outputs", "hypothesis", "resume", "resume_allow", "trust", "dry_run")

Jobs = list[list[str]]  # the overrides of each


def write(folder: Path, verb: str, jobs: Jobs, longer: bool) -> None:
    """In one go; a sweeper that chooses its jobs as it goes has none yet.

    `longer`: jobs that were done have to go on, until all of them have.
    """
    record = {"schema": SCHEMA, "command": verb, "jobs": jobs, "longer": longer}
    runs.write_json(folder / "sweep.json", record)


def read(folder: Path) -> dict[str, Any]:
    """The sweep.json of a folder; ConfigError if there is none or if it is damaged."""
    path = folder / "sweep.json"
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"resume: {folder} is no sweep, it has no sweep.json") from None
    except ValueError as e:
        raise ConfigError(f"resume: {path} is damaged: {e}") from None
    if not isinstance(record, dict) or not _are_jobs(record.get("jobs")):
        raise ConfigError(f"resume: {path} is damaged: it has no list of jobs")
    return record


def _are_jobs(jobs: Any) -> bool:
    """Is it a list of lists of words?"""
    lists = isinstance(jobs, list) and all(isinstance(job, list) for job in jobs)
    return lists and all(isinstance(word, str) for job in jobs for word in job)


def to_continue(
    root: Path, name: str, typed: bool, resume: str, jobs: Jobs, allowed: Sequence[str] = ()
) -> Path | None:
    """The sweep that `resume=` means, in root = outputs/<verb>; None = a new one.

    "auto" and "must" are the newest of this name with the same jobs. If it has none, "must" and a
    name that was `typed` are refused with what differs: nobody wants two kinds of jobs under one.
    One whose sweep.json is damaged is passed over with a warning.
    """
    if resume == "none":
        return None
    if resume in ("auto", "must"):
        found = [path.parent for path in (root / name).glob("v*/sweep.json")]
        found.sort(key=lambda folder: (len(folder.name), folder.name), reverse=True)
        found = [folder for folder in found if _is_whole(folder)]
        for folder in found:
            if not difference(read(folder)["jobs"], jobs, allowed):
                return folder
        if resume == "auto" and not (found and typed):
            return None
        if not found:
            raise ConfigError(f"resume=must: there is no sweep {name!r} in {root} to continue")
    else:
        found = [_named(root, resume)]
    if other := difference(read(found[0])["jobs"], jobs, allowed):
        raise ConfigError(
            f"resume: {found[0]} has other jobs ({other}); say the same, or resume=none and "
            "another name for a new sweep"
        )
    return found[0]


def _is_whole(folder: Path) -> bool:
    try:
        read(folder)
    except (ConfigError, OSError) as damage:
        log.warning("%s; it is passed over", damage)
        return False
    return True


def _named(root: Path, ref: str) -> Path:
    """A sweep by its path, name/v003, or name: the newest one then."""
    for folder in (Path(ref).expanduser(), root / ref):
        if (folder / "sweep.json").exists():
            return folder
        versions = sorted(folder.glob("v*/sweep.json"), key=lambda p: (len(str(p)), str(p)))
        if versions:
            return versions[-1].parent
    known = [str(path.parent.relative_to(root)) for path in root.glob("*/v*/sweep.json")]
    raise ConfigError(f"resume: no sweep {ref!r} in {root}; {nearest(ref, known)}")


def difference(there: Jobs, here: Jobs, allowed: Sequence[str] = ()) -> str:
    """What sets two lists of jobs apart, e.g. "only there: seed=3"; nothing if they are the same.

    One length for all jobs may be another: more steps are an extension. So may `resume_allow`.
    """
    a, b = _identity(there, allowed), _identity(here, allowed)
    if a == b:
        return ""
    words_a, words_b = {w for job in a for w in job}, {w for job in b for w in job}
    parts = [
        f"only {where}: {' '.join(sorted(words))}"
        for where, words in (("there", words_a - words_b), ("here", words_b - words_a))
        if words
    ]
    return "; ".join(parts) or "the same words, but in another order"


def is_longer(folder: Path, here: Jobs) -> bool:
    """Is another length asked for than the one that all of its jobs have come to?"""
    record = read(folder)
    lengths = [[_lengths(job) for job in jobs] for jobs in (record["jobs"], here)]
    return bool(record.get("longer")) or lengths[0] != lengths[1]


def _identity(jobs: Jobs, allowed: Sequence[str]) -> list[list[str]]:
    shared = {word for word in (jobs or [[]])[0] if all(word in job for job in jobs)}
    free = {*FREE, *allowed, *(key_of(word) for word in shared if key_of(word) in LENGTHS)}
    return [sorted(_plain(word) for word in job if key_of(word) not in free) for job in jobs]


def _plain(word: str) -> str:
    """Without quotes that are not needed: which words have some has changed before."""
    return re.sub(rf"""=(['"])({PLAIN.pattern})\1$""", r"=\2", word, flags=re.ASCII)


def _lengths(job: list[str]) -> list[str]:
    return sorted(word for word in job if key_of(word) in LENGTHS)


@contextmanager
def locked(path: Path, what: Path) -> Iterator[None]:
    """One process at a time; a lock ends with the process that holds it, however it ends."""
    lock = runs.lock(path, what)
    if lock is None:
        raise ConfigError(f"resume: {what} is being run by another process")
    with lock:
        yield


def lock_of(folder: Path, number: int) -> Path:
    """Of a job."""
    return folder / f".lock-{number}"


def running(folder: Path) -> list[str]:
    """The numbers of the jobs of a sweep whose lock is held, by whatever process."""
    held = []
    for path in sorted(folder.glob(".lock-*")):
        lock = owners.lock(path)
        if lock is None:
            held.append(path.name.removeprefix(".lock-"))
        else:
            lock.close()
    return held
