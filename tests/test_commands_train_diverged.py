"""`diffuse train` when a loss is not finite, or when there is no memory."""

import json

import pytest
import torch
from leftovers import RUN, at_step, rows, stop
from leftovers import what_is_left as left

from diffuse import checkpoints, runs
from diffuse import training as room
from diffuse.commands.training import loop as command
from diffuse.denoiser import Denoiser
from diffuse.errors import DivergedError, NoSpaceError
from diffuse.training import batch_indices

LINE = "train.steps=8 train.save_every=2 train.sample_every=4 model.dropout=0.1"


@pytest.fixture
def run(tmp_path):
    return tmp_path / RUN


def test_stop_is_exit_4_with_a_diagnosis_and_the_last_good_checkpoint(diffuse, run, poison):
    poison({5})
    assert diffuse.train(LINE) == 4
    assert diffuse.err.splitlines()[-1].startswith("error: step 5: loss nan")
    assert (runs.read(run)["status"], runs.read(run)["step"]) == ("diverged", 4)
    checkpoints.verify(checkpoints.at(run / "checkpoints", 4))
    assert checkpoints.steps(run / "checkpoints") == [2, 4]
    facts = json.loads((run / "diverged.json").read_text())
    assert (facts["step"], facts["loss"], facts["grad_norm"]) == (5, "nan", "nan")
    assert facts["images"] == batch_indices(5, 64, _recipe()).tolist()
    assert 0 < facts["lr"] < 1
    assert facts["weight_norms"].keys() == facts["grad_norms"].keys()


def test_a_diagnosis_without_room_is_one_warning_and_still_exit_4(
    diffuse, run, poison, monkeypatch
):
    write = runs.write_json

    def full(path, value):
        if path.name == "diverged.json":
            raise NoSpaceError(f"no space for {path} (999 bytes)")
        write(path, value)

    monkeypatch.setattr(runs, "write_json", full)
    poison({5})
    assert diffuse.train(LINE) == 4
    assert diffuse.err.count("no diagnosis: no space for outputs") == 1
    assert diffuse.err.splitlines()[-1].startswith("error: step 5: loss nan")
    assert runs.read(run)["status"] == "diverged"


LOOKS = {
    "images that diverge": DivergedError("the images diverge"),
    "no memory": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
}


@pytest.mark.parametrize("kind", LOOKS)
@pytest.mark.parametrize("look", ["samples", "score"])
def test_what_cannot_be_looked_at_is_trained_on(kind, look, diffuse, run, monkeypatch):
    def fails(*_):
        raise LOOKS[kind]

    scored = "train.eval_every=4 train.eval_n=8 encoder=pixels"
    with monkeypatch.context() as patch:
        patch.setattr(command.Checkup, look, fails)
        assert diffuse.train(f"{LINE} {scored}") == 0, diffuse.err
    what = "no samples" if look == "samples" else "no quick FID"
    assert f"warning: {what} of step 4: {LOOKS[kind]}" in diffuse.err
    assert (runs.read(run)["status"], runs.read(run)["step"]) == ("done", 8)
    assert diffuse.train(f"{LINE} {scored} name=whole") == 0
    lost = {"metrics.jsonl", "latest.png"}
    ours, theirs = (left(path) for path in (run, _whole(run)))
    for name in theirs.keys() - lost:
        assert ours[name] == theirs[name], name
    key = "test_loss" if look == "samples" else "fid"
    assert rows(run) == [row for row in rows(_whole(run)) if key not in row]


def _whole(run):
    return run.parents[1] / "whole/v001"


def test_any_other_error_in_a_look_ends_the_training(diffuse, run, monkeypatch):
    def fails(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(command.Checkup, "samples", fails)
    assert diffuse.train(LINE) == 1
    assert runs.read(run)["status"] == "failed"


def _recipe():
    return room.Recipe(
        steps=8, batch=16, lr_schedule="cosine", warmup=2, clip_grad=1.0,
        label_dropout=0.1, shuffle=True, range=(-1.0, 1.0), seed=0,
    )  # fmt: skip


def test_skip_is_one_line_for_each_step_and_a_number_in_the_record(diffuse, run, poison):
    poison({3, 6})
    assert diffuse.train(f"{LINE} train.on_nan=skip") == 0
    assert [line for line in diffuse.err.splitlines() if "left out" in line] == [
        line for line in diffuse.err.splitlines() if line.startswith("warning: step ")
    ]
    assert diffuse.err.count("left out, no weight was changed") == 2
    facts = runs.read(run)
    assert (facts["status"], facts["skipped"], facts["step"]) == ("done", 2, 8)
    lines = {row["step"]: row for row in rows(run) if "lr" in row}
    assert sorted(lines) == list(range(1, 9))
    assert [step for step in lines if "loss" not in lines[step]] == [3, 6]
    why = json.loads((run / "diverged.json").read_text())
    assert (why["step"], len(why["images"]), len(why["sigmas"])) == (6, 16, 16)


def test_skip_gives_up_if_nothing_else_happens_any_more(diffuse, run, poison):
    poison(set(range(3, 99)))
    assert diffuse.train(f"{LINE} train.steps=20 train.on_nan=skip") == 4
    assert "10 steps in a row; the last good step was 2" in diffuse.err
    assert json.loads((run / "diverged.json").read_text())["step"] == 12


def test_rollback_goes_on_from_the_last_checkpoint_with_other_draws(diffuse, run, poison):
    assert diffuse.train(LINE) == 0
    plain, run = run, run.with_name("v002")
    poison({6})
    assert diffuse.train(f"{LINE} train.on_nan=rollback") == 0
    assert "back to step 4, rollback 1 of 3" in diffuse.err
    facts = runs.read(run)
    assert (facts["status"], facts["rollbacks"], facts["step"]) == ("done", 1, 8)
    losses, others = ([row["loss"] for row in rows(r) if "loss" in row] for r in (plain, run))
    assert len(losses) == len(others) == 8
    assert losses[:4] == others[:4]
    assert not set(losses[4:]) & set(others[4:])
    assert diffuse.train(f"{LINE} train.on_nan=rollback") == 0
    assert left(run.with_name("v003")) == left(run) != left(plain)


@pytest.mark.slow
@pytest.mark.parametrize("step", [5, 6, 7])
def test_a_training_that_rolled_back_and_was_stopped_ends_with_the_same_bytes(
    step, diffuse, run, poison, monkeypatch
):
    poison({6})
    line = f"{LINE} train.on_nan=rollback"
    assert diffuse.train(line) == 0
    run = run.with_name("v002")
    with monkeypatch.context() as patch:
        patch.setattr(command, "fit", at_step(step, stop, lambda training, *_: training.rollbacks))
        assert diffuse.train(line) == 143
    assert diffuse.train(f"{line} resume=must") == 0
    assert left(run) == left(run.with_name("v001"))


def test_neither_a_stop_nor_a_look_changes_where_a_rollback_goes_to(
    diffuse, run, poison, monkeypatch
):
    """Both save a checkpoint of step 5; with keep=1 it even replaces the one of step 4."""
    poison({6})
    line = f"{LINE} train.save_every=4 train.keep=1 train.on_nan=rollback"
    looks = "train.eval_every=5 train.eval_n=8 encoder=pixels"
    assert diffuse.train(line) == 0
    assert "back to step 4, rollback 1 of 3" in diffuse.err
    assert diffuse.train(f"{line} {looks}") == 0
    looked = run.with_name("v002")
    assert [row["step"] for row in rows(looked) if "fid" in row] == [5, 8]  # the best one so far
    with monkeypatch.context() as patch:
        patch.setattr(command, "fit", at_step(5, stop, lambda training, *_: not training.rollbacks))
        assert diffuse.train(line) == 143
    stopped = run.with_name("v003")
    assert checkpoints.steps(stopped / "checkpoints") == [4, 5]
    assert diffuse.train(f"{line} resume=must") == 0
    assert left(stopped) == left(run)
    whole = {name: content for name, content in left(run).items() if name.endswith("tensors")}
    assert whole.items() <= left(looked).items()


@pytest.mark.parametrize(
    ("steps", "words"),
    [({6}, r"(3 rollbacks)"), ({1}, r"(no checkpoint to go back to)")],
)
def test_rollback_ends_too(steps, words, diffuse, run, poison):
    poison(steps, times=99)
    assert diffuse.train(f"{LINE} train.on_nan=rollback") == 4
    assert diffuse.err.splitlines()[-1].startswith("error: step ")
    assert diffuse.err.splitlines()[-1].endswith(words)
    assert runs.read(run)["status"] == "diverged"
    assert (run / "diverged.json").exists()


@pytest.mark.slow
def test_without_memory_the_line_that_is_named_trains(tiny, diffuse, run, monkeypatch):
    real = Denoiser.loss

    def loss(self, x0, *rest):
        if len(x0) > 5:
            torch.empty(2**50)
        return real(self, x0, *rest)

    monkeypatch.setattr(Denoiser, "loss", loss)
    line = "train.steps=2 train.sample_every=null"
    message = diffuse.error(f"train {tiny} {line}", code=1)
    assert "out of memory with 16 images at once" in message
    assert "train.micro_batch=4 fits" in message
    assert runs.read(run)["status"] == "failed"
    assert diffuse.train(f"{line} train.micro_batch=4") == 0


def test_the_record_has_the_peak_of_memory_from_the_first_checkpoint_on(diffuse, run, poison):
    poison({5})
    assert diffuse.train(LINE) == 4
    assert 2**20 < runs.read(run)["memory"] < 2**40
    assert "peak memory" in (run / "log.txt").read_text()


@pytest.mark.slow
def test_a_batch_in_parts_is_continued_to_the_same_bytes(diffuse, run, monkeypatch):
    line = f"{LINE} train.micro_batch=4"
    assert diffuse.train(line) == 0
    with monkeypatch.context() as patch:
        patch.setattr(command, "fit", at_step(5, stop))
        assert diffuse.train(line) == 143
    assert diffuse.train(f"{line} resume=must") == 0
    assert left(run.with_name("v002")) == left(run)
