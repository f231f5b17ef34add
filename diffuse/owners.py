"""Which process a run folder belongs to."""

import fcntl
import os
import platform
from pathlib import Path
from typing import IO, Any


def alive(pid: int) -> bool:
    """Is there such a process on this machine?"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def facts() -> dict[str, Any]:
    """This process, as it stands in run.json."""
    return {"host": platform.node(), "pid": os.getpid(), "process": _birth(os.getpid())}


def is_there(facts: dict[str, Any]) -> bool:
    """Is the process of a run.json still there? Only this machine's can be asked.

    A number alone does not say: numbers are given again, and in containers they are all small.
    """
    pid, process = facts.get("pid"), facts.get("process") or ""
    if facts.get("host") != platform.node() or not isinstance(pid, int) or not alive(pid):
        return False
    return not process.startswith(f"{pid}@") or _birth(pid) in ("", process)


def _birth(pid: int) -> str:
    """<pid>@<boot of the machine>/<clock ticks since then>; empty where the kernel has no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return f"{pid}@{boot}/{fields[19]}"


def lock(path: Path) -> IO[bytes] | None:
    """Hold a file until the result is closed or this process is gone; None = another one does.

    Where the file system knows no locks, everybody gets one.
    """
    file = open(path, "ab")  # noqa: SIM115 (it is the caller's)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError:
        pass
    return file
