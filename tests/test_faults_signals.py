"""SIGINT, SIGTERM and Slurm's SIGUSR1 wherever a command may be: a checkpoint of this step."""

import os
import signal
import sys
import time

import pytest
from injected import forked
from leftovers import rows, undisturbed, what_is_left

from diffuse import checkpoints, checkups, cli, runs, training
from diffuse.commands.training import preparing
from diffuse.denoiser import Denoiser
from diffuse.interrupts import Interrupts

FULL = (
    "train.steps=6 train.save_every=4 train.sample_every=3 train.log_every=2 train.eval_every=3 "
    "train.eval_n=16 model.dropout=0.1"
)


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """What a training without a signal leaves behind."""
    return undisturbed(f"{tiny} {FULL}", tmp_path_factory.mktemp("whole"))


def told_during(real, number, call=1):
    """A function during whose call-th call the process is told to stop."""
    count = [0]

    def wrapped(*args, **kwargs):
        count[0] += 1
        if count[0] == call:
            os.kill(os.getpid(), number)
        return real(*args, **kwargs)

    return wrapped


MOMENTS = {  # where, what is called there, the step that is saved
    "on the first batch": (training, "batch_of", 1, 1),
    "in a step": (training, "batch_of", 3, 2),  # it draws what the next one needs
    "in samples": (checkups.Checkup, "samples", 1, 3),
    "in an evaluation": (checkups.Checkup, "score", 1, 3),
    "in the held-out loss": (checkups.Checkup, "loss", 1, 3),
    "in a save": (os, "rename", 1, 3),
}


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        *((moment, signal.SIGTERM) for moment in MOMENTS),
        *(
            pytest.param(moment, number, marks=pytest.mark.slow)
            for moment in ("in samples", "in a save")
            for number in (signal.SIGINT, signal.SIGUSR1)
        ),
    ],
)
def test_a_signal_anywhere_is_a_checkpoint_of_this_step_and_the_rest_comes_out_the_same(
    moment, number, whole, diffuse, tmp_path, monkeypatch
):
    where, name, call, step = MOMENTS[moment]
    with monkeypatch.context() as patch:
        patch.setattr(where, name, told_during(getattr(where, name), number, call))
        code = diffuse.train(FULL)
    assert code == (130 if number == signal.SIGINT else 143)
    run = tmp_path / "outputs/train/tiny/v001"
    assert (runs.read(run)["status"], runs.read(run)["step"]) == ("stopped", step)
    checkpoints.verify(checkpoints.at(run / "checkpoints", step))
    assert (run / "checkpoints/latest").resolve().name == f"step_{step:08d}"
    assert "Traceback" not in diffuse.err
    assert diffuse.train(f"{FULL} resume=auto") == 0
    assert what_is_left(run) == whole


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", ["open_splits", "seconds_per_step"])
def test_a_signal_before_the_first_step_leaves_nothing_and_says_so(
    name, number, diffuse, tmp_path, monkeypatch
):
    monkeypatch.setattr(preparing, name, told_during(getattr(preparing, name), number))
    assert diffuse.train("train.minutes=0.1") == (130 if number == signal.SIGINT else 143)
    assert diffuse.err.splitlines()[-1] == "stopped"
    assert not (tmp_path / "outputs/train").exists()


def test_a_signal_in_a_look_saves_and_leaves_it_at_once(diffuse, tmp_path, monkeypatch):
    """A kill may follow before a long look would have ended."""
    folder, seen, real = tmp_path / "outputs/train/tiny/v001/checkpoints", [], checkups.draw

    def told(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            return real(*args)
        finally:
            seen.append(checkpoints.newest(folder))

    with monkeypatch.context() as patch:
        patch.setattr(checkups, "draw", told)
        assert diffuse.train(f"{FULL} train.eval_every=null") == 143
    assert [path.name for path in seen] == ["step_00000003"]
    assert not (folder.parent / "samples/step_00000003.png").exists()


def test_a_signal_that_nobody_notes_would_leave_no_checkpoint(tiny, tmp_path, monkeypatch):
    """Control: without `Interrupts` the training is gone where it was."""

    def act():
        for name, do in (("__enter__", lambda self: self), ("__exit__", lambda *_: None)):
            setattr(Interrupts, name, do)
        training.batch_of = told_during(training.batch_of, signal.SIGTERM, call=4)
        return cli.main(["train", *tiny.split(), "train.steps=6"])

    monkeypatch.chdir(tmp_path)
    assert forked(act) == -signal.SIGTERM
    assert checkpoints.steps(tmp_path / "outputs/train/tiny/v001/checkpoints") == [2]


@pytest.mark.parametrize("line", ["sample n=8", "eval n=16 encoder=pixels"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_images_are_drawn_ends_the_command_and_is_written_down(
    line, number, trained, diffuse, tmp_path, monkeypatch
):
    forward, calls = told_during(Denoiser.forward, number, call=2), []
    monkeypatch.setattr(Denoiser, "forward", lambda *words: calls.append(0) or forward(*words))
    assert diffuse(f"{line} steps=4 device=cpu") == (130 if number == signal.SIGINT else 143)
    assert len(calls) == 2  # of four or more
    assert diffuse.err.splitlines()[-1] == "stopped"
    [facts] = [runs.read(p.parent) for p in tmp_path.glob(f"outputs/{line.split()[0]}/*/*/run.json")
               if p.parent.name == "v001"]  # fmt: skip
    assert facts["status"] == "stopped"
    assert not list(tmp_path.glob("outputs/eval/*/*/record.json"))


SLOW_SAMPLES = """
import sys, time
from diffuse import checkups, cli
def samples(self, n):
    print("looking", flush=True)
    time.sleep(60)
checkups.Checkup.samples = samples
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_two_signals_in_samples_leave_within_a_second_and_the_run_goes_on(
    tiny, start, diffuse, tmp_path
):
    words = f"train {tiny} train.steps=2 train.save_every=1"
    process = start([sys.executable, "-c", SLOW_SAMPLES, *words.split()])
    assert process.stdout.readline() == "looking\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)  # longer than signals may be apart that are one
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 143
    assert time.monotonic() - started < 3  # a second, where nothing else computes
    assert diffuse.train("train.steps=3 resume=auto") == 0
    run = tmp_path / "outputs/train/tiny/v001"
    assert [row["step"] for row in rows(run) if "test_loss" in row] == [2, 3]
    assert runs.read(run)["step"] == 3


def test_a_job_that_slurm_starts_again_goes_on_in_its_folder(tiny, diffuse, tmp_path, monkeypatch):
    """The same command line each time, as `sbatch --requeue` has it; only the process is new."""
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    line = f"{FULL} resume=auto"
    with monkeypatch.context() as patch:
        patch.setattr(training, "batch_of", told_during(training.batch_of, signal.SIGUSR1, 2))
        assert diffuse.train(line) == 143
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    run = tmp_path / "outputs/train/tiny/v001"
    # a node that died wrote nothing: our number now belongs to somebody else
    runs.write_json(run / "run.json", {**runs.read(run), "status": "running"} | {
        "pid": os.getppid(), "process": f"{os.getppid()}@another boot/1"})  # fmt: skip
    assert diffuse.train(line) == 0
    assert runs.read(run)["status"] == "done"
    assert [p.name for p in run.parent.iterdir()].count("v002") == 0
