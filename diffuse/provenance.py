"""Which code computed something: our own revision, and the versions of what it calls."""

import contextlib
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import diffuse


def versions() -> dict[str, str]:
    """What a number may depend on."""
    found = {"diffuse": diffuse.__version__, "python": platform.python_version()}
    for package in ("torch", "torchvision", "numpy", "scipy"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def git_revision() -> str | None:
    """The revision of our code, with "+dirty" if it was changed since; None outside git.

    Installed in a folder of someone else's repository, it is not that repository's code.
    """
    here = Path(__file__)
    try:
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        return _git(here.parent, "describe", "--always", "--dirty=+dirty", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    return done.stdout.strip()
