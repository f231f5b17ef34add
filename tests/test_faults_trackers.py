"""A tracker that hangs, fails, dies or is slow: the same training, one warning, no waiting."""

import threading
import time

import pytest
from leftovers import what_is_left

from diffuse import assembly, config, runs, trackers

HANGING = """
import random, time
import numpy as np

class fine:
    def __init__(self, verb="", seconds=0.0):
        self.verb, self.seconds = verb, seconds
        self._do("made")
    def _do(self, verb):
        random.seed(0)
        np.random.seed(0)
        if verb == self.verb: time.sleep(self.seconds)
    def start(self, folder, name, config): config.clear(); self._do("start")
    def log(self, step, values): values.clear(); self._do("log")
    def image(self, step, name, path): self._do("image")
    def finish(self): self._do("finish")

class dying(fine):
    def _do(self, verb):
        if verb == self.verb: raise SystemExit(1)

class broken(fine):
    def __init__(self): raise RuntimeError("no key")
"""


KINDS = {
    "hangs at the start": "fine +tracker.verb=start +tracker.seconds=30",
    "hangs in the middle": "fine +tracker.verb=log +tracker.seconds=30",
    "hangs at the end": "fine +tracker.verb=finish +tracker.seconds=30",
    "dies": "dying +tracker.verb=log",
    "cannot be made": "broken",
    "hangs when it is made": "fine +tracker.verb=made +tracker.seconds=30",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_tracker_that_breaks_changes_no_byte_and_costs_one_warning_and_a_bounded_wait(
    kind, trained, diffuse, tmp_path, monkeypatch
):
    (tmp_path / "breaking_trackers.py").write_text(HANGING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(trackers.Quiet.__init__, "__defaults__", (0.5, 10_000))
    monkeypatch.setattr(trackers.made, "__defaults__", (0.5,))
    line = "train.steps=4 train.eval_every=2 train.eval_n=16 trust=breaking_trackers"
    started = time.monotonic()
    assert diffuse.train(f"{line} tracker.name=breaking_trackers:{KINDS[kind]}") == 0
    assert time.monotonic() - started < 10
    assert diffuse.err.count("going on without it") == 1
    assert what_is_left(trained) == what_is_left(trained.parent / "v002")


def test_a_tracker_that_is_listened_to_would_end_the_training(
    trained, diffuse, tmp_path, monkeypatch
):
    """Control: without `Quiet` between the two."""
    (tmp_path / "breaking_trackers.py").write_text(HANGING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(assembly, "tracker", lambda cfg: config.build("tracker", cfg.tracker))
    line = f"trust=breaking_trackers tracker.name=breaking_trackers:{KINDS['dies']}"
    assert diffuse.train(f"train.steps=4 {line}") == 1
    assert runs.read(trained.parent / "v002")["status"] != "done"


class Slow:
    """Does nothing until it may, and remembers what it heard."""

    def __init__(self):
        self.heard, self.may = [], threading.Event()

    def start(self, folder, name, config):
        self.log(0, {})

    def log(self, step, values):
        assert self.may.wait(10), "whoever was to let it go on waits for it"
        self.heard.append(step)

    def image(self, step, name, path):
        self.log(step, {})

    def finish(self):
        self.log(-1, {})


def test_a_slow_tracker_hears_everything_and_holds_nobody_up(tmp_path):
    slow = Slow()
    quiet = trackers.Quiet(slow)
    quiet.start(tmp_path, "a", {})
    for step in range(1, 11):
        quiet.log(step, {})
    assert slow.heard == []
    slow.may.set()
    quiet.finish()
    assert slow.heard == [*range(11), -1]


def test_a_tracker_that_falls_too_far_behind_is_left(tmp_path, caplog):
    slow = Slow()
    quiet = trackers.Quiet(slow, seconds=0.01, most=5)
    quiet.start(tmp_path, "a", {})
    for step in range(100):
        quiet.log(step, {})
    quiet.finish()
    slow.may.set()
    [record] = caplog.records
    assert "5 messages wait for it" in record.getMessage()
