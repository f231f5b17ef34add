"""Two processes that share every batch train what one trains, and end together."""

import json
import os
import signal
import sys
import tempfile
import time

import pytest
from leftovers import RUN, rows, until, what_is_left

from diffuse import checkpoints, runs

FULL = "train.steps=8 train.log_every=3 train.sample_every=4 train.save_every=5 model.dropout=0.1"
TORCHRUN = [
    *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0"),
    *("--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "-m", "diffuse", "train"),
]


@pytest.fixture(autouse=True)
def one_thread_each(monkeypatch, tmp_path):
    """Like this process: sums of several threads differ in the last bits.

    What those that are killed leave among the temporary files is left in the test's folder.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)  # this process looks again


def weights(run):
    return checkpoints.load_tensors(checkpoints.newest(run / "checkpoints"), "ema")


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def is_gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_two_processes_have_the_losses_and_weights_of_one(diffuse, tmp_path):
    line = "train.steps=4 train.eval_every=4 train.eval_n=8 encoder=pixels model.conditional=true"
    assert diffuse.train(line) == 0
    assert diffuse.train(f"{line} devices=2 train.micro_batch=4") == 0, diffuse.err
    one, two = (tmp_path / f"outputs/train/tiny/v00{k}" for k in (1, 2))
    assert len(rows(one)) == len(rows(two)) == 7
    for a, b in zip(rows(one), rows(two), strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    theirs = weights(two)
    for name, weight in weights(one).items():
        assert weight.allclose(theirs[name], atol=1e-5), name
    assert (runs.read(one)["devices"], runs.read(two)["devices"]) == (1, 2)


@pytest.mark.slow
def test_processes_that_share_a_grid_draw_the_images_of_one(diffuse, tmp_path):
    """The weights stay as they are, so that nothing but the sharing differs: four batches."""
    still = "train.steps=1 optimizer.lr=0 optimizer.weight_decay=0"
    line = f"{still} model.init=torch n=200 sampler=ddpm"
    assert diffuse.train(line) == 0
    assert diffuse.train(f"{line} devices=2") == 0, diffuse.err
    one, two = (tmp_path / f"outputs/train/tiny/v00{k}/samples/latest.png" for k in (1, 2))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_processes_that_were_stopped_go_on_to_the_same_bytes(how, tiny, start, diffuse, tmp_path):
    """They are told to take a million steps, so that they cannot be done before they are stopped;
    a constant learning rate does not depend on how many there are."""
    line = f"{FULL} train.lr_schedule=constant devices=2"
    other = tmp_path / "other"
    process = start.train(f"{tiny} {line} train.steps=1000000", other)
    until(lambda: (other / RUN / "checkpoints/step_00000005").exists())
    for pid in (*children(process.pid), process.pid):
        os.kill(pid, how)
    process.wait(30)
    assert process.returncode == (-9 if how is signal.SIGKILL else 143)
    last = int(checkpoints.newest(other / RUN / "checkpoints").name[5:])
    line = f"{line} train.steps={last + 3}"
    assert diffuse.train(line) == 0, diffuse.err
    again = start.train(f"{tiny} {line} resume=auto resume.allow=[train.steps]", other)
    assert again.wait(120) == 0, again.stderr.read()
    assert what_is_left(other / RUN) == what_is_left(tmp_path / RUN)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["first", "second"])
def test_one_process_that_is_killed_ends_all(victim, tiny, start, tmp_path):
    process = start.train(f"{tiny} train.steps=100000 train.sample_every=null devices=2")
    until(lambda: (tmp_path / RUN / "checkpoints/step_00000002").exists())
    (child,) = children(process.pid)
    start.sessions.append(child)
    os.kill(child if victim == "second" else process.pid, signal.SIGKILL)
    until(lambda: is_gone(child) and is_gone(process.pid), seconds=30)
    process.wait()
    error = process.stderr.read().splitlines()[-1]
    if victim == "second":
        assert process.returncode == 1
        assert error == (
            "error: process 1 of this training was ended by SIGKILL; resume=auto goes on at the "
            "last checkpoint"
        )
        assert runs.read(tmp_path / RUN)["status"] == "failed"


@pytest.mark.slow
def test_a_signal_to_any_process_is_a_checkpoint_of_the_current_step(tiny, start, tmp_path):
    process = start.train(f"{tiny} train.steps=100000 train.save_every=null devices=2")
    until(lambda: (tmp_path / RUN / "samples/latest.png").exists())
    (child,) = children(process.pid)
    os.kill(child, signal.SIGTERM)
    assert process.wait(30) == 143
    facts = runs.read(tmp_path / RUN)
    assert facts["status"] == "stopped"
    newest = checkpoints.newest(tmp_path / RUN / "checkpoints")
    assert newest.name == f"step_{facts['step']:08d}"


@pytest.mark.slow
def test_torchrun_trains_the_same_bytes(tiny, start, diffuse, tmp_path):
    assert diffuse.train(f"{FULL} devices=2") == 0, diffuse.err
    other = tmp_path / "other"
    process = start([*TORCHRUN, *tiny.split(), *FULL.split()], other)
    assert process.wait(120) == 0, process.stderr.read()
    assert [path.name for path in (other / RUN).parent.glob("v*")] == ["v001"]
    assert what_is_left(other / RUN) == what_is_left(tmp_path / RUN)


@pytest.mark.slow
def test_processes_whose_torchrun_is_gone_save_and_leave(tiny, start, tmp_path):
    line = f"{tiny} {FULL} train.steps=100_000 train.save_every=null"
    process = start([*TORCHRUN, *line.split()])
    until(lambda: (tmp_path / RUN / "metrics.jsonl").exists())
    start.sessions += (workers := children(process.pid))
    process.kill()
    until(lambda: all(map(is_gone, workers)), seconds=30)
    facts = runs.read(tmp_path / RUN)
    assert facts["status"] == "stopped"
    assert checkpoints.newest(tmp_path / RUN / "checkpoints").name == f"step_{facts['step']:08d}"


@pytest.mark.slow
def test_what_the_first_process_refuses_ends_the_others_at_once(diffuse):
    line = "train dataset=folder dataset.root=/nowhere device=cpu devices=2"
    begun = time.monotonic()
    assert "/nowhere" in diffuse.error(line, 3)
    assert time.monotonic() - begun < 30  # they would wait for half an hour to meet


@pytest.mark.slow
@pytest.mark.parametrize(
    ("on_nan", "code", "counted", "step"),
    [
        ("rollback", 4, {"status": "diverged", "rollbacks": 3}, 2),
        ("skip", 0, {"status": "done", "skipped": 7}, 8),
    ],
)
def test_a_step_that_is_not_finite_is_one_for_both(
    on_nan, code, counted, step, tiny, start, tmp_path
):
    """Both make its gradient again, for the diagnosis: one alone would wait for half an hour."""
    line = f"{FULL} devices=2 optimizer.lr=1e30 train.clip_grad=null train.on_nan={on_nan}"
    process = start.train(f"{tiny} {line} train.save_every=1 train.sample_every=null")
    _, said = process.communicate(timeout=120)
    assert process.returncode == code, said
    facts = runs.read(tmp_path / RUN)
    assert {key: facts[key] for key in counted} == counted
    why = json.loads((tmp_path / RUN / "diverged.json").read_text())
    assert (why["step"], len(why["images"])) == (step, 16)
    assert why["grad_norms"].keys() == why["weight_norms"].keys()


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("devices=0", "devices must be at least 1, got 0"),
        ("devices=3", "train.batch=16 cannot be shared by 3; nearest: 15 and 18"),
        (
            "devices=2 train.micro_batch=16",
            "train.micro_batch=16 does not divide train.batch=8; nearest: 8",
        ),
        ("devices=two", "devices must be an integer, got 'two'"),
    ],
)
def test_devices_that_cannot_be_are_refused(line, error, diffuse, tiny):
    assert error in diffuse.error(f"train {tiny} {line}")


@pytest.mark.slow
def test_a_plan_of_two_processes_is_made_whether_or_not_there_is_something_to_do(diffuse):
    line = "train.steps=3 train.sample_every=null devices=2"
    assert diffuse.train(line.replace("devices=2", "")) == 0, diffuse.err
    assert diffuse.train(f"{line} dry_run=true resume=auto") == 0, diffuse.err
    assert "has 3 steps, 3 are asked for" in diffuse.out
    assert diffuse.train(f"{line} dry_run=true") == 0, diffuse.err
    assert "3 of 16 images, 3 to do" in diffuse.out
