"""Programs in processes of their own, of which nothing is left when their test is over."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from leftovers import until
from places import ROOT

TRAIN = (sys.executable, "-m", "diffuse", "train")


def alive(session):
    """The processes of a session that have not ended. Minimal images have no `ps` to ask."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            state, _, _, its = stat.read_bytes().rpartition(b")")[2].split()[:4]
            if int(its) == session and state not in b"ZX":
                found.append(int(stat.parent.name))
    return found


def killed(session):
    """Is none of it left? A process may start another one while it is told."""
    there = alive(session)
    for pid in there:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return not there


class Start:
    """start(command): its process, which leads a session of its own."""

    def __init__(self, folder):
        self.folder, self.processes = folder, []
        self.sessions = []  # that end with the test

    def __call__(self, command, folder=None, stderr=subprocess.PIPE, **environment):
        """It finds this tree, and computes with one thread: several add up in another order."""
        folder = folder or self.folder
        folder.mkdir(exist_ok=True)
        found = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        ours = {"PYTHONPATH": os.pathsep.join(found), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            command, cwd=folder, text=True, start_new_session=True, stdout=subprocess.PIPE,
            stderr=stderr, env={**os.environ, **ours, **environment},
        )  # fmt: skip
        self.processes.append(process)
        self.sessions.append(process.pid)
        return process

    def train(self, words, folder=None, **environment):
        """`diffuse train`."""
        return self([*TRAIN, *words.split()], folder, **environment)

    def end(self):
        for session in self.sessions:
            until(lambda session=session: killed(session), 30)
        for process in self.processes:
            process.wait()
            for pipe in filter(None, [process.stdout, process.stderr]):
                pipe.close()
