"""What may be another when a run goes on, what may not, and what is said of it."""

import json

import pytest
from leftovers import begin_with

from diffuse import checkpoints, hardware, runs


@pytest.fixture
def stopped(diffuse, trained):
    """A run that was begun for 8 steps and has done 4 of them."""
    begin_with(trained, "  steps: 4\n", "  steps: 8\n")
    return trained


def test_fewer_steps_than_it_was_begun_for_are_another_training(stopped, diffuse, tiny):
    line = f"train {tiny} resume=auto train.steps=6"
    assert "train.steps: 8 there, only 6 here" in diffuse.error(line)
    assert diffuse(f"{line} resume.allow=[train.steps]") == 0, diffuse.err
    assert runs.read(stopped)["step"] == 6


@pytest.mark.parametrize("word", ["train.images=119", "train.epochs=1.8"])
def test_a_length_of_images_that_makes_fewer_steps_is_refused_too(word, stopped, diffuse, tiny):
    said = diffuse.error(f"train {tiny} resume=auto {word}")
    assert "train.steps: 8 there, only 7 here" in said
    assert runs.read(stopped)["step"] == 4


@pytest.mark.parametrize(
    "word", ["train.steps=8", "train.images=122", "train.epochs=1.9", "train.steps=9"]
)
def test_as_many_or_more_are_the_same_one(word, stopped, diffuse):
    assert diffuse.train(f"resume=auto {word}") == 0, diffuse.err
    assert runs.read(stopped)["step"] == (9 if word.endswith("steps=9") else 8)


def test_a_run_that_goes_on_cannot_begin_with_other_weights(trained, diffuse, tiny):
    more = f"train {tiny} train.steps=6"
    said = diffuse.error(f"{more} resume=auto init_from=nowhere")
    assert "(init_from: null there, nowhere here)" in said
    assert diffuse(f"{more} name=second init_from=tiny") == 0, diffuse.err
    for word in ("", "init_from=tiny"):  # what it began with, said again or not
        assert diffuse(f"{more} name=second resume=must {word} train.steps=7") == 0, diffuse.err
    config = (trained.parents[1] / "second/v001/config.yaml").read_text()
    assert "init_from: tiny\n" in config


def test_an_optimizer_that_cannot_go_on_with_what_is_saved_is_refused_before_anything_is_written(
    trained, diffuse, tiny
):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    line = f"train {tiny} train.steps=6 resume=auto"
    said = diffuse.error(f"{line} +optimizer.amsgrad=true resume.allow=[optimizer.amsgrad]")
    assert "does not fit this config" in said
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before
    assert diffuse(line) == 0, diffuse.err


def test_an_optimizer_that_asks_for_the_loss_again_and_again_is_refused(diffuse, tiny, tmp_path):
    line = f"train {tiny} train.steps=2 optimizer.name=LBFGS"
    less = " ".join(f"~optimizer.{key}" for key in ("betas", "eps", "weight_decay"))
    assert "LBFGS asks for the loss several times a step" in diffuse.error(f"{line} {less}")
    assert not list((tmp_path / "outputs").glob("train/*"))


def test_the_reason_of_an_earlier_end_goes_with_it(trained, diffuse):
    facts = runs.read(trained) | {"status": "stopped", "reason": "signal 15"}
    (trained / "run.json").write_text(json.dumps(facts))
    assert diffuse.train("train.steps=6 resume=auto") == 0
    assert "reason" not in runs.read(trained)


def test_another_device_is_a_warning_and_in_the_record(trained, diffuse, monkeypatch):
    assert diffuse.train("train.steps=6 resume=auto") == 0
    assert "last bits" not in diffuse.err
    assert "resumed" not in runs.read(trained)
    here = hardware.describe
    monkeypatch.setattr(hardware, "describe", lambda device: f"{here(device)}, another")
    assert diffuse.train("train.steps=8 resume=auto") == 0
    assert diffuse.err.count("what is trained now may differ in last bits") == 1
    [there] = runs.read(trained)["resumed"]
    assert (there["step"], there["device"][-9:]) == (6, ", another")
    assert {"torch", "diffuse"} <= there["versions"].keys()
    assert diffuse.train("train.steps=10 resume=auto") == 0  # the same as the last time
    assert len(runs.read(trained)["resumed"]) == 1


def test_so_is_another_torch(trained, diffuse):
    facts = runs.read(trained)
    here = facts["versions"]["torch"]
    facts["versions"]["torch"] = "2.9"
    runs.write_json(trained / "run.json", facts)
    assert diffuse.train("train.steps=5 resume=auto") == 0
    assert diffuse.err.count(f"torch 2.9 there, {here} here: what is trained now may differ") == 1
    [there] = runs.read(trained)["resumed"]
    assert (there["step"], there["versions"]["torch"]) == (4, here)


def test_what_killed_processes_have_begun_to_write_is_tidied_away(trained, diffuse):
    from diffuse import files

    own = files._beside(trained / "run.json").name
    dead = own[: own.rindex("-")] + "-999999999"
    strange = trained / "checkpoints/.tmp-somebody"
    for path in (trained / dead, trained / "samples" / dead, strange):
        path.write_text("{")
    assert diffuse.train("train.steps=6 resume=auto") == 0, diffuse.err
    assert not [*trained.rglob("*-999999999")]
    assert strange.exists()  # nobody's
    assert checkpoints.newest(trained / "checkpoints").name == "step_00000006"
