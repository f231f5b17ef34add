"""A signal to a sweep whose jobs run in other processes of this machine: they save, and end."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from leftovers import rows, until
from places import ROOT
from processes import alive

from diffuse import checkpoints, cli, files, runs
from diffuse.cli import sweep_records, sweep_signals
from diffuse.errors import NoSpaceError

SWEEP = Path("outputs/train/tiny/v001")
JOBLIB, SUBMITIT = "joblib hydra.launcher.n_jobs=2", "submitit_local"

SLOWLY = """
import os
import time
from pathlib import Path
import torch

class Slowly(torch.optim.AdamW):
    def step(self, *words):
        while Path("stuck").exists():
            Path(f"stuck-{os.getpid()}").touch()
            time.sleep(0.1)
        time.sleep(0 if Path("quick").exists() else 0.3)
        return super().step(*words)
"""
UNTOLD = "sweep_signals.reached = lambda launcher: ''; "  # as if the jobs were on a cluster


class Sweep:
    """`diffuse train --multirun seed=1,2` as a shell starts it: a group of its own."""

    def __init__(self, start, tiny, launcher, more="", patch=""):
        code = f"import sys; from diffuse.cli import main, sweep_signals; {patch}"
        line = (
            f"train {tiny} -m seed=1,2 hydra/launcher={launcher} train.steps=100 "
            "train.save_every=90 train.sample_every=null trust=slowly "
            f"optimizer.name=slowly:Slowly {more}"
        )
        self.process = start(
            [sys.executable, "-c", f"{code}sys.exit(main(sys.argv[1:]))", *line.split()],
            stderr=subprocess.STDOUT, PYTHONPATH=f"{ROOT}:{os.getcwd()}",
        )  # fmt: skip

    def begun(self):
        """Both jobs train."""
        logs = [SWEEP / k / "metrics.jsonl" for k in "01"]

        def train():
            assert self.process.poll() is None, self.ended()
            return all(log.exists() and len(rows(log.parent)) > 2 for log in logs)

        until(train)
        return self

    def told(self, number, group):
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        return self

    def ended(self):
        """Its exit code and all that was said, by those that it started, too."""
        said, _ = self.process.communicate(timeout=300)
        return self.process.returncode, said

    def left(self):
        """The processes that it started, or that is it, and that are still there."""
        return alive(self.process.pid)


@pytest.fixture
def sweep(start, tiny, tmp_path, monkeypatch):
    """sweep(launcher, words, patch)"""
    monkeypatch.chdir(tmp_path)
    Path("slowly.py").write_text(SLOWLY)
    return partial(Sweep, start, tiny)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "number", "group"),
    [
        (JOBLIB, signal.SIGTERM, False),
        (SUBMITIT, signal.SIGINT, True),
    ],
)
def test_jobs_in_other_processes_save_at_a_signal_to_the_sweep_and_go_on(
    launcher, number, group, sweep
):
    """SIGTERM as a scheduler sends it, to the command; SIGINT as Ctrl-C does, to all of them."""
    stopped = sweep(launcher).begun().told(number, group)
    code, said = stopped.ended()
    assert code == (130 if number == signal.SIGINT else 143), said
    assert "Traceback" not in said
    assert said.endswith("stopped\n")
    until(lambda: not stopped.left(), 30)
    for k, seed in (("0", 1), ("1", 2)):
        facts = runs.read(SWEEP / k)
        assert facts["status"] == "stopped"
        assert checkpoints.steps(SWEEP / k / "checkpoints") == [facts["step"]]
        assert rows(SWEEP / k)[-1]["step"] == facts["step"] < 90
        assert f"job {k} was stopped (seed={seed})" in said
    Path("quick").touch()
    code, said = sweep(launcher, "resume=auto").ended()
    assert code == 0, said
    for k in "01":
        assert (runs.read(SWEEP / k)["status"], runs.read(SWEEP / k)["step"]) == ("done", 100)
        assert [row["step"] for row in rows(SWEEP / k) if "loss" in row] == list(range(1, 101))
        assert not (SWEEP / k / "attempt-1").exists()


@pytest.mark.slow
def test_jobs_save_and_end_when_the_command_is_killed(sweep):
    killed = sweep(JOBLIB).begun().told(signal.SIGKILL, group=False)
    killed.process.wait(60)
    until(lambda: not killed.left(), 60)
    for k in "01":
        facts = runs.read(SWEEP / k)
        assert facts["status"] == "stopped"
        assert checkpoints.steps(SWEEP / k / "checkpoints") == [facts["step"]]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [JOBLIB, SUBMITIT])
def test_jobs_that_nobody_tells_would_lose_their_steps_or_train_on(launcher, sweep):
    """Control: joblib kills them, and submitit leaves them behind."""
    untold = sweep(launcher, "", UNTOLD).begun().told(signal.SIGTERM, group=False)
    assert untold.process.wait(300) == 143
    for k in "01":
        assert runs.read(SWEEP / k)["status"] == "running"
        assert checkpoints.steps(SWEEP / k / "checkpoints") == []
    assert sweep_records.running(SWEEP) == (["0", "1"] if "submitit" in launcher else [])


@pytest.mark.slow
def test_a_second_signal_ends_jobs_in_other_processes_too(sweep):
    """Each is in a step that does not end."""
    stubborn = sweep(SUBMITIT).begun()
    Path("stuck").touch()
    until(lambda: len(list(Path().glob("stuck-*"))) == 2)
    stubborn.told(signal.SIGTERM, group=False)
    with pytest.raises(subprocess.TimeoutExpired):
        stubborn.process.wait(2)
    stubborn.told(signal.SIGTERM, group=False)
    assert stubborn.process.wait(20) == 143
    until(lambda: not stubborn.left(), 20)


JOB = """
import os, signal, sys, time
from pathlib import Path
from diffuse.cli import sweep_records, sweep_signals
sweep_signals.prepare_process(Path(), int(sys.argv[1]))
os.kill(os.getpid(), signal.SIGTERM)  # between jobs
with sweep_records.locked(sweep_records.lock_of(Path(), 7), Path()):
    with sweep_signals.listening() as told:
        told.at_once = False
        print("begun", flush=True)
        while told.caught is None or Path("stuck").exists():
            time.sleep(0.01)
        time.sleep(1)  # one who were told again would be gone
        print(told.exit_code, flush=True)
time.sleep(60)
"""


@pytest.fixture
def job(start, tmp_path, monkeypatch):
    """job(pid of the command): a process of a launcher, in which job 7 runs."""
    monkeypatch.chdir(tmp_path)

    def begun(command):
        process = start([sys.executable, "-c", JOB, str(command)])
        assert process.stdout.readline() == "begun\n"
        return process

    return begun


def test_a_job_is_told_once_when_the_command_has_no_name_any_more(job, tmp_path):
    """Its process waits for others, until nobody waits for it."""
    with sweep_signals.Relay(tmp_path):
        process = job(os.getpid())
        Path(sweep_signals.NAME).unlink()
        assert process.stdout.readline() == "143\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        Path(sweep_signals.NAME).write_text(json.dumps(sweep_signals.AT_ONCE))
        assert process.wait(20) == 143


def test_a_job_ends_with_a_command_that_is_gone(job, start):
    code = "from diffuse import files, owners; from pathlib import Path; import time; "
    code += "Path('.command').write_text(files.as_json(owners.facts())); time.sleep(100)"
    command = start([sys.executable, "-c", code])
    until(lambda: Path(sweep_signals.NAME).exists() and Path(sweep_signals.NAME).read_text())
    process = job(command.pid)
    command.kill()
    command.wait()
    assert process.stdout.readline() == "143\n"
    assert process.wait(20) == 143


def test_the_command_waits_for_its_jobs_and_then_leaves_its_launcher(job, tmp_path):
    def launched():
        with sweep_signals.Relay(tmp_path):
            process = job(os.getpid())
            os.kill(os.getpid(), signal.SIGINT)
            assert process.stdout.readline() == "143\n"
            process.kill()
            time.sleep(100)  # a launcher that goes on

    with pytest.raises(SystemExit) as left:
        launched()
    assert left.value.code == 130


def test_a_job_that_does_not_end_is_killed(job, tmp_path, monkeypatch, caplog):
    def launched():
        with sweep_signals.Relay(tmp_path):
            processes.append(job(os.getpid()))
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(100)

    processes = []
    Path("stuck").touch()
    monkeypatch.setattr(sweep_signals, "GRACE", 0.2)
    with pytest.raises(SystemExit) as left:
        launched()
    assert left.value.code == 143
    assert processes[0].wait(20) == 143
    assert processes[0].stdout.read() == ""
    assert "job 7 did not end within 0.2 s: killed" in caplog.text


def test_a_second_signal_ends_the_command_without_room_to_say_so(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise NoSpaceError("no space for it")

    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(files, "replace", full)
    sweep_signals.Relay(tmp_path).second(signal.SIGTERM)
    assert ended == [143]
    assert "no space for it" in caplog.text


@pytest.mark.parametrize("told", [True, False])
def test_no_job_begins_once_the_command_has_been_told(told, command, monkeypatch):
    """A launcher may have more of them in its queue."""
    monkeypatch.setattr(sweep_signals, "reached", lambda launcher: "joblib")

    def answer(cfg, job):
        if told:  # as `Relay.first` does
            (job.folder.parent / sweep_signals.NAME).unlink()

    command.answer = answer
    cli.main(["train", "-m", "seed=1,2,3", "name=mine"])
    assert [cfg.seed for cfg, _ in command.calls] == ([1] if told else [1, 2, 3])
    assert Path("outputs/train/mine/v001/1/job.json").exists() != told


def test_a_signal_in_a_job_of_this_process_is_for_the_job(command, monkeypatch, capsys):
    """joblib with n_jobs=1, say: nobody else is told."""
    monkeypatch.setattr(sweep_signals, "reached", lambda launcher: "joblib")
    command.answer = lambda cfg, job: os.kill(os.getpid(), signal.SIGTERM)
    assert cli.main(["train", "-m", "seed=1,2", "name=mine"]) == 143
    assert len(command.calls) == 1
    assert "job 0 was stopped (seed=1)" in capsys.readouterr().err
