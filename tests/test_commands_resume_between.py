"""What happened to a run since it was stopped, or since somebody looked at it, costs little."""

import pytest
from injected import forked
from leftovers import RUN, at_step, stop

from diffuse import checkpoints, cli, runs
from diffuse.commands import train
from diffuse.commands.training import loop as command
from diffuse.errors import DataError


def test_a_run_that_another_process_has_trained_meanwhile_is_refused_as_it_is(
    tiny, trained, diffuse, monkeypatch
):
    """It looked at step 4, and would go on from there: the rows of later steps would be gone."""
    line, real, before = f"train {tiny} train.steps=6 resume=auto", train.prepare, {}

    def prepare(*args):
        work = real(*args)
        monkeypatch.setattr(train, "prepare", real)
        assert forked(lambda: cli.main(line.split())) == 0
        before.update({path: path.read_bytes() for path in trained.rglob("*") if path.is_file()})
        return work

    monkeypatch.setattr(train, "prepare", prepare)
    message = diffuse.error(line)
    assert message.startswith(f"resume: another process has trained {RUN} meanwhile")
    assert {p: p.read_bytes() for p in trained.rglob("*") if p.is_file()} == before
    assert (runs.read(trained)["status"], runs.read(trained)["step"]) == ("done", 6)
    assert diffuse(line.replace("steps=6", "steps=7")) == 0, diffuse.err


def is_whole(checkpoint):
    try:
        checkpoints.verify(checkpoint)
    except DataError:
        return False
    return True


def test_damaged_checkpoints_do_not_count_as_kept(diffuse, tmp_path, monkeypatch):
    line, folder = "train.steps=9 train.save_every=1 resume=auto", tmp_path / RUN / "checkpoints"

    def whole():
        there = checkpoints.steps(folder)
        return [step for step in there if is_whole(checkpoints.at(folder, step))]

    assert diffuse.train(f"{line} train.keep=9") == 0
    for step in range(5, 10):
        (checkpoints.at(folder, step) / "model.safetensors").write_bytes(b"")
    with monkeypatch.context() as patch:
        patch.setattr(command, "fit", at_step(5, stop))
        assert diffuse.train(f"{line} train.keep=3") == 143
    assert whole() == checkpoints.steps(folder) == [3, 4, 5]
    assert diffuse.train(f"{line} train.keep=3") == 0
    assert whole() == checkpoints.steps(folder) == [7, 8, 9]


WRONG = [
    ("pid", "12"), ("pid", None), ("seconds", "12"), ("best", "step 4"), ("best", {"stop": 4}),
    ("best", {"step": "4", "fid": 1.0}), ("best", {"step": 4, "fid": "1"}),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_run_json_with_one_damaged_value_costs_nothing(key, value, trained, diffuse):
    facts = runs.read(trained) | {key: value}
    if key == "pid":  # which counts only where somebody may be training
        facts["status"] = "running"
    runs.write_json(trained / "run.json", facts)
    line = "train.steps=6 train.eval_every=2 train.eval_n=16 resume=auto"
    assert diffuse.train(line) == 0, diffuse.err
    after = runs.read(trained)
    assert (after["status"], after["step"]) == ("done", 6)
    assert key == "pid" or after["best"]["step"] == 6


def test_nor_does_one_whose_key_is_damaged(trained, diffuse):
    facts = runs.read(trained) | {"status": "running"}
    facts["pie"] = facts.pop("pid")
    runs.write_json(trained / "run.json", facts)
    assert diffuse.train("train.steps=6 resume=auto") == 0, diffuse.err
    assert (runs.read(trained)["status"], runs.read(trained)["step"]) == ("done", 6)
