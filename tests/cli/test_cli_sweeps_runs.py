"""`run=` with `--multirun`: a sweep of trainings means its jobs. And what a job says was typed."""

from pathlib import Path

import pytest

from diffuse import cli, runs


@pytest.fixture
def trainings(tmp_path):
    """Sweeps of three and of two, in two places, and a run."""
    folders = [tmp_path / f"outputs/train/abl/v001/{k}" for k in range(3)]
    folders += [tmp_path / f"my runs/train/abl/v001/{k}" for k in range(2)]
    for folder in (*folders, tmp_path / "outputs/train/one/v001"):
        folder.mkdir(parents=True)
        runs.write_json(folder / "run.json", {"status": "done"})


ALL = [f"abl/v001/{k}" for k in range(3)]
MEANT = {
    "run=abl/v001": ALL,
    "run=abl": ALL,
    "run=outputs/train/abl/v001": ALL,
    "run=abl/v001@500": [f"{run}@500" for run in ALL],
    "run=one,abl": ["one", *ALL],
    "run=abl/v001/3": ["abl/v001/3"],
    "run=nowhere,one": ["nowhere", "one"],
}


@pytest.mark.parametrize("words", MEANT)
def test_a_sweep_that_is_named_means_all_of_its_jobs(words, trainings, command):
    assert cli.main(["sample" if "one" in words else "eval", "--multirun", words]) == 0
    assert [cfg.run for cfg, _ in command.calls] == MEANT[words]


def test_the_jobs_are_combined_with_what_else_is_swept_over_in_the_order_typed(trainings, command):
    line = ["eval", "-m", "steps=2,3", "run=abl", "outputs=my runs", "name=mine"]
    assert cli.main(line) == 0
    found = [(cfg.steps, cfg.run) for cfg, _ in command.calls]
    assert found == [(n, f"abl/v001/{k}") for n in (2, 3) for k in range(2)]
    assert command.job.folder == Path("my runs/eval/mine/v001/3")


def test_a_path_with_spaces_is_expanded_too(trainings, command):
    assert cli.main(["eval", "-m", "run=my runs/train/abl/v001"]) == 0
    assert [cfg.run for cfg, _ in command.calls] == [f"my runs/train/abl/v001/{k}" for k in "01"]


def test_a_sweep_that_was_named_after_its_images_means_its_jobs(trainings, command, tmp_path):
    (tmp_path / "outputs/train/abl").rename(tmp_path / "outputs/train/Früchte-sweep")
    assert cli.main(["eval", "-m", "run=Früchte-sweep/v001"]) == 0
    assert [cfg.run for cfg, _ in command.calls] == [f"Früchte-sweep/v001/{k}" for k in range(3)]


def test_so_it_does_beside_runs_with_commas_in_their_names(trainings, command):
    assert cli.main(["eval", "-m", "run='a,b',abl/v001"]) == 0
    assert [cfg.run for cfg, _ in command.calls] == ["a,b", *(f"abl/v001/{k}" for k in range(3))]


def test_what_was_quoted_is_left_alone(trainings, command):
    assert cli.main(["eval", "-m", "run='abl/v001'", "steps=2,3"]) == 0
    assert [cfg.run for cfg, _ in command.calls] == ["abl/v001"] * 2


@pytest.mark.parametrize(
    ("word", "runs"),
    [
        ("Früchte,my runs/a (1)", ["Früchte", "my runs/a (1)"]),
        ("'a,b',c", ["a,b", "c"]),
        ("choice(a,b)", ["a", "b"]),
        ("bob's,b", ["bob's", "b"]),
        ("b,bob's", ["b", "bob's"]),
    ],
)
def test_each_of_several_runs_may_be_called_anything(word, runs, command):
    assert cli.main(["eval", "-m", f"run={word}"]) == 0
    assert [cfg.run for cfg, _ in command.calls] == runs


@pytest.mark.parametrize(
    ("line", "typed"),
    [
        ("sample -m nfe=5,10", [["nfe=5"], ["nfe=10"]]),
        ("train -m train.steps=5 seed=1,2", [["train.steps=5", f"seed={k}"] for k in (1, 2)]),
    ],
)
def test_a_job_is_told_what_was_typed_and_not_what_follows_from_it(line, typed, command):
    assert cli.main(line.split()) == 0
    assert [job.overrides for _, job in command.calls] == typed
