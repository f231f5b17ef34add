"""A training that was stopped goes on: to the very same bytes, or not at all."""

import json
import os
import shutil
import signal
from functools import partial

import pytest
from injected import die
from leftovers import RUN, at_step, rows, stop, undisturbed, until, what_is_left
from omegaconf import OmegaConf

from diffuse import checkpoints, runs
from diffuse.commands.training import loop as command
from diffuse.commands.training import preparing, resuming

FULL = "train.steps=8 train.log_every=3 train.sample_every=4 train.save_every=5 model.dropout=0.1"


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """What a training without a break leaves behind."""
    return undisturbed(f"{tiny} {FULL}", tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    ("step", "number"), [(1, signal.SIGTERM), (4, signal.SIGINT), (7, signal.SIGTERM)]
)
def test_a_signal_is_a_checkpoint_of_this_step_and_resuming_ends_as_if_nothing_had_been(
    step, number, whole, diffuse, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(command, "fit", at_step(step, partial(stop, number)))
        assert diffuse.train(FULL) == 128 + number
    run = tmp_path / RUN
    again = f"diffuse train resume={RUN} device=cpu"
    assert f"stopped at step {step}; {again} continues" in diffuse.err
    assert (runs.read(run)["status"], runs.read(run)["step"]) == ("stopped", step)
    assert checkpoints.newest(run / "checkpoints").name == f"step_{step:08d}"
    assert diffuse.train(f"{FULL} resume=auto") == 0
    assert what_is_left(run) == whole
    assert runs.read(run)["status"] == "done"


@pytest.mark.parametrize(("step", "from_step"), [(5, None), (8, 5)])
def test_a_kill_costs_the_steps_since_the_last_checkpoint_and_nothing_else(
    step, from_step, whole, diffuse, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(command, "fit", at_step(step, die))
        assert diffuse.train(FULL) == 1
    run = tmp_path / RUN
    newest = checkpoints.newest(run / "checkpoints")
    assert (newest and int(newest.name[5:])) == from_step
    runs.write_json(run / "run.json", {**runs.read(run), "status": "running", "pid": 2**22 + 1})
    assert diffuse.train(f"{FULL} resume=auto") == 0
    run = run if from_step else run.with_name("v002")
    assert what_is_left(run) == whole


def test_a_resume_with_another_seed_would_be_noticed(whole, diffuse, tmp_path):
    assert diffuse.train(f"{FULL} seed=1") == 0
    other = what_is_left(tmp_path / RUN)
    assert not any(other[name] == whole[name] for name in whole if name != "state.json")


def test_a_damaged_newest_checkpoint_costs_only_the_steps_since_the_one_before(
    whole, diffuse, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(command, "fit", at_step(7, stop))
        assert diffuse.train(FULL) == 143
    run = tmp_path / RUN
    (run / "checkpoints/step_00000007/model.safetensors").write_bytes(b"")
    assert diffuse.train(f"{FULL} train.keep=1 train.save_every=1 resume=auto") == 0
    assert "looking for an older checkpoint" in diffuse.err
    assert what_is_left(run) == whole


def test_the_checkpoint_just_written_is_kept_although_a_damaged_one_looks_newer(
    diffuse, tmp_path, monkeypatch
):
    assert diffuse.train("train.steps=6") == 0
    run = tmp_path / RUN
    (run / "checkpoints/step_00000006/model.safetensors").write_bytes(b"")
    with monkeypatch.context() as patch:
        patch.setattr(command, "fit", at_step(5, stop))
        assert diffuse.train("train.steps=6 train.keep=1 resume=auto") == 143
    assert checkpoints.newest(run / "checkpoints").name == "step_00000005"


def test_a_finished_run_says_so_and_more_steps_extend_it(trained, diffuse):
    before = (trained / "run.json").read_text()
    assert diffuse.train("train.steps=4 resume=auto") == 0
    assert "has 4 steps, 4 are asked for; train.steps= extends it" in diffuse.out
    assert (trained / "run.json").read_text() == before
    assert diffuse.train("train.steps=6 resume=must") == 0
    facts = runs.read(trained)
    assert (facts["status"], facts["step"]) == ("done", 6)
    assert OmegaConf.load(trained / "config.yaml").train.steps == 6
    assert checkpoints.newest(trained / "checkpoints").name == "step_00000006"
    steps = [json.loads(line)["step"] for line in (trained / "metrics.jsonl").open()]
    assert sorted(set(steps)) == [1, 2, 3, 4, 5, 6]
    assert not (trained.parent / "v002").exists()


def test_what_a_finished_run_says_is_json_if_asked_for(tiny, trained, diffuse):
    said = diffuse.json(f"train {tiny} train.steps=4 resume=auto")
    assert (said["step"], said["status"]) == (4, "done")


def test_auto_without_a_run_begins_one_and_none_never_continues(trained, diffuse):
    assert diffuse.train("train.steps=1 resume=auto name=other") == 0
    assert (trained.parents[1] / "other/v001").exists()
    assert diffuse.train("train.steps=1") == 0
    assert (trained.parent / "v002").exists()


def test_a_run_can_be_named_by_its_version(trained, diffuse):
    assert diffuse.train("train.steps=1") == 0
    assert diffuse.train("train.steps=5 resume=tiny/v001") == 0
    assert runs.read(trained)["step"] == 5
    assert runs.read(trained.parent / "v002")["step"] == 1


CHANGES = {
    "model.width=16": ["model.width: 8 there, 16 here"],
    "schedule=linear": ["schedule.name: cosine there, linear here"],
    "objective=eps": ["objective.name: v there, eps here"],
    "optimizer.lr=0.5 train.batch=8": ["optimizer.lr", "train.batch: 16 there, 8 here"],
    "dataset.subset=32": ["dataset.subset: 64 there, 32 here"],
}


HELD = {
    "dataset.name": "other", "model.name": "other", "objective.name": "other",
    "weighting.name": "other", "schedule.name": "other", "noise_law.name": "other",
    "optimizer.name": "other", "range": [0, 1], "seed": 7, "precision": "bf16",
    "train.batch": 7, "train.shuffle": False, "train.label_dropout": 0.7, "train.ema": 0.7,
    "train.lr_schedule": "other", "train.warmup": 7, "train.clip_grad": 7.0,
}  # fmt: skip
FREE = {"train.steps": 7, "train.save_every": 7, "devices": 7, "n": 7, "tracker.name": "other"}


def test_all_that_says_what_is_trained_is_held_and_nothing_else(trained):
    saved = OmegaConf.load(trained / "config.yaml")
    for key, value in (HELD | FREE).items():
        changed = saved.copy()
        OmegaConf.update(changed, key, value)
        held = any(key.startswith(found) for found in resuming._differences(changed, saved))
        assert held == (key in HELD), key


@pytest.mark.parametrize(("line", "words"), CHANGES.items(), ids=CHANGES.keys())
def test_what_a_training_is_about_cannot_change_in_the_middle(tiny, line, words, trained, diffuse):
    before = (trained / "run.json").read_text()
    message = diffuse.error(f"train {tiny} train.steps=6 resume=auto {line}")
    assert all(word in message for word in words), message
    assert (trained / "run.json").read_text() == before


def test_how_often_one_looks_may_change_and_changes_no_byte_of_what_is_trained(trained, diffuse):
    """Two copies go on, and one of them is looked at otherwise."""
    looked = trained.with_name("v002")
    shutil.copytree(trained, looked, symlinks=True)
    looks = "train.log_every=2 train.sample_every=5 train.eval_every=5 n=2 sampler=ddpm"
    assert diffuse.train("train.steps=6 resume=tiny/v001") == 0, diffuse.err
    assert diffuse.train(f"train.steps=6 resume=tiny/v002 {looks}") == 0, diffuse.err
    ours, theirs = what_is_left(trained), what_is_left(looked)
    for name in ("model", "ema", "optimizer"):
        assert ours[f"{name}.safetensors"] == theirs[f"{name}.safetensors"]
    scored = [[row["step"] for row in rows(run) if "fid" in row] for run in (trained, looked)]
    assert scored == [[2, 4, 6], [2, 4, 5, 6]]


def test_a_precision_that_was_measured_is_not_measured_again(trained, diffuse, monkeypatch):
    """Else a run would go on in another format, because the machine was busy when it was asked."""
    from diffuse import hardware

    monkeypatch.setattr(hardware, "_bf16_is_faster", lambda device: True)
    assert diffuse.train("train.steps=5 precision=auto resume=auto") == 0
    assert OmegaConf.load(trained / "config.yaml").precision == "fp32"
    assert diffuse.train("train.steps=1 precision=auto") == 0
    assert OmegaConf.load(trained.with_name("v002") / "config.yaml").precision == "bf16"


def test_minutes_stay_the_number_of_steps_they_once_became(diffuse, tmp_path, monkeypatch):
    speed = iter([0.05, 0.001])
    monkeypatch.setattr(preparing, "seconds_per_step", lambda *_: next(speed))
    with monkeypatch.context() as patch:
        patch.setattr(command, "fit", at_step(3, stop))
        assert diffuse.train("train.minutes=0.005") == 143
    assert diffuse.train("train.minutes=0.005 resume=auto") == 0
    facts = runs.read(tmp_path / RUN)
    assert (facts["steps"], facts["step"]) == (6, 6)


def test_a_run_that_another_process_trains_is_left_alone(tiny, trained, diffuse):
    facts = {**runs.read(trained), "status": "running", "pid": os.getppid()}
    runs.write_json(trained / "run.json", facts)
    message = diffuse.error(f"train {tiny} train.steps=6 resume=auto")
    assert "is being trained by another process" in message


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_process_that_is_told_to_stop_saves_and_can_be_continued(
    tiny, number, code, start, diffuse, tmp_path
):
    run = tmp_path / RUN
    log = run / "metrics.jsonl"
    line = "train.steps=1000000 train.sample_every=null train.save_every=null"
    process = start.train(f"{tiny} {line}")
    until(lambda: process.poll() is not None or (log.exists() and log.read_text().count("\n") > 5))
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert "Traceback" not in err
    facts = runs.read(run)
    assert facts["status"] == "stopped"
    assert checkpoints.steps(run / "checkpoints") == [facts["step"]]
    line = f"train.steps={facts['step'] + 2} train.sample_every=null resume=must"
    assert diffuse.train(f"{line} resume.allow=[train.steps]") == 0
    assert runs.read(run)["step"] == facts["step"] + 2


@pytest.mark.parametrize("resume", ["must", "tiny/v001"])
def test_a_run_whose_checkpoints_are_all_damaged_is_exit_3(resume, trained, diffuse, tiny):
    for manifest in trained.glob("checkpoints/step_*/MANIFEST.json"):
        manifest.write_text("{}")
    words = f"train {tiny} train.steps=6 resume={resume}"
    assert "all of its checkpoints are damaged" in diffuse.error(words, code=3)
