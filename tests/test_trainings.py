"""Several trainings of each way to train: grouped by what was changed, compared by Welch's t."""

import json

import numpy as np
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


def test_trainings_of_equal_minutes_have_other_half_lives_and_are_one_way():
    """Early on, an average is over fewer images than its decay says: how many, its step decides."""
    lengths = FAST + SLOW
    tried = [
        Differing("weights.step", tuple(lengths)),
        Differing("weights.half_life", tuple(float(length) for length in lengths)),
    ]
    changed = {"schedule.name": SCHEDULES, "seed": SEEDS, "train.steps": lengths}
    assert [way.records for way in ways(changed, tried, lengths)] == [(0, 1, 2), (3, 4, 5)]


def test_another_average_of_the_same_trainings_is_another_way():
    tried = [
        Differing("weights.decay", (0.9, 0.9, 0.9, 0.99, 0.99, 0.99)),
        Differing("weights.half_life", (7.0, 7.0, 7.0, 70.0, 70.0, 70.0)),
    ]
    found = ways({"seed": SEEDS}, tried, STEPS)
    assert [(way.name, way.records) for way in found] == [
        ("weights.decay=0.9", (0, 1, 2)), ("weights.decay=0.99", (3, 4, 5)),
    ]  # fmt: skip


def test_images_that_were_drawn_in_another_way_are_another_way():
    tried = [
        Differing("sampler.steps", (10, 10, 10, 20, 20, 20)),
        Differing("weights.sha256", tuple("abcdef")),
    ]
    found = ways({"seed": SEEDS}, tried, STEPS)
    assert [(way.name, way.records) for way in found] == [
        ("sampler.steps=10", (0, 1, 2)), ("sampler.steps=20", (3, 4, 5)),
    ]  # fmt: skip


def test_calls_that_an_adaptive_sampler_chose_for_each_network_do_not_set_it_apart():
    tried = [Differing("sampler.nfe", (31.2, 30.9, 31.4, 28.0, 28.3, 27.9))]
    found = ways({"schedule.name": SCHEDULES, "seed": SEEDS}, tried, STEPS)
    assert [way.name for way in found] == ["schedule=cosine", "schedule=linear"]


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


def named(*numbers):
    """Ways of so many trainings each."""
    ends = [sum(numbers[: k + 1]) for k in range(len(numbers))]
    return [
        Way(str(k), tuple(range(end - n, end)))
        for k, (n, end) in enumerate(zip(numbers, ends, strict=True))
    ]


def reach(found):
    return found.difference.high - found.difference.value


@pytest.mark.parametrize("number", [2, 3])
def test_the_difference_is_welchs_of_two_ways_whatever_a_third_one_does(number):
    values = [5.1, 4.9, 5.3, 6.0, 6.8, 5.4][: 3 + number]
    first, other, _ = pooled(named(3, number, 3), [*values, 1, 50, 100])
    theirs = ttest_ind(values[3:], values[:3], equal_var=False).confidence_interval(0.95)
    assert (other.difference.low, other.difference.high) == pytest.approx(tuple(theirs))
    assert other.difference.value == pytest.approx(other.mean - first.mean)
    assert first.difference is None
    assert not other.borrowed


@pytest.mark.parametrize("sds", [(1, 1, 1, 5), (5, 1, 1, 1), (1, 1, 1, 1)])
def test_the_interval_covers_whatever_the_deviations_are(sds):
    """With one deviation for all it covers 80% of where the fourth way is noisy."""
    random, ways, times = np.random.default_rng(0), named(3, 3, 3, 3), 2000
    draws = random.normal(0, np.repeat(sds, 3), (times, 12)).tolist()
    covered = np.array(
        [[not one.difference.shown for one in pooled(ways, row)[1:]] for row in draws]
    )
    assert (covered.mean(0) > 0.93).all(), covered.mean(0)
    assert (covered.mean(0) < 0.985).all(), covered.mean(0)  # nor are quiet ones twice too wide


def test_a_single_training_borrows_the_deviation_of_all_that_have_several():
    values = [5.0, 5.2, 5.4, 6.0, 7.0, 7.4]
    _, other, several = pooled(named(3, 1, 2), values)
    sd = ((2 * 0.2**2 + 0.4**2 / 2) / 3) ** 0.5
    student = 3.182446305284263  # with 3 degrees of freedom
    assert reach(other) == pytest.approx(student * sd * (1 / 3 + 1) ** 0.5)
    assert other.sd is None
    assert "of a single training the scatter is not known" in other.note
    assert (several.borrowed, several.note) == (False, "")
    _, *others = pooled(named(1, 3, 1), [6.0, 5.0, 5.2, 5.4, 7.0])
    assert all(one.borrowed for one in others)


def test_trainings_that_agree_to_the_last_bit_prove_nothing():
    _, other = pooled(named(2, 2), [5.0, 5.0, 6.0, 6.0])
    assert other.difference is None
    _, other = pooled(named(2, 1), [5.0, 5.0, 6.0])
    assert other.difference is None


def test_where_one_way_agrees_to_the_last_bit_all_freedom_is_the_others():
    _, other = pooled(named(2, 3), [5.0, 5.0, 6.0, 6.3, 6.6])
    assert reach(other) == pytest.approx(4.302652729911275 * 0.3 / 3**0.5)


def test_of_two_trainings_it_is_said_if_a_third_would_show_the_difference():
    values = [5.0, 5.4, 6.0, 6.4]
    _, other = pooled(named(2, 2), values)
    assert not other.difference.shown
    times = 4.302652729911275 / 2.7764451051977934 * 1.5**0.5  # freedom 2 to 4, and the error
    assert other.narrower == pytest.approx(times)
    assert other.note.endswith("of each would make this interval about 1.9 times narrower")
    assert pooled(named(2, 2), [5.0, 5.4, 5.1, 5.5])[1].note == ""  # it would not show that
    assert pooled(named(2, 2), [5.0, 5.1, 6.0, 6.1])[1].note == ""  # which is shown already
    assert pooled(named(3, 3), [5.0, 5.5, 6.0, 5.8, 6.2, 7.0])[1].note == ""


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
    long = [line for line in diffuse.out.splitlines() if len(line) > 80]
    assert [line for line in long if "is less than the 64 features" not in line] == []
