"""`diffuse sample` and `eval` by shards: drawn once, by many, and after whatever happened."""

import json
import os
import re
import signal
import sys
from dataclasses import replace

import pytest
import torch
from sharded import LINE, arrays, drawn_by

from diffuse import run_folders, runs, shards
from diffuse.commands import drawing, sample
from diffuse.commands.drawing import shard_worker, sharing
from diffuse.shards import Store


def test_images_are_drawn_once_and_a_larger_n_adds_what_is_missing(trained, diffuse, kept):
    first, counts = arrays(diffuse, "n=6")
    assert counts == {"drawn": 2, "known": 0}
    again, counts = arrays(diffuse, "n=6")
    assert counts == {"drawn": 0, "known": 2}
    assert "6 of 6 images were drawn before" in diffuse.err
    more, counts = arrays(diffuse, "n=11")
    assert counts == {"drawn": 1, "known": 2}
    assert (again == first).all()
    assert (more[:6] == first).all()
    assert len(more) == 11
    assert [shard for shard, _ in drawn_by(kept)] == [0, 1, 2]
    assert "0 drawn, 2 known" in (diffuse(f"sample {LINE} n=6") or diffuse.out)


def test_an_evaluation_uses_what_was_sampled_and_gives_the_numbers_it_would_have(
    trained, diffuse, kept, tmp_path
):
    line = f"eval {LINE} n=16 encoder=pixels kid_subsets=2 kid_subset_size=8"
    fresh = diffuse.json(line)
    assert fresh["shards"] == {"drawn": 4, "known": 0}
    kept.rename(tmp_path / "away")
    arrays(diffuse, "n=9")
    mixed, known = diffuse.json(line), diffuse.json(line)
    assert (mixed["shards"]["known"], known["shards"]["known"]) == (3, 4)
    assert fresh["fid"] == mixed["fid"] == known["fid"]
    assert fresh["kid"] == mixed["kid"] == known["kid"]
    assert known["images_per_second"] > 0


OTHERS = ("checkpoint=2", "weights=raw", "sampler=heun", "label=3")
MORE = (
    "seed=1", "steps=3", "sampler.eta=0.5", "start=ve", "clip=range", "batch=3", "precision=bf16",
    "grid=karras", "guidance=2",
)  # fmt: skip


@pytest.mark.parametrize(
    "change", [*OTHERS, *(pytest.param(change, marks=pytest.mark.slow) for change in MORE)]
)
def test_nothing_is_reused_where_anything_differs(change, trained, diffuse):
    arrays(diffuse, "n=4")
    assert arrays(diffuse, f"n=3 {change}")[1]["known"] == 0


def test_what_another_command_drew_meanwhile_is_not_our_work(trained, diffuse, monkeypatch):
    real = drawing.images

    def shared(*args):
        for shard in real(*args):
            yield replace(shard, known=True) if shard.number == 1 else shard

    monkeypatch.setattr(drawing, "images", shared)
    assert arrays(diffuse, "n=12")[1] == {"drawn": 2, "known": 1}


def test_a_shard_that_was_damaged_counts_as_drawn_now(trained, diffuse, kept):
    arrays(diffuse, "n=4")
    [shard] = kept.glob("*/shard-*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-9])
    assert arrays(diffuse, "n=4")[1] == {"drawn": 1, "known": 0}
    [rate] = re.findall(r"sample 4/4  (\d+) images/s", diffuse.err)
    assert int(rate) > 0


def test_another_training_in_the_same_place_is_another_one(trained, diffuse):
    """The same run, step and config, other weights: what a checkpoint that was replaced is."""
    before, _ = arrays(diffuse, "n=4")
    newest = trained / "checkpoints/step_00000004"
    older = trained / "checkpoints/step_00000002"
    for path in older.iterdir():
        if path.name != "state.json":
            (newest / path.name).write_bytes(path.read_bytes())
    (newest / "state.json").write_bytes((older / "state.json").read_bytes())
    after, counts = arrays(diffuse, "n=4 checkpoint=4")
    assert counts == {"drawn": 1, "known": 0}
    assert (after != before).any()


def test_a_changed_sampler_is_never_served_from_before(trained, diffuse, monkeypatch):
    arrays(diffuse, "n=4")
    monkeypatch.setattr(shards.identity, "code", lambda: "of another day")
    assert arrays(diffuse, "n=4")[1] == {"drawn": 1, "known": 0}


def stopped_at(shard, number):
    """`draw` that is told to stop when it begins with the shard of this number."""
    real = shards.draw

    def draw(denoiser, spec, plan, indices, labels):
        if indices[0] == shard * plan.batch:
            os.kill(os.getpid(), number)
        return real(denoiser, spec, plan, indices, labels)

    return draw


@pytest.mark.parametrize("verb", ["sample", "eval encoder=pixels"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_keeps_what_is_drawn_and_says_how_much_and_the_next_call_goes_on(
    verb, number, trained, diffuse, kept, monkeypatch
):
    line = f"{verb} {LINE} n=18"
    with monkeypatch.context() as patch:
        patch.setattr(shards, "draw", stopped_at(3, number))
        assert diffuse(line) == (130 if number == signal.SIGINT else 143)
    *_, told, last = diffuse.err.splitlines()
    assert told == "12 of 18 images are there: the same command goes on from them"
    assert last == "stopped"
    assert diffuse.json(line)["shards"] == {"drawn": 2, "known": 3}
    assert [shard for shard, _ in drawn_by(kept)] == [0, 1, 2, 3, 4]
    assert not list(kept.rglob("*.lock"))


def test_a_plan_that_cannot_be_written_down_is_drawn_and_not_kept(
    trained, diffuse, kept, monkeypatch
):
    def refuse(*args):
        raise TypeError("a plan holds a thing, which has no written form")

    monkeypatch.setattr(drawing, "describe", refuse)
    assert arrays(diffuse, "n=4")[1] == {"drawn": 1, "known": 0}
    assert "images are not kept: a plan holds a thing" in diffuse.err
    assert not kept.exists()


READS = """
import json
from itertools import pairwise
from pathlib import Path
import torch

@torch.no_grad()
def walk(denoise, x, sigmas, randn):
    gain = json.loads(Path(__file__).with_name("gain.json").read_text())
    for sigma, after in pairwise(sigmas):
        denoised = gain * denoise(x, sigma)
        x = torch.lerp(denoised, x, (after / sigma).item())
        yield x, denoised
"""


@pytest.fixture
def own(trained, tmp_path, monkeypatch):
    """The words for a sampler from outside that multiplies by what stands in a file; the file."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "reading_sampler.py").write_text(READS)
    (tmp_path / "mine/sampler").mkdir(parents=True)
    (tmp_path / "mine/sampler/my.yaml").write_text("name: reading_sampler:walk\n")
    (tmp_path / "gain.json").write_text("0.5")
    yield "--config-dir mine trust=reading_sampler", tmp_path / "gain.json"
    sys.modules.pop("reading_sampler", None)


@pytest.mark.parametrize("devices", [1, 2])
def test_what_code_from_outside_drew_is_never_used_again(devices, own, diffuse, kept):
    """It may read what changes, and nobody sees that; all processes of a command share it."""
    words, gain = own
    words += " sampler=my"
    found = []
    for value in ("0.5", "0.2", "0.5"):
        gain.write_text(value)
        found.append(arrays(diffuse, f"n=6 {words} devices={devices}"))
        assert diffuse.err.count("are kept for this command only: nobody knows") == 1
        assert "(reading_sampler.walk)" in diffuse.err
        assert "worker" not in diffuse.err
        assert not list(kept.iterdir())
    (first, _), (changed, _), (again, _) = found
    assert (first == again).all()
    assert (first != changed).any()
    assert [counts for _, counts in found] == 3 * [{"drawn": 2, "known": 0}]


def test_a_worker_draws_with_code_from_outside_for_its_parent_alone(
    own, diffuse, kept, monkeypatch
):
    orders = []
    real = sharing.Workers.__init__

    def noted(self, cfg, trained, plan, asked):
        real(self, cfg, trained, plan, asked)
        orders.extend(map(json.loads, self.orders))
        self.orders = []

    monkeypatch.setattr(sharing.Workers, "__init__", noted)
    arrays(diffuse, f"n=6 devices=2 sampler=my {own[0]}")
    [order] = orders
    held = Store(kept, order["description"])
    with held:
        shard_worker.work(order)
        assert sorted(held.there()) == [0, 1]
    assert not held.folder.exists()


def test_a_stopped_drawing_by_code_from_outside_promises_nothing(own, diffuse, kept, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shards, "draw", stopped_at(1, signal.SIGTERM))
        assert diffuse(f"sample {LINE} n=8 sampler=my {own[0]}") == 143
    assert "goes on" not in diffuse.err
    assert not list(kept.iterdir())
    assert diffuse.json(f"sample {LINE} n=8 sampler=my {own[0]}")["shards"] == {
        "drawn": 2,
        "known": 0,
    }


def test_all_cells_of_a_pareto_by_code_from_outside_are_held_until_its_end(own, diffuse, kept):
    words = f"{own[0]} samplers=[my,ddim] nfe=[2] n=8 batch=4 encoder=pixels device=cpu"
    found = [diffuse.json(f"pareto {words}") for _ in range(2)]
    assert [[c["shards"]["known"] for c in r["cells"]] for r in found] == [[0, 0], [0, 2]]
    assert all(cell["images_per_second"] > 0 for cell in found[0]["cells"])
    assert len(list(kept.iterdir())) == 1


def test_the_code_of_a_pareto_is_that_of_all_its_samplers(own, diffuse, tmp_path):
    def code(names):
        line = f"pareto {own[0]} samplers=[{names}] nfe=[2] n=8 batch=8 encoder=pixels device=cpu"
        return diffuse.json(line)["code"]

    before = code("ddim,my")
    assert before == code("my,ddim") != code("ddim")
    path = tmp_path / "reading_sampler.py"
    path.write_text(path.read_text() + "# changed")
    assert code("ddim,my") == code("my,ddim") != before


def test_the_speed_is_that_of_one_process_first_and_later(trained, diffuse, kept, monkeypatch):
    """However many drew: else what was drawn by two would take twice as long when read again."""
    real = Store.keep
    monkeypatch.setattr(Store, "keep", lambda self, shard, seconds: real(self, shard, 2.0))
    first, again = (diffuse.json(f"sample {LINE} n=8")["images_per_second"] for _ in range(2))
    assert first == again == 2.0  # batch=4 in two seconds, as it was written down


def test_the_folder_of_shards_is_no_run(trained, diffuse, kept):
    arrays(diffuse, "n=4")
    assert [p.name for p in kept.parent.iterdir() if p.name.startswith(".")] == [".samples"]
    assert [runs.read(f)["command"] for f in run_folders.every(kept.parent, "sample")] == ["sample"]
    assert sample.draw is drawing.draw


@pytest.mark.parametrize("change", ["batch", "threads"])
def test_another_batch_or_number_of_threads_is_in_the_record_and_the_fid_agrees(
    change, trained, diffuse
):
    """float32, to 1e-4; convolutions of another shape differ in last bits."""
    assert trained.exists()
    words = "eval n=64 steps=5 device=cpu encoder=pixels kid_subsets=2 kid_subset_size=4 seed=3"
    one = diffuse.json(f"{words} batch=16")
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1 if change == "threads" else threads)
    try:
        other = diffuse.json(f"{words} batch={16 if change == 'threads' else 5}")
    finally:
        torch.set_num_threads(threads)
    assert other["fid"]["value"] == pytest.approx(one["fid"]["value"], rel=1e-4)
    assert other["shards"]["known"] == 0, "the images of the first one were not taken for these"
    here, there = (
        r["threads"] if change == "threads" else r["sampler"]["batch"] for r in (one, other)
    )
    assert here != there
