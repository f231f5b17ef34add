"""What a word means that names trainings, evaluations or sweeps of either."""

import json
import logging

import pytest

from diffuse import runs
from diffuse.commands.evaluating import evaluated
from diffuse.errors import ConfigError


def plant(folder, verb, of=None, checkpoint=True, number=0):
    """A training, or an evaluation of one, as far as it has to be found."""
    folder.mkdir(parents=True)
    facts = {"command": verb, "started": f"2025-01-01T00:00:{number:02d}", "status": "done"}
    runs.write_json(folder / "run.json", facts | ({"weights": {"run": str(of)}} if of else {}))
    if verb == "eval" and of:
        (folder / "record.json").write_text("{}")
    if verb == "train" and checkpoint:
        (folder / "checkpoints/step_00000001").mkdir(parents=True)
    return folder


@pytest.fixture
def outputs(tmp_path):
    return tmp_path / "outputs"


@pytest.fixture
def trainings(outputs):
    """A sweep of three."""
    return [plant(outputs / f"train/abl/v001/{k}", "train") for k in range(3)]


def swept(outputs, trainings, name="eval-sweep", broken=()):
    sweep = outputs / f"eval/{name}/v001"
    found = [
        plant(sweep / str(k), "eval", run, number=k)
        for k, run in enumerate(trainings)
        if k not in broken
    ]
    (sweep / "sweep.json").write_text(json.dumps({"jobs": [[] for _ in trainings]}))
    return found


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def test_a_sweep_of_trainings_is_the_newest_evaluation_of_each(outputs, trainings, caplog):
    found = swept(outputs, trainings)
    newer = plant(outputs / "eval/new/v001", "eval", trainings[1], number=9)
    for ref in ("abl", "abl/v001", str(outputs / "train/abl/v001")):
        assert evaluated.find(outputs, ref, False) == [found[0], newer, found[2]]
    assert warnings(caplog) == []


def test_an_evaluation_of_exactly_this_name_goes_before_a_sweep_of_trainings(
    outputs, trainings, caplog
):
    swept(outputs, trainings)
    own = plant(outputs / "eval/abl/v001", "eval", trainings[0], number=9)
    for ref in ("abl/v001", "abl"):
        caplog.clear()
        assert evaluated.find(outputs, ref, False) == [own]
        [said] = warnings(caplog)
        assert f"{ref} is the evaluation of this name, of {trainings[0]}, not of" in said
        assert said.endswith(f"{outputs / 'train' / ref} (say this path for those)")
    assert len(evaluated.find(outputs, str(outputs / "train/abl/v001"), False)) == 3


def test_a_sweep_of_evaluations_goes_first_too_and_of_the_same_trainings_nothing_is_said(
    outputs, trainings, caplog
):
    found = swept(outputs, trainings, "abl")
    assert evaluated.find(outputs, "abl/v001", False) == found
    assert warnings(caplog) == []
    other = plant(outputs / "train/other/v001", "train")
    plant(outputs / "train/mixed/v001", "train")
    mixed = swept(outputs, [other, trainings[0]], "mixed")
    assert evaluated.find(outputs, "mixed/v001", False) == mixed
    [said] = warnings(caplog)
    assert "mixed/v001 is the sweep of evaluations of this name, of" in said


def test_of_a_sweep_of_evaluations_what_failed_is_left_out_with_a_word(outputs, trainings, caplog):
    found = swept(outputs, trainings, broken=[1])
    plant(outputs / "eval/eval-sweep/v001/1", "eval")  # began, and failed
    sweep = outputs / "eval/eval-sweep/v001"
    assert evaluated.find(outputs, "eval-sweep/v001", False) == found
    [said] = warnings(caplog)
    assert f"{sweep}: job 1 failed or did not run, and the others are compared" in said
    assert f"with resume={sweep} do what is missing" in said
    with pytest.raises(ConfigError, match=r"v001/1 failed or is not done: it has no record\.json"):
        evaluated.find(outputs, str(sweep / "1"), False)


def test_of_a_sweep_whose_other_jobs_never_began_that_is_said_too(outputs, trainings, caplog):
    found = swept(outputs, trainings, broken=[0, 2])
    assert evaluated.find(outputs, "eval-sweep", False) == found
    assert "jobs 0, 2 failed or did not run" in warnings(caplog)[0]


@pytest.mark.parametrize(
    ("done", "line"),
    [
        (
            [],
            "3 of the 3 jobs of abl/v001 were not evaluated: diffuse eval --multirun run=abl/v001",
        ),
        ([1], "2 of the 3 .*: diffuse eval --multirun run=abl/v001/0,abl/v001/2"),
        ([0, 1], "abl/v001/2 was not evaluated: diffuse eval run=abl/v001/2"),
    ],
)
def test_trainings_that_were_not_evaluated_are_listed_to_be_copied(done, line, outputs, trainings):
    for k in done:
        plant(outputs / f"eval/abl-{k}/v001", "eval", trainings[k])
    with pytest.raises(ConfigError, match=f"{line}$"):
        evaluated.find(outputs, "abl/v001", False)


def test_a_training_that_left_nothing_to_evaluate_is_left_out(outputs, trainings, caplog):
    failed = plant(outputs / "train/abl/v001/3", "train", checkpoint=False)
    found = swept(outputs, trainings)
    assert evaluated.find(outputs, "abl/v001", False) == found
    assert warnings(caplog) == [f"{failed} has no checkpoint, and the others are compared"]
