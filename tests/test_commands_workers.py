"""`diffuse sample` and `eval` with devices=2: the images of one process, whoever dies."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from leftovers import until
from sharded import LINE, arrays, drawn_by

from diffuse import conditions, shards
from diffuse.commands import drawing
from diffuse.commands.drawing import shard_worker, sharing
from diffuse.errors import ConfigError


@pytest.mark.parametrize("verb", ["sample", "eval"])
def test_devices_is_a_number_of_processes(verb, trained, diffuse):
    assert diffuse.error(f"{verb} devices=0") == "devices must be at least 1, got 0"
    assert "devices" in diffuse.error(f"{verb} devices=two")


def test_no_more_processes_begin_than_there_are_shards(diffuse, trained, monkeypatch):
    begun, start = [], sharing.children.start
    monkeypatch.setattr(
        sharing.children, "start", lambda *words, **how: begun.append(1) or start(*words, **how)
    )
    for n, workers in ((1, 0), (8, 1)):  # in shards of 4
        begun.clear()
        assert diffuse(f"sample {LINE} devices=99 n={n}") == 0, diffuse.err
        assert len(begun) == workers


@pytest.fixture
def order(trained, diffuse, monkeypatch):
    """What a worker is told: order(line of diffuse sample)."""

    def make(line):
        orders = []

        class Noted(sharing.Workers):
            def __enter__(self):
                orders.extend(map(json.loads, self.orders))
                self.orders = []
                return super().__enter__()

        with monkeypatch.context() as patch:
            patch.setattr(drawing.sharing, "Workers", Noted)
            assert diffuse(f"sample {LINE} devices=2 {line}") == 0, diffuse.err
        [one] = orders
        return one

    return make


def test_a_worker_alone_draws_the_very_same_images(order, diffuse, kept, tmp_path):
    first, _ = arrays(diffuse, "n=10 label=2 sampler=ddpm")
    told = order("n=10 label=2 sampler=ddpm")
    kept.rename(tmp_path / "away")
    shard_worker.work(told)
    assert [shard for shard, _ in drawn_by(kept)] == [0, 1, 2]
    again, counts = arrays(diffuse, "n=10 label=2 sampler=ddpm")
    assert counts == {"drawn": 0, "known": 3}
    assert (again == first).all()


def test_a_worker_that_would_draw_other_images_draws_none(order, kept, tmp_path):
    told = order("n=8")
    kept.rename(tmp_path / "away")
    told["description"]["machine"]["device"] = ["cpu", "another machine"]
    told["description"]["weights"] = "others"
    with pytest.raises(ConfigError, match="would draw other images: another weights, machine"):
        shard_worker.work(told)
    assert not kept.exists()


def test_a_worker_takes_the_checkpoint_of_its_parent_and_not_a_newer_one(order, trained):
    told = order("n=8 checkpoint=2 weights=raw precision=bf16")
    for words in ("checkpoint: 2", "precision: bf16", "batch: 4", str(trained.name)):
        assert words in told["cfg"]
    assert told["threads"] == torch.get_num_threads()


def test_each_process_has_a_gpu_of_its_own_and_all_share_a_cpu(monkeypatch):
    assert sharing.nth(torch.device("cpu"), 1) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert [sharing.nth(torch.device("cuda"), k).index for k in range(4)] == [0, 1, 2, 3]
    assert [sharing.nth(torch.device("cuda:3"), k).index for k in range(4)] == [3, 0, 1, 2]


@pytest.fixture
def after_the_worker(kept, monkeypatch):
    """The parent draws when its worker, which has to start, has drawn something."""
    real = shards.draw

    def draw(*args):
        until(lambda: any(process != os.getpid() for _, process in drawn_by(kept)))
        return real(*args)

    return lambda: monkeypatch.setattr(shards, "draw", draw)


@pytest.mark.slow
def test_two_processes_give_the_images_and_the_fid_of_one(
    trained, diffuse, kept, tmp_path, after_the_worker
):
    line = f"eval {LINE} n=24 save=npy encoder=pixels kid_subsets=2 kid_subset_size=8"
    alone = diffuse.json(line)
    kept.rename(tmp_path / "alone")
    after_the_worker()
    both = diffuse.json(f"{line} devices=2")
    assert diffuse.err.count("worker") == 0
    assert both["shards"] == {"drawn": 6, "known": 0}
    assert sorted(shard for shard, _ in drawn_by(kept)) == [*range(6)]
    assert len({process for _, process in drawn_by(kept)}) == 2
    one, two = (np.load(f"{r['folder']}/images.npy") for r in (alone, both))
    assert (one == two).all()
    assert (both["fid"], both["kid"]) == (alone["fid"], alone["kid"])
    names = [sorted(p.name for p in root.glob("*/*.safetensors")) for root in
             (kept, tmp_path / "alone")]  # fmt: skip
    assert names[0] == names[1]


def kill_the_worker(kept, done):
    """As soon as it has drawn something; which one that was."""
    while not done:
        for _, process in drawn_by(kept):
            if process != os.getpid():
                os.kill(process, signal.SIGKILL)
                done.append(process)
                return
        time.sleep(0.01)


@pytest.mark.slow
def test_what_a_killed_worker_leaves_is_drawn_by_the_others_with_one_line(
    trained, diffuse, kept, tmp_path, after_the_worker
):
    alone, _ = arrays(diffuse, "n=120")
    kept.rename(tmp_path / "alone")
    after_the_worker()
    killed = []
    threading.Thread(target=kill_the_worker, args=[kept, killed], daemon=True).start()
    images, counts = arrays(diffuse, "n=120 devices=2")
    killed.append(0)  # the thread ends
    assert counts == {"drawn": 30, "known": 0}
    assert (images == alone).all()
    [told] = [line for line in diffuse.err.splitlines() if "worker" in line]
    assert told == (
        "warning: worker 1 of devices=2 was ended by signal 9: the others draw its images"
    )
    assert killed[0] in {process for _, process in drawn_by(kept)}


def started_worker():
    return subprocess.Popen(
        [sys.executable, "-P", "-m", sharing.WORKER], stdin=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(conditions.PACKAGE).parent)},
    )  # fmt: skip


@pytest.mark.slow
def test_a_worker_leaves_when_its_parent_is_gone(order, kept):
    told = order("n=8")
    known = len(drawn_by(kept))
    with started_worker() as worker:
        worker.stdin.write(json.dumps({**told, "n": 4_000_000}) + "\n")
        worker.stdin.flush()
        until(lambda: len(drawn_by(kept)) > known)
        assert worker.poll() is None
        worker.stdin.close()
        assert worker.wait(10) == 0


@pytest.mark.slow
def test_a_worker_that_fails_says_why_in_one_line(order):
    told = order("n=8")
    told["description"]["weights"] = "others"
    with started_worker() as worker:
        worker.stdin.write(json.dumps(told) + "\n")
        worker.stdin.flush()
        assert worker.wait(60) == 2
        assert worker.stderr.read().splitlines()[-1] == (
            "error: it would draw other images: another weights"
        )
