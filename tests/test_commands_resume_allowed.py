"""What `resume.allow` lets through stays so, whatever comes next, and is in the record."""

import shutil

import pytest
from injected import die
from leftovers import RUN, at_step, what_is_left
from omegaconf import OmegaConf

from diffuse import checkpoints, runs
from diffuse.commands.training import loop as command

DECAY = "optimizer.weight_decay=0.1"
ALLOWED = f"{DECAY} resume.allow=[optimizer.weight_decay]"
CHANGE = "optimizer.weight_decay: 0.01 there, 0.1 here"


def groups(run):
    """Those of the optimizer in the newest checkpoint."""
    state = checkpoints.load_state(checkpoints.newest(run / "checkpoints"))
    return state["optimizer"]["param_groups"]


@pytest.mark.parametrize("again", [f"resume=auto {DECAY}", f"resume={RUN}"])
def test_a_setting_that_was_let_through_outlasts_a_kill_before_the_next_save(
    again, tiny, trained, diffuse, monkeypatch
):
    whole = trained.parents[1] / "whole/v001"
    shutil.copytree(trained, whole, symlinks=True)
    line = f"train.steps=6 train.eval_every=null {ALLOWED}"
    assert diffuse.train(f"{line} resume=whole/v001") == 0, diffuse.err
    with monkeypatch.context() as patch:
        patch.setattr(command, "fit", at_step(5, die))
        assert diffuse.train(f"{line} resume=auto") == 1
    assert checkpoints.newest(trained / "checkpoints").name == "step_00000004"
    words = tiny if DECAY in again else "device=cpu"  # a run that is named knows all others
    assert diffuse(f"train {words} train.steps=6 {again}") == 0, diffuse.err
    assert [group["weight_decay"] for group in groups(trained)] == [0.1]
    assert what_is_left(trained) == what_is_left(whole)


def test_so_it_does_a_rollback(trained, diffuse, poison):
    poison({6})
    line = f"train.steps=8 train.on_nan=rollback resume=auto {ALLOWED}"
    assert diffuse.train(line) == 0, diffuse.err
    assert "back to step 4, rollback 1 of 3" in diffuse.err
    assert [group["weight_decay"] for group in groups(trained)] == [0.1]


def test_another_optimizer_is_that_one_and_not_the_one_before_under_its_name(trained, diffuse):
    """AdamW is an Adam to torch, but for a word that no config says."""
    line = "train.steps=6 resume=auto optimizer=adam resume.allow=[optimizer]"
    assert diffuse.train(line) == 0, diffuse.err
    [group] = groups(trained)
    assert (group["weight_decay"], group["decoupled_weight_decay"]) == (0, False)


def test_what_was_let_through_is_in_the_record_once_and_in_the_log(trained, diffuse):
    assert diffuse.train(f"train.steps=6 resume=auto {ALLOWED}") == 0, diffuse.err
    assert diffuse.train(f"train.steps=8 resume=auto {DECAY}") == 0, diffuse.err
    [there] = runs.read(trained)["resumed"]
    assert (there["step"], there["changed"]) == (4, [CHANGE])
    assert (trained / "log.txt").read_text().count(f"resume.allow: {CHANGE}\n") == 1


def test_so_are_other_images(trained, diffuse, monkeypatch):
    facts = runs.read(trained)
    here = facts["data"]["sha256"]
    facts["data"]["sha256"] = 64 * "0"
    runs.write_json(trained / "run.json", facts)
    known = checkpoints.load_state(checkpoints.at(trained / "checkpoints", 4))
    known["data"] = facts["data"]
    monkeypatch.setattr(checkpoints, "load_state", lambda path: known)
    assert diffuse.train("train.steps=6 resume=auto resume.allow=[dataset]") == 0, diffuse.err
    change = f"dataset (sha256 {12 * '0'} there, {here[:12]} here)"
    [there] = runs.read(trained)["resumed"]
    assert (there["step"], there["changed"]) == (4, [change])
    assert f"resume.allow: {change}\n" in (trained / "log.txt").read_text()


def test_a_deviation_that_was_said_and_one_that_was_measured_both_stay(diffuse, tmp_path):
    line = "objective=edm objective.sigma_data=0.5 weighting=edm"
    config = tmp_path / RUN / "config.yaml"
    assert diffuse.train(f"{line} train.steps=2") == 0, diffuse.err
    measured = OmegaConf.load(config).weighting.sigma_data
    assert measured != 0.5
    assert diffuse.train(f"{line} train.steps=3 resume=auto") == 0, diffuse.err
    saved = OmegaConf.load(config)
    assert (saved.objective.sigma_data, saved.weighting.sigma_data) == (0.5, measured)
