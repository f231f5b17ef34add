"""`diffuse train` where steps are timed before there is a folder, and one of them is not finite."""

import json

import pytest
from leftovers import RUN

from diffuse import runs


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("line", ["", "train.on_nan=rollback"])
def test_a_network_that_diverges_at_once_has_a_folder_that_says_why(
    line, step, diffuse, poison, tmp_path
):
    poison({step}, times=9)
    assert diffuse.train(line) == 4
    assert f"error: step {step}: loss nan" in diffuse.err
    run = tmp_path / RUN
    assert runs.read(run)["status"] == "diverged"
    assert json.loads((run / "diverged.json").read_text())["step"] == step


@pytest.mark.parametrize(("on_nan", "code"), [("stop", 4), ("skip", 0), ("rollback", 0)])
def test_one_bad_step_while_steps_are_timed_does_not_make_a_training_of_minutes_shorter(
    on_nan, code, diffuse, poison, tmp_path
):
    poison({3})
    line = f"train.steps=null train.minutes=0.01 train.on_nan={on_nan} train.save_every=1"
    assert diffuse.train(line) == code
    assert runs.read(tmp_path / RUN)["steps"] > 3


def test_steps_of_the_sampler_are_not_taken_for_the_length(tiny, diffuse):
    line = f"train {tiny.replace('steps=2 ', 'steps=3 ')} dry_run=true"
    assert diffuse(line) == 0
    assert "warning: steps=3 is of the sampler, for samples; train.steps= is the" in diffuse.err
    assert diffuse(f"{line} train.steps=2") == 0
    assert "is of the sampler" not in diffuse.err


def test_a_warm_up_that_does_not_end_is_said(diffuse):
    line = "train.steps=3 dry_run=true train.warmup="
    assert diffuse.train(f"{line}4") == 0
    assert "warning: train.warmup=4 is more than the 3 steps there are" in diffuse.err
    for rest in ("3", "4 train.lr_schedule=onecycle"):
        assert diffuse.train(line + rest) == 0
        assert "warmup" not in diffuse.err


def test_a_dry_run_of_it_says_so_and_writes_nothing(tiny, diffuse, poison, tmp_path):
    poison({1})
    assert diffuse.error(f"train {tiny} dry_run=true", 4).startswith("step 1: loss nan")
    assert not list(tmp_path.iterdir())
