"""Trackers: the real wandb package without an account, and trackers that break."""

import logging
import sys
import threading
import time
from functools import partial
from types import SimpleNamespace

import pytest
from injected import forked

from diffuse import runs, trackers
from diffuse.errors import ConfigError
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


def test_offline_that_was_asked_for_is_no_warning(client, tmp_path, caplog):
    asked = client().asked
    tell(Quiet(wandb("diffuse", None, "offline")), tmp_path)
    assert [words["mode"] for words in asked] == ["offline"]
    assert not caplog.records


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="mode must be one of auto, online, offline, got 'off'"):
        wandb("diffuse", None, "off")


def test_wandb_without_an_account_keeps_config_losses_and_grids_in_the_run_folder(
    tmp_path, monkeypatch, caplog
):
    from PIL import Image

    for key in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    folder = tmp_path / "a/v001"
    folder.mkdir(parents=True)
    Image.new("L", (4, 4)).save(folder / "x.png")
    tell(Quiet(wandb("diffuse", None, "auto")), folder)
    [warning] = [r.getMessage() for r in caplog.records if r.name.startswith("diffuse")]
    assert warning.startswith(f"tracker wandb: no key; offline, `wandb sync {folder}/wandb/")

    [stored] = (folder / "wandb").glob("offline-run-*")
    assert list(stored.glob("files/media/images/samples_2_*.png"))
    [file] = stored.glob("*.wandb")
    words = (b"loss", b"seed", b"a/v001", b"samples")
    until = time.monotonic() + 60  # W&B's own process writes it when it comes to it
    while not all(word in file.read_bytes() for word in words) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [word for word in words if word not in file.read_bytes()]


class Client:
    """Stands in for the package, and remembers what it is asked; online it may not answer."""

    Settings, Image = dict, str

    def __init__(self, fails):
        self.api, self.fails, self.asked = SimpleNamespace(api_key="a key"), fails, []

    def init(self, **words):
        self.asked.append(words)
        if words["mode"] in self.fails:
            raise RuntimeError("no\nnetwork")
        run = SimpleNamespace(log=lambda *_, **__: None, finish=lambda: None)
        run.dir = str(words["dir"] / "wandb/offline-run-1/files")
        return run

    def teardown(self):
        self.asked.append({"mode": "teardown"})


@pytest.fixture
def client(monkeypatch):
    def make(fails=()):
        monkeypatch.delenv("WANDB_MODE", raising=False)
        monkeypatch.setitem(sys.modules, "wandb", Client(fails))
        return sys.modules["wandb"]

    return make


def test_with_a_key_but_no_network_it_begins_again_offline_and_says_how_to_sync(
    client, tmp_path, caplog
):
    asked = client(fails=["online"]).asked
    tell(Quiet(wandb("diffuse", None, "auto")), tmp_path)
    assert [words["mode"] for words in asked] == ["online", "teardown", "offline"]
    assert {**asked[0], "mode": "offline"} == asked[2]
    [record] = caplog.records
    assert "no network; offline, " in record.getMessage()
    assert f"`wandb sync {tmp_path}/wandb/offline-run-1`" in record.getMessage()


@pytest.mark.parametrize(
    ("mode", "fails"), [("online", ["online"]), ("auto", ["online", "offline"])]
)
def test_without_a_network_it_is_left_where_offline_was_not_asked_for_or_fails_too(
    mode, fails, client, tmp_path, caplog
):
    asked = client(fails).asked
    tell(Quiet(wandb("diffuse", None, mode)), tmp_path)
    assert ("teardown" in [words["mode"] for words in asked]) == (mode == "auto")
    [record] = caplog.records
    assert "failed to start (RuntimeError: no network); going on without it" in record.getMessage()


def test_a_training_that_goes_on_is_the_same_run_at_wandb(client, tmp_path):
    asked = client().asked

    def started(folder):
        tell(Quiet(wandb("diffuse", None, "auto")), folder)
        return asked[-1]["id"]

    one, other = (runs.claim(tmp_path, "train", name) for name in "ab")
    first = runs.Run.start(one, "train", "", [])
    ids = [started(one)]
    first.update(status="stopped")
    ids.append(started(one))
    (other / "run.json").write_bytes((one / "run.json").read_bytes())  # of the same moment
    ids.append(started(other))
    runs.Run.start(one, "train", "", [])  # the folder was deleted, and claimed anew
    ids.append(started(one))
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert {words["resume"] for words in asked} == {"allow"}


@pytest.mark.slow
def test_the_real_wandb_begins_again_offline_where_nobody_answers(tmp_path, monkeypatch):
    for key in ("WANDB_MODE", "WANDB_SERVICE"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_API_KEY", 40 * "0")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(trackers, "PATIENCE", 3.0)
    (tmp_path / "a").mkdir()

    def act():
        logging.basicConfig(force=True)
        tell(Quiet(wandb("diffuse", None, "auto"), seconds=100), tmp_path / "a")

    said = tmp_path / "said"
    assert forked(act, said) == 0, said.read_text()  # wandb remembers a key as long as it lives
    assert "; offline, `wandb sync " in said.read_text()
    [stored] = (tmp_path / "a/wandb").glob("offline-run-*")
    assert f"wandb sync {stored}" in said.read_text()


def test_one_that_cannot_be_made_or_hangs_is_nobody_with_a_warning(caplog):
    def broken():
        raise RuntimeError("no\nkey")

    for make, why in ((broken, "no key"), (partial(time.sleep, 30), "no answer in 0.1 s")):
        caplog.clear()
        started = time.monotonic()
        quiet = trackers.made("mine", make, seconds=0.1 if make is not broken else 5.0)
        assert time.monotonic() - started < 5
        assert isinstance(quiet.tracker, trackers.none)
        [record] = caplog.records
        assert record.getMessage() == (f"tracker mine cannot be made ({why}); going on without it")


def test_an_option_that_is_wrong_is_not_gone_on_without():
    def wrong():
        raise ConfigError("mode must be one of")

    with pytest.raises(ConfigError, match="mode must be one of"):
        trackers.made("mine", wrong)
