"""`diffuse train` when a loss jumps: it is said, and nothing else changes."""

import math

import pytest
from injected import die
from leftovers import RUN, at_step, rows, stop, undisturbed
from leftovers import what_is_left as left

from diffuse.commands.training import loop as command
from diffuse.denoiser import Denoiser
from diffuse.divergence import Spikes


@pytest.fixture
def run(tmp_path):
    return tmp_path / RUN


def jumping(patch):
    """Let the loss of step 25 be fifty times what it is."""
    real = Denoiser.loss
    calls = {"n": 0}

    def loss(self, *batch):
        calls["n"] += self.training
        return real(self, *batch) * (50 if self.training and calls["n"] == 25 else 1)

    patch.setattr(Denoiser, "loss", loss)
    return calls


@pytest.fixture
def jump(monkeypatch):
    return jumping(monkeypatch)


LONG = "train.steps=30 train.sample_every=null train.save_every=10 train.log_every=7"


def test_a_spike_is_one_line_and_one_row_and_changes_nothing(diffuse, run, jump, monkeypatch):
    assert diffuse.train(LONG) == 0
    assert diffuse.err.count("warning: step 25: the loss jumped to ") == 1
    [row] = [row for row in rows(run) if "spike" in row]
    assert (row["step"], row["spike_step"]) == (28, 25)
    assert row["spike"] > 10 * row["spike_median"] > 0
    jump["n"] = 0
    monkeypatch.setattr(Spikes, "TIMES", math.inf)
    assert diffuse.train(LONG) == 0
    blind, seen = left(run.with_name("v002")), left(run)
    for file in ("model", "ema", "optimizer"):
        assert blind[f"{file}.safetensors"] == seen[f"{file}.safetensors"]
    assert not [row for row in rows(run.with_name("v002")) if "spike" in row]


OFTEN = f"{LONG} train.save_every=13"  # a kill costs the steps since 13 or 26


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """What a training with a spike leaves behind when nothing stops it."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        jumping(patch)
        whole = undisturbed(f"{tiny} {OFTEN}", folder)
    assert sum("spike" in row for row in rows(folder / RUN)) == 1
    return whole


@pytest.mark.slow
@pytest.mark.parametrize("step", [24, 26, 29])
@pytest.mark.parametrize("kill", [False, True])
def test_a_spike_is_in_the_same_rows_if_the_training_was_stopped_around_it(
    step, kill, whole, diffuse, run, jump, monkeypatch
):
    def act():
        if kill:
            jump["n"] = (step - 1) // 13 * 13  # the step of the last checkpoint
            die()
        stop()

    with monkeypatch.context() as patch:
        patch.setattr(command, "fit", at_step(step, act))
        assert diffuse.train(OFTEN) == (1 if kill else 143)
    assert diffuse.train(f"{OFTEN} resume=must") == 0
    assert left(run) == whole
