"""Stopped or killed in a look at a training, or at its very end: the next start does the rest."""

import os
import signal

import pytest
from injected import forked
from leftovers import undisturbed, what_is_left

from diffuse import checkpoints, checkups, cli, runs
from diffuse.errors import TERMINATED

FULL = (
    "train.steps=6 train.save_every=4 train.sample_every=3 train.log_every=2 train.eval_every=3 "
    "train.eval_n=16 model.dropout=0.1"
)
KILLED = 137


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """What a training without a kill leaves behind, and what it says of its best checkpoint."""
    folder = tmp_path_factory.mktemp("whole")
    left = undisturbed(f"{tiny} {FULL}", folder)
    return left, runs.read(folder / "outputs/train/tiny/v001")["best"]


def killed_when(where, name, call, when=lambda *args, **kwargs: True, first=lambda: None):
    """Train in a process that ends as if killed in the call-th such call, `first` done before."""
    real, count = getattr(where, name), [0]

    def ending(*args, **kwargs):
        if when(*args, **kwargs):
            count[0] += 1
            if count[0] == call:
                first()
                real(*args, **kwargs)
                os._exit(KILLED)
        return real(*args, **kwargs)

    def act(words):
        setattr(where, name, ending)
        return cli.main(["train", *words.split()])

    return act


def told():
    os.kill(os.getpid(), signal.SIGTERM)


def has_best(run, **facts):
    return "best" in facts


MOMENTS = {  # what ends it, the step whose checkpoint is there, and the exit code
    "told to stop in samples": (killed_when(checkups, "draw", 1, first=told), 3, TERMINATED),
    "told to stop in a quick FID": (killed_when(checkups, "draw", 2, first=told), 3, TERMINATED),
    "told to stop in the last grid": (killed_when(checkups, "draw", 3, first=told), 6, TERMINATED),
    "told in the last quick FID": (killed_when(checkups, "draw", 4, first=told), 6, TERMINATED),
    "killed in samples": (killed_when(checkups, "draw", 1), None, KILLED),
    "when the best checkpoint has no name": (killed_when(checkpoints, "purge", 1), 3, KILLED),
    "when it has one": (killed_when(runs.Run, "update", 1, has_best), 3, KILLED),
    "at the end": (killed_when(checkpoints, "purge", 3), 6, KILLED),
}
FAST = ("told to stop in the last grid", "when the best checkpoint has no name")


@pytest.mark.parametrize(
    "moment", [pytest.param(m, marks=[] if m in FAST else pytest.mark.slow) for m in MOMENTS]
)
def test_a_look_that_was_not_done_is_done_and_the_run_is_whole(
    moment, whole, tiny, diffuse, tmp_path, monkeypatch
):
    act, step, code = MOMENTS[moment]
    monkeypatch.chdir(tmp_path)
    assert forked(lambda: act(f"{tiny} {FULL}"), tmp_path / "said.txt") == code
    run = tmp_path / "outputs/train/tiny/v001"
    newest = checkpoints.newest(run / "checkpoints")
    assert newest == (None if step is None else checkpoints.at(run / "checkpoints", step))
    assert diffuse.train(f"{FULL} resume=auto") == 0
    run = run if newest else run.parent / "v002"
    assert (what_is_left(run), runs.read(run)["best"]) == whole
    assert runs.read(run)["status"] == "done"
    assert diffuse.train(f"{FULL} resume=auto") == 0
    assert "has 6 steps, 6 are asked for" in diffuse.out


@pytest.mark.parametrize(("step", "call"), [pytest.param(3, 1, marks=pytest.mark.slow), (6, 3)])
def test_who_is_told_again_in_the_look_that_is_made_up_for_leaves_it_again(
    step, call, whole, tiny, diffuse, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "outputs/train/tiny/v001"
    for nth in (call, 1):
        act = killed_when(checkups, "draw", nth, first=told)
        assert forked(lambda act=act: act(f"{tiny} {FULL} resume=auto")) == TERMINATED
        facts = runs.read(run)
        assert (facts["status"], facts["step"]) == ("stopped", step)
    assert diffuse.train(f"{FULL} resume=auto") == 0
    assert (what_is_left(run), runs.read(run)["best"]) == whole
