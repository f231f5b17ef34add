"""Trackers: the real wandb package without an account, and trackers that break."""

import logging
import threading
import time

import pytest

from diffuse.trackers import Quiet, none, wandb


class Noted:
    """Remembers what it heard, and fails or hangs where it is told to."""

    def __init__(self, fails=None, hangs=None):
        self.fails, self.hangs, self.heard = fails, hangs, []
        self.free = threading.Event()

    def _note(self, verb):
        self.heard.append(verb)
        if verb == self.hangs:
            self.free.wait(30)
        if verb == self.fails:
            raise RuntimeError("no\nnetwork")

    def start(self, folder, name, config):
        self._note("start")

    def log(self, step, values):
        self._note("log")

    def image(self, step, name, path):
        self._note("image")

    def finish(self):
        self._note("finish")


def tell(tracker, folder):
    tracker.start(folder, "a", {"seed": 0})
    for step in (1, 2):
        tracker.log(step, {"loss": 0.5})
    tracker.image(2, "samples", folder / "x.png")
    tracker.finish()


ALL = ["start", "log", "log", "image", "finish"]


def test_a_tracker_hears_everything_in_order(tmp_path):
    noted = Noted()
    tell(Quiet(noted), tmp_path)
    assert noted.heard == ALL


@pytest.mark.parametrize("verb", ["start", "log", "image", "finish"])
def test_a_tracker_that_fails_is_left_with_one_warning(verb, tmp_path, caplog):
    noted = Noted(fails=verb)
    with caplog.at_level(logging.WARNING):
        tell(Quiet(noted), tmp_path)
    assert noted.heard == ALL[: ALL.index(verb) + 1]
    [record] = caplog.records
    assert f"failed to {verb} (RuntimeError: no network); going on" in record.getMessage()


def test_a_tracker_that_hangs_is_left_with_one_warning(tmp_path, caplog):
    noted = Noted(hangs="log")
    with caplog.at_level(logging.WARNING):
        tell(Quiet(noted, seconds=0.05), tmp_path)
    noted.free.set()
    assert noted.heard == ["start", "log"]
    [record] = caplog.records
    assert "no answer in 0.05 s" in record.getMessage()


def test_nobody_hears_nothing(tmp_path, caplog):
    tell(Quiet(none()), tmp_path)
    assert not caplog.records


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="mode must be one of auto, online, offline, got 'off'"):
        wandb("diffuse", None, "off")


@pytest.mark.parametrize("mode", ["auto", pytest.param("offline", marks=pytest.mark.slow)])
def test_wandb_without_an_account_keeps_config_losses_and_grids_in_the_run_folder(
    mode, tmp_path, monkeypatch, caplog
):
    from PIL import Image

    pytest.importorskip("wandb")
    for key in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    folder = tmp_path / "a/v001"
    folder.mkdir(parents=True)
    Image.new("L", (4, 4)).save(folder / "x.png")
    tell(Quiet(wandb("diffuse", None, mode)), folder)
    assert not [r for r in caplog.records if r.name.startswith("diffuse")]

    [stored] = (folder / "wandb").glob("offline-run-*")
    assert list(stored.glob("files/media/images/samples_2_*.png"))
    [file] = stored.glob("*.wandb")
    words = (b"loss", b"seed", b"a/v001", b"samples")
    until = time.monotonic() + 60  # W&B's own process writes it when it comes to it
    while not all(word in file.read_bytes() for word in words) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [word for word in words if word not in file.read_bytes()]
