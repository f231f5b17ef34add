"""`run=`: a training, and a checkpoint of it."""

import shutil

import pytest

from diffuse import assembly, checkpoints, runs

LINE = "sample n=4 steps=2 device=cpu"


@pytest.mark.parametrize("ref", ["tiny@latest", "outputs/train/tiny/v001/checkpoints/latest"])
def test_the_latest_checkpoint_is_that_of_its_run(ref, trained, diffuse, tmp_path):
    facts = diffuse.json(f"{LINE} run={ref}")
    assert runs.read(tmp_path / facts["folder"])["weights"]["step"] == 4
    assert "say it once" in diffuse.error(f"{LINE} run={ref} checkpoint=2")


@pytest.mark.parametrize("ref", ["tiny", "tiny@4"])
def test_a_checkpoint_may_be_deleted_by_its_training_before_it_is_read(
    ref, trained, diffuse, monkeypatch
):
    older, newest = (checkpoints.at(trained / "checkpoints", step) for step in (2, 4))
    make = assembly.denoiser

    def slow(*args):
        shutil.rmtree(newest, ignore_errors=True)
        return make(*args)

    monkeypatch.setattr(assembly, "denoiser", slow)
    if ref == "tiny":
        assert diffuse.json(f"{LINE} run={ref}")["weights"]["step"] == 2
    else:
        said = diffuse.error(f"{LINE} run={ref}", code=3)
        assert f"{newest.name} is gone: the training that goes on has deleted it" in said
    assert older.exists()


def test_an_evaluation_is_filed_under_its_run_and_known_on_whatever_device_it_was(trained, diffuse):
    """`auto` is the CPU here; in a sweep it becomes cuda:0, cuda:1, ... by turns."""
    line = "eval n=8 steps=2 metrics=fid encoder=pixels known=true dataset=digits dataset.subset=64"
    first = diffuse.json(f"{line} device=cpu")["folder"]
    assert first == "outputs/eval/tiny/v001"
    assert diffuse.json(f"{line} device=auto")["folder"] == first
