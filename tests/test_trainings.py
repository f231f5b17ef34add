"""Several trainings of each way to train: grouped by what was changed, compared by Student's t."""

import json

import pytest
from scipy.stats import ttest_ind

from diffuse.passport import Differing
from diffuse.trainings import Way, pooled, ways

SEEDS = [0, 1, 2, 0, 1, 2]
SCHEDULES = ["cosine"] * 3 + ["linear"] * 3
STEPS = [100] * 6
EVAL = "eval n=24 device=cpu metrics=fid encoder=pixels steps=2"


def test_trainings_of_one_config_are_one_way_whatever_their_seed_and_minutes():
    lengths = [100, 101, 99, 104, 100, 102]
    changed = {"schedule.name": SCHEDULES, "seed": SEEDS, "train.steps": lengths}
    found = ways(changed, [], lengths)
    assert found == [Way("schedule=cosine", (0, 1, 2)), Way("schedule=linear", (3, 4, 5))]


FAST, SLOW = [2000, 1990, 2010], [900, 905, 898]


def test_ways_that_differ_in_speed_have_other_steps_in_the_same_minutes():
    lengths = FAST + SLOW
    changed = {"model.width": [16] * 3 + [32] * 3, "seed": SEEDS, "train.steps": lengths}
    found = ways(changed, [], lengths)
    assert found == [Way("model.width=16", (0, 1, 2)), Way("model.width=32", (3, 4, 5))]


def test_ways_that_differ_in_nothing_but_their_minutes_are_named_by_their_steps():
    found = ways({"seed": SEEDS, "train.steps": FAST + SLOW}, [], FAST + SLOW)
    assert found == [
        Way("train.steps=1990 to 2010", (0, 1, 2)), Way("train.steps=898 to 905", (3, 4, 5)),
    ]  # fmt: skip
    lengths = [100, 100, 105, 105]  # typed, or a seed were there twice
    found = ways({"seed": [0, 1, 0, 1], "train.steps": lengths}, [], lengths)
    assert [way.name for way in found] == ["train.steps=100", "train.steps=105"]


def test_two_ways_of_one_function_are_told_apart_by_its_keys():
    changed = {
        "schedule.name": ["linear"] * 4 + ["cosine"] * 2, "seed": [0, 1, 0, 1, 0, 1],
        "schedule.betamax": [0.02, 0.02, 0.01, 0.01, None, None],
        "schedule.s": [None] * 4 + [0.008] * 2,
    }  # fmt: skip
    assert [way.name for way in ways(changed, [], STEPS)] == [
        "schedule=linear, schedule.betamax=0.02", "schedule=linear, schedule.betamax=0.01",
        "schedule=cosine",
    ]  # fmt: skip


def test_another_function_is_named_without_its_keys_and_any_other_key_in_full():
    changed = {
        "schedule.name": SCHEDULES, "schedule.betamax": [None] * 3 + [0.01] * 3, "seed": SEEDS,
        "optimizer.lr": [0.1] * 3 + [0.2] * 3,
    }  # fmt: skip
    names = [way.name for way in ways(changed, [], STEPS)]
    assert names == ["schedule=cosine, optimizer.lr=0.1", "schedule=linear, optimizer.lr=0.2"]


def test_images_that_were_drawn_in_another_way_are_another_way():
    tried = [
        Differing("sampler.steps", (10, 10, 10, 20, 20, 20)),
        Differing("weights.sha256", tuple("abcdef")),
    ]
    found = ways({"seed": SEEDS}, tried, STEPS)
    assert [(way.name, way.records) for way in found] == [
        ("sampler.steps=10", (0, 1, 2)), ("sampler.steps=20", (3, 4, 5)),
    ]  # fmt: skip


NONE = {
    "one training each": ({"schedule.name": ["a", "b"], "seed": [0, 1]}, [9, 9]),
    "one way": ({"seed": [0, 1, 2]}, [9, 9, 9]),
    "a training twice": ({"schedule.name": ["a", "a", "b"], "seed": [0, 0, 1]}, [9, 9, 9]),
    "no seeds": ({"schedule.name": ["a", "a", "b"]}, [9, 9, 9]),
    "other checkpoints": ({"schedule.name": ["a", "a", "b"], "seed": [0, 1, 0]}, [9, 5, 9]),
}


@pytest.mark.parametrize("case", NONE)
def test_what_is_no_set_of_trainings_is_not_pooled(case):
    changed, steps = NONE[case]
    assert ways(changed, [], steps) == []


def test_the_difference_is_students_with_one_deviation():
    values = [5.1, 4.9, 5.3, 6.0, 6.4, 5.8]
    first, other = pooled([Way("a", (0, 1, 2)), Way("b", (3, 4, 5))], values)
    theirs = ttest_ind(values[3:], values[:3]).confidence_interval(0.95)
    assert (other.difference.low, other.difference.high) == pytest.approx(tuple(theirs))
    assert other.difference.value == pytest.approx(other.mean - first.mean)
    assert first.difference is None


def test_a_single_training_borrows_the_deviation_of_the_others():
    _, other = pooled([Way("a", (0, 1, 2)), Way("b", (3,))], [5.0, 5.2, 5.4, 6.0])
    reach = 4.302652729911275 * 0.2 * (1 / 3 + 1) ** 0.5  # Student's t with 2 degrees of freedom
    assert other.difference.high - other.difference.value == pytest.approx(reach)
    assert other.sd is None


def test_trainings_that_agree_to_the_last_bit_prove_nothing():
    _, other = pooled([Way("a", (0, 1)), Way("b", (2, 3))], [5.0, 5.0, 6.0, 6.0])
    assert other.difference is None


@pytest.mark.slow
def test_a_sweep_is_compared_as_a_whole(tiny, diffuse, tmp_path):
    line = f"train {tiny} train.steps=2 train.sample_every=null"
    assert diffuse(f"{line} --multirun optimizer.lr=0.001,0.1 seed=0,1,2") == 0, diffuse.err
    jobs = [f"tiny/v001/{k}" for k in range(6)]
    message = diffuse.error(f"{EVAL} run=tiny/v001")
    assert message.startswith("run: tiny/v001 is a sweep of 6 jobs: add --multirun to do all, or ")
    assert message.endswith("name one: run=tiny/v001/0")
    message = diffuse.error("compare tiny/v001")
    assert message.endswith("were not evaluated: diffuse eval --multirun run=tiny/v001")
    assert diffuse(f"{EVAL} --multirun run=tiny/v001") == 0, diffuse.err
    found = diffuse.json("compare tiny/v001")
    first, other = found["over_trainings"]["fid"]
    assert [first["way"], other["way"]] == ["optimizer.lr=0.001", "optimizer.lr=0.1"]
    records = [json.loads((tmp_path / f / "record.json").read_text()) for f in other["folders"]]
    assert other["mean"] == pytest.approx(sum(r["fid"]["value"] for r in records) / 3)
    assert [r["weights"]["run"] for r in records] == [f"outputs/train/{job}" for job in jobs[3:]]
    for ref in ("tiny", "outputs/train/tiny/v001", str(tmp_path / "outputs/eval/eval-sweep/v001")):
        assert (
            diffuse.json(f"compare {ref}")["measures"]["fid"][1]["value"]
            == (found["measures"]["fid"][1]["value"])
        )
    assert diffuse("compare tiny/v001") == 0
    assert "FID, over trainings" in diffuse.out
    assert "  -> optimizer.lr=0.1: " in diffuse.out
    assert "3 and 3 trainings" in diffuse.out or " by " in diffuse.out
    assert [line for line in diffuse.out.splitlines() if len(line) > 80] == []
