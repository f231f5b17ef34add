"""Checkpoints that a thread writes are those that would have been written at once."""

import os
import signal
import threading
import time

import pytest
from injected import forked
from leftovers import RUN, undisturbed, what_is_left

from diffuse import checkpoints, cli, journal, runs
from diffuse.background import Background
from diffuse.errors import NoSpaceError

FULL = (
    "train.steps=6 train.save_every=1 train.sample_every=3 train.log_every=2 train.eval_every=3 "
    "train.eval_n=16"
)


def slowly(real, pause=0.1):
    def wrapped(*args):
        time.sleep(pause)
        return real(*args)

    return wrapped


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """What is left where checkpoints are written at once, and the folder of it."""
    folder = tmp_path_factory.mktemp("whole")
    return undisturbed(f"{tiny} {FULL} train.keep=9", folder), folder / RUN


@pytest.fixture
def threaded(monkeypatch):
    """As beside a GPU; a save lasts longer than a step."""
    monkeypatch.setattr(journal, "threaded", lambda device: True)
    monkeypatch.setattr(checkpoints, "save", slowly(checkpoints.save))


def test_work_is_done_in_order_and_what_follows_in_our_thread():
    done, background = [], Background(threaded=True)
    for number in range(3):
        background.do(
            lambda number=number: (time.sleep(0.05), done.append(number)),
            lambda number=number: done.append((number, threading.current_thread().name)),
        )
    background.wait()
    assert done == [0, (0, "MainThread"), 1, (1, "MainThread"), 2, (2, "MainThread")]


def test_what_goes_wrong_is_raised_once_and_what_would_follow_does_not():
    def fail():
        raise OSError("no room")

    for background in (Background(threaded=True), Background(threaded=False)):
        with pytest.raises(OSError, match="no room"):  # noqa: PT012
            background.do(fail, lambda: pytest.fail("it went on"))
            background.wait()
        background.wait()


def test_a_thread_saves_the_same_bytes_and_all_of_them_are_there(
    threaded, whole, diffuse, tmp_path
):
    assert diffuse.train(FULL) == 0, diffuse.err
    assert what_is_left(tmp_path / RUN) == whole[0]
    assert runs.read(tmp_path / RUN)["step"] == 6


@pytest.mark.slow
def test_weights_that_are_not_copied_would_be_those_of_later_steps(
    threaded, whole, diffuse, tmp_path, monkeypatch
):
    monkeypatch.setattr(journal, "copied", lambda tensors: tensors)
    assert diffuse.train(f"{FULL} train.keep=9") == 0
    at_once, later = (
        checkpoints.load_tensors(checkpoints.at(run / "checkpoints", 4), "model")
        for run in (whole[1], tmp_path / RUN)
    )
    assert not all(weight.equal(later[name]) for name, weight in at_once.items())


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_while_a_thread_saves_costs_nothing_but_time(
    end, threaded, whole, tiny, diffuse, tmp_path
):
    real, count = journal.Journal.see, [0]

    def told(self, step):
        count[0] += 1
        if count[0] == 5:
            os.kill(os.getpid(), end)
        real(self, step)

    def act():
        journal.Journal.see = told
        return cli.main(["train", *tiny.split(), *FULL.split()])

    code = forked(act)
    assert code == (143 if end == signal.SIGTERM else -end)
    newest = checkpoints.newest(tmp_path / RUN / "checkpoints")
    assert newest.name in (["step_00000005"] if code == 143 else ["step_00000003", "step_00000004"])
    assert diffuse.train(f"{FULL} resume=auto") == 0
    assert what_is_left(tmp_path / RUN) == whole[0]


def test_a_thread_without_room_ends_the_training_with_exit_5(
    threaded, diffuse, tmp_path, monkeypatch
):
    real = checkpoints.save

    def full(folder, step, *rest):
        if step == 3:
            raise NoSpaceError(f"no space left for {folder}/step_{step:08d}: 12 bytes")
        return real(folder, step, *rest)

    monkeypatch.setattr(checkpoints, "save", full)
    assert diffuse.train(FULL) == 5
    assert "step_00000003: 12 bytes" in diffuse.err
    facts = runs.read(tmp_path / RUN)
    assert (facts["status"], facts["step"]) == ("failed", 2)


@pytest.mark.parametrize("room", [True, False])
def test_an_error_does_not_leave_a_checkpoint_that_is_being_written(
    room, threaded, diffuse, tmp_path, monkeypatch
):
    """What ends the training is said; and whether the checkpoint before it was saved."""
    real, step = checkpoints.save, journal.Journal.steps

    def save(folder, number, *rest):
        if number == 4 and not room:
            raise NoSpaceError("no space for 12 bytes")
        return real(folder, number, *rest)

    def broken(self, at):
        if at.number == 5:
            raise ZeroDivisionError("a bug")
        step(self, at)

    monkeypatch.setattr(checkpoints, "save", slowly(save, 0.5))
    monkeypatch.setattr(journal.Journal, "steps", broken)
    line = "train.steps=6 train.save_every=2 train.log_every=1 train.sample_every=null"
    assert diffuse.train(line) == 1
    assert "error: unexpected ZeroDivisionError: a bug" in diffuse.err
    facts = runs.read(tmp_path / RUN)
    assert (facts["status"], facts["step"]) == ("failed", 4 if room else 2)
    lost = "the checkpoint before it was not saved: no space for 12 bytes"
    assert (lost in diffuse.err) == (not room)


@pytest.mark.parametrize("on_nan", ["stop", "rollback"])
def test_so_it_is_if_the_next_step_is_not_finite(
    on_nan, threaded, diffuse, tmp_path, monkeypatch, poison
):
    """The checkpoint that is lost is no diagnosis that there was no room for."""
    real = checkpoints.save

    def full(folder, step, *rest):
        if step == 4:
            raise NoSpaceError(f"no space left for {folder}/step_{step:08d}: 12 bytes")
        return real(folder, step, *rest)

    monkeypatch.setattr(checkpoints, "save", slowly(full))
    poison({5})
    line = "train.steps=6 train.save_every=2 train.sample_every=null"
    assert diffuse.train(f"{line} train.on_nan={on_nan}") == 5
    assert "step_00000004: 12 bytes" in diffuse.err
    assert "no diagnosis" not in diffuse.err
    assert runs.read(tmp_path / RUN)["status"] == "failed"


@pytest.mark.slow
def test_a_rollback_waits_for_what_it_goes_back_to(threaded, diffuse, tmp_path):
    line = f"{FULL} optimizer.lr=1e30 train.clip_grad=null train.on_nan=rollback"
    assert diffuse.train(f"{line} train.sample_every=null train.eval_every=null") == 4
    facts = runs.read(tmp_path / RUN)
    newest = checkpoints.newest(tmp_path / RUN / "checkpoints")
    assert facts["rollbacks"] == 3
    assert newest.name == f"step_{facts['step']:08d}"
