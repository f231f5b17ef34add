"""`--multirun`: a folder for each job, all of them run, nothing claimed in vain."""

import json
import os
import signal
from pathlib import Path

import pytest

from diffuse import cli
from diffuse.commands import VERBS
from diffuse.interrupts import Interrupts


def test_every_job_of_a_sweep_runs_in_its_own_folder_even_if_one_fails(command, capsys, tmp_path):
    def answer(cfg, job):
        if cfg.seed == 1:
            raise ValueError("boom")

    command.answer = answer
    assert cli.main(["train", "seed=1,2", "-m", "schedule=linear,cosine"]) == 1
    err = capsys.readouterr().err
    claimed = Path("outputs/train/fashion_mnist-sweep/v001")
    assert [job.folder for _, job in command.calls] == [claimed / str(k) for k in range(4)]
    found = [(cfg.seed, job.choices["schedule"]) for cfg, job in command.calls]
    assert found == [(1, "linear"), (1, "cosine"), (2, "linear"), (2, "cosine")]
    assert "seed=2" in command.job.overrides
    last = err.splitlines()[-2:]
    assert "job 0 failed (seed=1 schedule=linear): unexpected ValueError: boom" in last[0]
    assert "job 1 failed" in last[1]
    outside = [path for path in tmp_path.rglob("*.yaml") if claimed.name not in path.parts]
    assert outside == []


@pytest.mark.slow
@pytest.mark.parametrize("dry", [False, True])
def test_json_of_a_sweep_is_one_list_with_what_each_job_says(dry, command, capsys):
    def answer(cfg, job):
        if cfg.seed == 2:
            raise ValueError("boom")
        print(json.dumps({"seed": cfg.seed}))

    command.answer = answer
    line = ["train", "-m", "seed=1,2,3", "--json", *(["dry_run=true"] if dry else [])]
    assert cli.main(line) == 1
    found = json.loads(capsys.readouterr().out)
    assert [one["result"] for one in found] == [{"seed": 1}, None, {"seed": 3}]
    assert [one["job"] for one in found] == ["seed=1", "seed=2", "seed=3"]
    assert [one["code"] for one in found] == [0, 1, 0]
    assert [bool(one["error"]) for one in found] == [False, True, False]
    assert (command.left_behind() == []) == dry


@pytest.mark.slow
def test_two_sweeps_never_share_a_folder_and_a_typed_name_names_it(command):
    for version in ("v001", "v002"):
        assert cli.main(["sample", "-m", "n=1,2", "name=mine"]) == 0
        assert command.job.folder == Path("outputs/sample/mine") / version / "1"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train -m seed=1,2 schedul=cosine", "unknown key 'schedul'"),
        ("train -m schedule=cosine,liner", "unknown choice 'liner'; did you mean 'linear'?"),
        ("train -m n=3,0", "n must be at least 1, got 0 (in the job n=0)"),
        ("train -m seed=1,2 name=a/b", "name: 'a/b' will not do"),
        ("train -m seed=[1", "cannot read"),
    ],
)
def test_a_mistake_in_a_sweep_is_found_before_a_folder_is_claimed(line, words, command):
    assert words in command.error(line)
    assert command.calls == []
    assert command.left_behind() == []


def test_a_dry_sweep_writes_nothing(command):
    assert cli.main(["train", "-m", "seed=1,2", "dry_run=true"]) == 0
    assert [cfg.seed for cfg, _ in command.calls] == [1, 2]
    assert command.left_behind() == []


def test_ctrl_c_ends_a_sweep(command):
    command.raises(KeyboardInterrupt())
    assert cli.main(["train", "-m", "seed=1,2"]) == 130
    command.answer = lambda cfg, job: 143
    assert cli.main(["train", "-m", "seed=1,2"]) == 143
    assert len(command.calls) == 2


def test_a_signal_that_finds_a_job_done_ends_the_sweep_after_it(command):
    def answer(cfg, job):
        with Interrupts():  # as a training's, whose loop is over
            os.kill(os.getpid(), signal.SIGTERM)
        return 0

    command.answer = answer
    assert cli.main(["train", "-m", "seed=1,2"]) == 143
    assert len(command.calls) == 1
    command.answer = lambda cfg, job: 0
    assert cli.main(["train", "-m", "seed=1,2"]) == 0


def test_under_torchrun_a_sweep_is_refused(command, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert "not under torchrun" in command.error("train -m seed=1,2")
    assert command.left_behind() == []


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "train"])
def test_under_torchrun_only_trainings_start(verb, command, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = command.error(verb)
    assert message.startswith(f"torchrun starts trainings only; {verb} ")
    assert ("devices=N" in message) == (verb in ("sample", "eval", "pareto"))
    assert command.calls == []
    assert cli.main(["train"]) == 0
    monkeypatch.setenv("WORLD_SIZE", "1")  # what a scheduler may set for one process
    assert cli.main([verb]) == 0
