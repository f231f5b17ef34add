"""What a command needs stays, however much it is: run again, or with more, it finds its images."""

import os

import pytest
from sharded import STEPS

from diffuse.denoiser import Denoiser
from diffuse.shards import Store, held, store

PARETO = "pareto device=cpu encoder=pixels n=8 batch=8 nfe=[2,5]"
EVAL = "eval device=cpu encoder=pixels n=8 batch=8 steps=2 kid_subsets=2 kid_subset_size=4"


@pytest.fixture
def no_room(monkeypatch):
    """Nothing may be kept that is not needed."""
    monkeypatch.setattr(store, "MOST_BYTES", 0)


@pytest.fixture
def plans(make_plan):
    return [make_plan(seed=seed, calls=STEPS) for seed in range(4)]


@pytest.fixture
def stores(plans, about, tmp_path):
    return [Store(tmp_path / "kept", about(plan)) for plan in plans]


def test_what_is_held_stays_until_the_end_and_after_it(no_room, draw, plans, stores, caplog):
    for _ in range(2):
        caplog.clear()
        with held(stores[:3], size=3 * 2**30):
            for plan in plans[:3]:
                draw(4, plan=plan)
        assert [one.folder.exists() for one in stores] == [True] * 3 + [False]
        [said] = [record.getMessage() for record in caplog.records]
        assert "take 3.0 GiB, and 0.0 GiB are kept at most" in said
        assert f"rm -r {stores[0].root} deletes them" in said
    assert [draw(4, plan=plan)[2] for plan in plans[:1]] == [0]
    draw(4, plan=plans[3])  # by another command: now they are in its way
    assert [one.folder.exists() for one in stores] == [False] * 3 + [True]


def test_what_fits_is_held_without_a_word(stores, caplog):
    with held(stores, size=store.MOST_BYTES):
        assert all(one.lock for one in stores)
    assert not any(one.lock for one in stores)
    assert not caplog.records


def test_plans_beyond_the_files_that_may_be_open_count_as_used(stores, monkeypatch):
    for one in stores:
        with one:
            os.utime(one.folder / "plan.json", (1, 1))
    monkeypatch.setattr(os, "sysconf", lambda name: 5)
    with held(stores, size=0):
        assert [one.lock is not None for one in stores] == [True, True, False, False]
        assert all((one.folder / "plan.json").stat().st_mtime > 1 for one in stores)


def test_a_front_larger_than_the_room_is_drawn_once_and_more_samplers_cost_only_themselves(
    no_room, trained, diffuse, network
):
    first = diffuse.json(f"{PARETO} samplers=[ddim,heun]")
    assert diffuse.err.count("are kept at most: they all stay") == 1
    network.clear()
    again = diffuse.json(f"{PARETO} samplers=[ddim,heun]")
    assert not network
    assert [c["value"] for c in again["cells"]] == [c["value"] for c in first["cells"]]
    diffuse.json(f"{PARETO} samplers=[dpmpp_2m,ddim,heun]")
    assert sum(network) == 8 * (2 + 5)


def test_a_front_that_was_stopped_goes_on_although_there_is_no_room(
    no_room, trained, diffuse, network, monkeypatch
):
    seen = Denoiser.forward

    def stopped(*args):
        if len(network) == 2 + 5 + 1:  # in the third cell
            raise KeyboardInterrupt
        return seen(*args)

    with monkeypatch.context() as patch:
        patch.setattr(Denoiser, "forward", stopped)
        assert diffuse(f"{PARETO} samplers=[ddim,dpmpp_2m]") == 130
    network.clear()
    diffuse.json(f"{PARETO} samplers=[ddim,dpmpp_2m]")
    assert sum(network) == 8 * (2 + 5)


def test_the_seeds_of_an_evaluation_do_not_delete_each_other(no_room, trained, diffuse, network):
    first = diffuse.json(f"{EVAL} seeds=3")
    assert diffuse.err.count("are kept at most: they all stay") == 1
    network.clear()
    more = diffuse.json(f"{EVAL} seeds=4")
    assert sum(network) == 8 * 2
    assert more["shards"] == {"drawn": 1, "known": 3}
    assert more["fid"]["per_seed"][:3] == first["fid"]["per_seed"]
