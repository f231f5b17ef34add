"""Processes of our own import what we do, wherever we are started, and end when we do."""

import subprocess
import sys

import pytest
from leftovers import RUN
from places import ROOT
from sharded import LINE, drawn_by

from diffuse import children, runs

PLAIN = [sys.executable, "-P"]  # nothing is imported from where it is started


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to be in, with a file that is called as a module of Python's is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "random.py").write_text("raise ImportError('this is not the one of Python')\n")
    return tmp_path


CHILD = """
import random, sys, time
from diffuse import children
children.end_with_parent(7)
print(*sys.argv[1:], file=sys.stderr, flush=True)
time.sleep(60)
"""


def test_one_imports_from_where_we_do_and_ends_with_its_stdin(place, monkeypatch):
    (place / "ours").mkdir()
    (place / "ours/the_child.py").write_text(CHILD)
    monkeypatch.syspath_prepend(place / "ours")
    process = children.start("the_child", "a", "b", stderr=subprocess.PIPE, text=True)
    assert process.stderr.readline() == "a b\n"
    process.stdin.close()
    assert process.wait(30) == 7
    process.stderr.close()


@pytest.mark.slow
def test_two_processes_train_where_a_file_is_called_as_a_module_is(tiny, start, place):
    words = f"train {tiny} train.steps=2 devices=2"
    process = start([*PLAIN, "-m", "diffuse", *words.split()])
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert runs.read(place / RUN)["devices"] == 2


WAITING = """
import os, sys, time
from pathlib import Path
from diffuse import cli, shards
from sharded import drawn_by
real = shards.draw
def draw(*args):  # when the other one has
    while all(process == os.getpid() for _, process in drawn_by(Path("outputs/.samples"))):
        time.sleep(0.05)
    return real(*args)
shards.draw = draw
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_two_processes_draw_where_a_file_is_called_as_a_module_is(trained, start, place, kept):
    words = f"eval n=16 encoder=pixels {LINE} devices=2"
    places = f"{ROOT}:{ROOT / 'tests'}"
    process = start([*PLAIN, "-c", WAITING, *words.split()], PYTHONPATH=places)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "worker" not in said
    assert {process.pid} != {pid for _, pid in drawn_by(kept)}
