"""A file out of a Debian package, without being root and without installing anything."""

import shutil
from pathlib import Path

from diffuse.data.sources import NoAnswerError, SilentError, watched

APT = [
    *("apt-get", "-q"),
    *("-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=10"),
    *("-o", "Acquire::https::Timeout=10", "-o", "APT::Sandbox::User=root"),
]


def unpack_package(package: str, scratch: Path) -> Path:
    """Download a package into `scratch` and unpack it there; returns the folder of its files."""
    if shutil.which("apt-get") is None:
        raise NoAnswerError("apt-get is not installed")
    try:
        watched([*APT, "download", package], scratch)
    except SilentError:
        raise
    except NoAnswerError:
        _download_with_fresh_lists(package, scratch)
    found = sorted(scratch.glob(f"{package}_*.deb"))
    if not found:
        raise NoAnswerError(f"apt-get brought no {package}")
    files = scratch / "unpacked"
    watched(["dpkg-deb", "-x", found[0], files], scratch)
    return files


def _download_with_fresh_lists(package: str, scratch: Path) -> None:
    """The machine's package lists are empty or old: fetch new ones into a folder of our own."""
    lists, archives = scratch / "lists", scratch / "archives"
    (lists / "partial").mkdir(parents=True)
    (archives / "partial").mkdir(parents=True)
    private = [
        *("-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={archives}"),
        *("-o", f"Dir::Cache::Archives={archives}", "-o", "Debug::NoLocking=1"),
        *("-o", "Acquire::Languages=none", "-o", "APT::Update::Post-Invoke-Success="),
    ]
    refused = None
    try:
        watched([*APT, *private, "update"], scratch)
    except NoAnswerError as error:  # one of several repositories may be dead, ours need not be
        refused = error
    try:
        watched([*APT, *private, "download", package], scratch)
    except NoAnswerError as error:
        raise refused or error from error
