"""Shards: drawn once, the same images as in one go, and never more of them than allowed."""

import os
import shutil

import pytest
import torch
from sharded import SPEC, STEPS, whole

from diffuse import shards
from diffuse.shards import Store, count, images, store


@pytest.mark.parametrize("n", [1, 4, 6, 11])
@pytest.mark.parametrize("label", [None, 2])
def test_shards_are_the_images_of_one_go_drawn_or_read(n, label, draw, denoiser, plan):
    pixels, labels = whole(denoiser, plan, n, label)
    for calls in (STEPS * count(n, 4), 0):
        ours = draw(n, label=label)
        assert torch.equal(ours[0], pixels)
        assert torch.equal(ours[1], labels)
        assert ours[2] == calls


def test_a_larger_n_draws_only_what_is_missing_and_a_smaller_one_nothing(draw, denoiser, plan):
    assert draw(6)[2] == 2 * STEPS
    more = draw(15)
    assert more[2] == 2 * STEPS
    assert torch.equal(more[0], whole(denoiser, plan, 15)[0])
    assert draw(7)[2] == 0


def test_without_a_store_everything_is_drawn_every_time(denoiser, plan):
    for _ in range(2):
        parts = list(images(denoiser, SPEC, plan, 6))
        assert [(part.number, part.known) for part in parts] == [(0, False), (1, False)]
        assert [part.calls for part in parts] == [STEPS, STEPS]


def test_what_was_longest_of_no_use_goes_first_and_nothing_that_is_in_use(
    draw, make_plan, tmp_path, monkeypatch, about
):
    root = tmp_path / "kept"
    plans = [make_plan(seed=seed, calls=STEPS) for seed in range(4)]
    folders = []
    for age, plan in enumerate(plans):
        draw(4, plan=plan)
        folders.append(Store(root, about(plan)).folder)
        os.utime(folders[-1] / "plan.json", (1000 + age, 1000 + age))
    one = sum(path.stat().st_size for path in folders[0].iterdir())
    with Store(root, about(plans[0])):
        os.utime(folders[0] / "plan.json", (1, 1))  # oldest, and in use
        store.purge(root, 2 * one + 100)
        assert [folder.exists() for folder in folders] == [True, False, False, True]
        monkeypatch.setattr(store, "MOST_BYTES", 0)
    # leaving tidies up, but never what was just drawn, however large: a stopped command goes on
    assert [folder.exists() for folder in folders] == [True, False, False, False]
    assert draw(4, plan=plans[0])[2] == 0
    assert draw(4, plan=plans[1])[2] == STEPS
    assert [folder.exists() for folder in folders] == [False, True, False, False]


def test_the_folder_may_be_deleted_at_any_time(draw, tmp_path):
    draw(8)
    shutil.rmtree(tmp_path / "kept")
    assert draw(8)[2] == 2 * STEPS


def test_the_speed_is_that_of_the_drawing_and_not_of_the_reading(draw, tmp_path, about, plan):
    draw(8, pause=0.02)
    kept = Store(tmp_path / "kept", about(plan))
    speed = kept.speed()
    assert 0 < speed < 4 / (STEPS * 0.02)  # no faster than the network, however busy the machine
    draw(8)  # they are read
    assert kept.speed() == speed
    with open(next((tmp_path / "kept").glob("*/drawn.jsonl")), "ab") as file:
        # a flipped bit, and a full disk
        file.write(
            b'{"images": 4, "secondr": 9}\n[]\n{"images": 4, "seconds": []}\n{"shard": 2, "ima'
        )
    assert kept.speed() == speed
    assert Store(tmp_path / "kept", {"nobody": 0}).speed() is None


def test_every_count_of_images_is_covered():
    assert [shards.count(n, 4) for n in (1, 4, 5, 8, 9)] == [1, 1, 2, 2, 3]
