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
    """The revision of our code, with "+dirty" if it was changed since; None outside git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+dirty"]
    try:
        done = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
