"""Jobs of a sweep in other processes: as Hydra's launchers call them."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from hydra.core.config_store import ConfigStore
from places import ROOT

from diffuse import cli, runs
from diffuse.cli import complaints, sweep_jobs, sweeping


@pytest.fixture
def workers(monkeypatch):
    """Processes that find this tree, and share two cores."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return "hydra/launcher=joblib hydra.launcher.n_jobs=2"


@pytest.mark.slow
def test_jobs_in_other_processes_find_their_folders_and_report_what_failed(
    trained, diffuse, workers
):
    line = f"sample -m run=tiny,nowhere,tiny n=4 steps=2 name=par {workers}"
    assert diffuse(line) == 1
    sweep = Path("outputs/sample/par/v001")
    assert [runs.is_done(sweep / k) for k in "012"] == [True, False, True]
    assert runs.read(sweep / "2")["name"] == "par"
    log = (sweep / "1/log.txt").read_text()
    assert log.startswith("Traceback (most recent call last):")
    assert "no run 'nowhere'" in log
    assert "job 1 failed (run=nowhere): run: no run 'nowhere'" in diffuse.err
    assert "job 0 failed" not in diffuse.err
    assert [line.split()[0] for line in diffuse.out.splitlines() if "run=" in line] == ["0:", "2:"]
    assert json.loads((sweep / "1/job.json").read_text())["code"] == 2


@pytest.mark.slow
def test_submitit_runs_jobs_here_as_it_does_on_a_cluster(trained, diffuse, workers):
    line = "sample -m run=tiny,nowhere n=4 steps=2 name=par hydra/launcher=submitit_local"
    assert diffuse(line) == 1
    sweep = Path("outputs/sample/par/v001")
    assert [runs.is_done(sweep / k) for k in "01"] == [True, False]
    assert "job 1 failed (run=nowhere): run: no run 'nowhere'" in diffuse.err
    assert list(sweep.glob(".submitit/*/*.out"))


@pytest.mark.slow
def test_optuna_chooses_jobs_and_writes_down_the_best(tiny, diffuse):
    search = "hydra/sweeper=optuna hydra.sweeper.n_trials=3 hydra.sweeper.n_jobs=1 name=found"
    line = f"train {tiny} -m {search} train.steps=2 optimizer.lr=interval(0.001,0.01)"
    assert diffuse(line) == 0, diffuse.err
    sweep = Path("outputs/train/found/v001")
    assert [runs.is_done(sweep / k) for k in "012"] == [True] * 3
    losses = [runs.read(sweep / k)["test_loss"] for k in "012"]
    best = yaml.safe_load((sweep / "optimization_results.yaml").read_text())
    assert best["best_value"] == pytest.approx(min(losses))


@pytest.mark.slow
def test_a_job_whose_process_was_killed_is_listed(tmp_path, diffuse, tiny, workers):
    """As the kernel does when memory is short; `trust` lets the job do it to itself."""
    (tmp_path / "suicidal.py").write_text(
        "import os, signal\n\n\ndef tracker():\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    line = f"train {tiny} -m train.steps=1 seed=1,2 trust=suicidal tracker.name=suicidal:tracker"
    assert diffuse(f"{line} {workers}") == 1
    assert "job 0 failed (seed=1): it never said how it ended" in diffuse.err
    assert "job 1 failed (seed=2): it never said how it ended" in diffuse.err


def test_a_launcher_that_is_not_installed_is_one_line_that_says_what_is(command, monkeypatch):
    monkeypatch.setitem(complaints.EXTRAS, ("hydra/launcher", "far_away"), "slurm")
    message = command.error("train -m seed=1,2 hydra/launcher=far_away")
    assert message == "hydra/launcher: far_away is not installed; pip install 'diffuse-lab[slurm]'"
    assert "did you mean 'joblib'?" in command.error("train -m seed=1,2 hydra/launcher=jobli")
    assert command.left_behind() == []


@pytest.mark.parametrize("word", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"])
def test_a_launcher_without_a_sweep_is_refused(word, command):
    assert "goes with --multirun only" in command.error(f"train {word}")


@pytest.mark.slow
def test_a_dry_sweep_needs_no_launcher(command):
    """The jobs' plans are printed here, not in other processes."""
    line = "train -m seed=1,2 dry_run=true hydra/launcher=joblib hydra.launcher.n_jobs=2"
    assert cli.main(line.split()) == 0
    assert [cfg.seed for cfg, _ in command.calls] == [1, 2]
    assert command.left_behind() == []


def test_a_job_that_its_launcher_takes_away_says_nothing(command):
    """submitit leaves a job that ran out of time like this, once it has queued it again."""
    command.raises(SystemExit(-1))
    assert cli.main(["train", "-m", "seed=1,2", "name=mine"]) == -1
    assert not Path("outputs/train/mine/v001/0/job.json").exists()


def test_jobs_in_other_processes_take_turns_over_the_gpus(command, monkeypatch):
    real = sweep_jobs.SweepJob
    monkeypatch.setenv("TERM", "xterm")  # a job elsewhere changes it
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    def devices(line):
        command.calls.clear()
        assert cli.main(line.split()) == 0
        return [cfg.device for cfg, _ in command.calls]

    assert devices("train -m seed=1,2") == ["auto", "auto"]  # one after the other, in here
    monkeypatch.setattr(sweeping, "SweepJob", lambda *words: real(*words[:-1], pid=0))
    assert devices("train -m seed=1,2") == ["cuda:0", "cuda:1"]
    assert devices("train -m seed=1,2 devices=2") == ["auto", "auto"]


@pytest.fixture
def searching():
    """A sweeper whose jobs nobody knows before, as Optuna's: for us it is one by its name."""
    basic = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
    node = {"_target_": basic, "max_batch_size": None, "params": None}
    ConfigStore.instance().store("searching", node, group="hydra/sweeper")
    yield "hydra/sweeper=searching"
    del ConfigStore.instance().repo["hydra"]["sweeper"]["searching.yaml"]


def test_jobs_that_a_sweeper_chooses_are_named_by_its_words_and_given_a_score(
    searching, command, capsys, monkeypatch
):
    told, real = [], sweep_jobs.SweepJob.__call__

    def called(job, cfg):
        told.append(real(job, cfg))
        return told[-1]

    monkeypatch.setattr(sweep_jobs.SweepJob, "__call__", called)

    def answer(cfg, job):
        if cfg.seed == 2:
            raise ValueError("boom")
        runs.write_json(job.folder / "run.json", {"status": "done", "test_loss": cfg.seed / 4})

    command.answer = answer
    assert cli.main(f"train -m seed=1,2 n=3 name=mine {searching}".split()) == 1
    assert "job 1 failed (seed=2): unexpected ValueError: boom" in capsys.readouterr().err
    assert json.loads(Path("outputs/train/mine/v001/0/job.json").read_text())["job"] == "seed=1"
    assert told[0] == 0.25  # what the search makes smaller


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"run.json": {"test_loss": 0.25, "loss": 0.5}}, 0.25),
        ({"run.json": {"test_loss": 0.25, "best": {"fid": 3}}}, 3.0),
        ({"run.json": {"status": "done"}, "record.json": {"fid": {"value": 7.5}}}, 7.5),
        ({"run.json": {"status": "done"}}, None),
    ],
)
def test_what_a_search_makes_smaller(files, expected, tmp_path):
    for name, content in files.items():
        runs.write_json(tmp_path / name, content)
    assert sweep_jobs.score(tmp_path) == expected


def test_a_search_is_not_continued_by_us(searching, command):
    message = command.error(f"train -m seed=1,2 resume=auto {searching}")
    assert "this sweeper keeps its own books" in message
    assert command.left_behind() == []
