"""Which of several processes is named when a training ends because of one."""

import contextlib
import subprocess
import sys
import time

import pytest
from injected import forked

from diffuse import launching
from diffuse.commands.training import following
from diffuse.errors import ConfigError, DivergedError
from diffuse.launching import Lost

ENDS = {"1": "sys.stdin.read(1); sys.exit(1)", "2": "os.kill(os.getpid(), signal.SIGKILL)"}
SAID = "process 2 of this training was ended by SIGKILL"


@contextlib.contextmanager
def two_that_fail(monkeypatch, grace):
    """Both are children: the second one is killed, and the first one fails without it."""
    made = []

    def start(module, where, world, rank):
        code = f"import os, signal, sys; {ENDS[rank]}"
        made.append(subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE))
        return made[-1]

    monkeypatch.setattr(launching.children, "start", start)
    monkeypatch.setattr(launching, "GRACE", grace)
    with launching._started(3, "nowhere") as gone:
        assert gone().startswith(SAID)
        made[0].stdin.write(b"x")
        made[0].stdin.flush()
        assert made[0].wait(60) == 1
        yield gone


def test_of_several_that_fail_the_first_one_is_named(monkeypatch):
    """Others fail because they have lost it, whatever their number is."""
    with two_that_fail(monkeypatch, 60.0) as gone:
        assert gone().startswith(SAID)


def test_so_it_is_if_nobody_notices(monkeypatch, tmp_path):
    def act():
        with two_that_fail(monkeypatch, 2.0):
            time.sleep(60)

    assert forked(act, tmp_path / "said") == 1
    assert (tmp_path / "said").read_text().startswith(f"error: {SAID}")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DivergedError("step 3: loss nan"), 0, ""),  # the first process says so
        (Lost("the first process is gone"), 1, ""),
        (ConfigError("no such thing"), 1, "process 1: no such thing\n"),
    ],
)
def test_a_process_fails_unless_what_ends_it_ends_all_alike(error, code, said, monkeypatch, capsys):
    def main(meet):
        raise error

    monkeypatch.setattr(following, "main", main)
    monkeypatch.setattr(following.children, "end_with_parent", lambda code: None)
    monkeypatch.setattr(following.cli, "log_to_stderr", lambda **least: None)
    assert following.child("nowhere", 2, 1) == code
    assert capsys.readouterr().err == said
