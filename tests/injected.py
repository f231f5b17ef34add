"""Faults, injected: a process is killed at a call, or may write no more; a bit is flipped."""

import builtins
import os
import resource
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path

from places import ROOT

FORK = threading.Lock()  # libraries refuse that two threads do it at the same moment
CALLS = ("open", "fsync", "rename", "replace", "mkdir", "rmdir", "unlink", "symlink")


def forked(act, said=os.devnull):
    """Run something in a copy of this process; what it says goes into a file. Its exit code."""
    listen, speak = os.pipe()
    with FORK:
        pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(120)
            os.close(listen)
            sys.stdout = sys.stderr = open(speak, "w", buffering=1)  # noqa: SIM115
            returned = act()
            os._exit(returned if isinstance(returned, int) else 0)
        except BaseException:
            traceback.print_exc()
        finally:  # whatever happens, this copy must not go on with the tests
            os._exit(1)
    os.close(speak)
    with open(listen) as words:
        Path(said).write_text(words.read())
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_at(call, act, path=""):
    """SIGKILL at the call-th call to the system that names a path with these words in it."""

    def run():
        count = 0

        def wrap(real):
            def wrapped(*args, **kwargs):
                nonlocal count
                if any(path in str(a) for a in args):
                    count += 1
                    if count == call:
                        os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kwargs)

            return wrapped

        for name in CALLS:
            setattr(os, name, wrap(getattr(os, name)))
        builtins.open = wrap(open)
        return act()

    return forked(run)


def every_kill(act, prepare, look):
    """Kill `act(folder)` at each of its calls in turn, and look at the folder; how many there are.

    prepare(call) makes the folder.
    """
    for call in range(1, 1000):
        folder = prepare(call)
        code = killed_at(call, lambda folder=folder: act(folder))
        look(folder)
        if code != -signal.SIGKILL:
            assert code == 0
            return call - 1
    raise AssertionError("no end of it")


def without_room(size, act, said=os.devnull):
    """Run something that may write no file larger than `size` bytes."""

    def run():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        return act()

    return forked(run, said)


def at_once(number, code, *words):
    """Processes of some Python that say "ready", then all go on at the same moment."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for _ in range(number)
    ]  # fmt: skip
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    return started


def everything_in(folder):
    """Path -> content of all files under a folder."""
    return {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


class Killed(BaseException):
    """What a SIGKILL looks like from inside: nothing after it runs, not even `except`."""


def die():
    raise Killed


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(content))
