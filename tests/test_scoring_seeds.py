"""A number over several seeds: its interval, and what it says of itself."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scored import POSSIBLE, SETTINGS

from diffuse.measures import MEASURES
from diffuse.metrics import kid, over_seeds, reach_of
from diffuse.scoring import Rows, Settings, curve, measured, real, rows_of


def test_several_seeds_are_a_mean_with_students_interval_and_each_of_them(judge, drawn):
    truth, draws = real(judge, 24), [drawn(seed) for seed in range(3)]
    [each] = zip(
        *(measured("fid", [rows], truth, SETTINGS).values() for rows in draws), strict=True
    )
    joined = measured("fid", draws, truth, SETTINGS)["fid"]
    values = [score["value"] for score in each]
    expected = over_seeds(values)
    assert joined["per_seed"] == values
    assert joined["per_seed_ci95"] == [score["ci95"] for score in each]
    assert joined["value"] == expected.mean
    assert joined["ci95"] == [max(0, expected.low), expected.high]
    assert joined["floor"] == each[0]["floor"]


def test_what_a_jackknife_left_out_is_kept_of_one_seed_for_what_it_is_the_interval_of(judge, drawn):
    truth = real(judge, 24)
    found = {k: v for g in POSSIBLE for k, v in measured(g, [drawn(0)], truth, SETTINGS).items()}
    kept = {name for name, score in found.items() if "jackknife" in score}
    assert kept >= {"fid", "per_class", "sliced", "pixel_mean", "pixel_sd"}
    assert not kept & {"kid", "precision", "gap", "authenticity", "closer"}
    for name in kept - {"per_class"}:
        reach = reach_of(found[name]["jackknife"])
        assert found[name]["ci95"][1] == pytest.approx(found[name]["value"] + reach), name
    draws = [drawn(seed) for seed in range(2)]
    for group in POSSIBLE:
        for score in measured(group, draws, truth, SETTINGS).values():
            assert "jackknife" not in score


@pytest.mark.parametrize(("group", "name"), [("gap", "gap"), ("memorisation", "closer")])
def test_what_no_seed_changes_stays_in_the_interval_over_seeds(group, name, judge, drawn):
    found = measured(group, [drawn(seed) for seed in range(3)], real(judge, 24), SETTINGS)[name]
    over = over_seeds(found["per_seed"])
    reach = math.hypot(over.high - over.mean, found["real_reach"])
    assert found["real_reach"] > 0
    assert found["ci95"][1] == pytest.approx(min(MEASURES[name].most, over.mean + reach))
    assert found["ci95"][0] == pytest.approx(max(MEASURES[name].least, over.mean - reach))


def test_seeds_that_happen_to_agree_are_not_taken_for_certainty(judge, drawn):
    same = [drawn(0)] * 3
    for score in measured("prdc", same, real(judge, 24), SETTINGS).values():
        assert score["ci95"] == pytest.approx(score["per_seed_ci95"][0])


def test_what_a_number_of_several_seeds_says_of_itself_agrees_with_it(judge, drawn):
    truth, draws = real(judge, 24), [drawn(seed) for seed in range(3)]
    found = {k: v for g in POSSIBLE for k, v in measured(g, draws, truth, SETTINGS).items()}
    gap, of_classes = found["gap"], found["per_class"]["classes"]
    assert gap["train"] - gap["test"] == pytest.approx(gap["value"])
    mean = sum(one["value"] for one in of_classes) / len(of_classes)
    assert mean == pytest.approx(found["per_class"]["value"])
    assert [len(one["per_seed"]) for one in of_classes] == [3, 3, 3]
    sds = [kid(r.features, judge.reference, 4, 16, seed=k).sd for k, r in enumerate(draws)]
    assert found["kid"]["sd"] == pytest.approx(sum(sds) / 3)
    medians = [measured("memorisation", [d], truth, SETTINGS)["closer"]["median"] for d in draws]
    assert found["closer"]["median"] == pytest.approx(sum(medians) / 3)
    assert found["authenticity"]["closest_of"] == "the first seed"


def test_each_draw_has_subsets_of_its_own_for_kid_and_the_first_those_of_a_single_one(judge, drawn):
    truth, same = real(judge, 24), [drawn(0)] * 3
    found = measured("kid", same, truth, SETTINGS)["kid"]
    values = [kid(same[0].features, judge.reference, 4, 16, seed=k).value for k in range(3)]
    assert found["per_seed"] == values
    assert len(set(values)) == 3
    single = measured("kid", same[:1], truth, SETTINGS)["kid"]
    assert single["value"] == values[0]
    assert [single[key] for key in ("floor", "floor_ci95")] == [found["floor"], found["floor_ci95"]]


@pytest.mark.slow
def test_the_interval_of_kid_over_seeds_covers_the_distance_to_the_reference(judge):
    """Rows x ~ N(s, 1) [d], so E[k(x, y)] = u^3 + 3 u |y|^2 / d^2 with u = 1 + s sum(y) / d."""
    d, s, settings = 8, 0.25, Settings(kid_subsets=10, kid_subset_size=50)
    random = torch.Generator().manual_seed(0)

    def table(n, mean=0.0):
        features = torch.randn(n, d, generator=random, dtype=torch.float64) + mean
        return Rows(torch.empty(n, 1, 8, 8, dtype=torch.uint8), features)

    def distance(y):
        u = 1 + s * y.sum(1) / d
        to_y = (u**3 + 3 * u * y.square().sum(1) / d**2).mean()
        kernel, v = (y @ y.T / d + 1) ** 3, 1 + s**2
        of_y = (kernel.sum() - kernel.trace()) / (len(y) * (len(y) - 1))
        of_x = v**3 + 3 * v * s**2 / d + 3 * v**2 / d + 6 * s**2 / d**2
        return float(of_x + of_y - 2 * to_y)

    held, with_the_same_subsets = [], []
    for _ in range(100):
        reference, draws = table(400), [table(600, s) for _ in range(5)]
        truth = replace(judge.real, reference=reference)
        low, high = measured("kid", draws, truth, settings)["kid"]["ci95"]
        held.append(low <= distance(reference.features) <= high)
        same = over_seeds([kid(x.features, reference.features, 10, 50).value for x in draws])
        with_the_same_subsets.append(same.low <= distance(reference.features) <= same.high)
    assert 0.9 <= np.mean(held) <= 0.99
    assert np.mean(with_the_same_subsets) < 0.88  # the control: an error that all seeds share


@pytest.mark.parametrize("group", [group for group in POSSIBLE if group != "kid"])
def test_the_order_of_the_seeds_changes_nothing_but_their_own_numbers(group, judge, drawn):
    def found(seeds):
        scores = measured(group, [drawn(seed) for seed in seeds], real(judge, 24), SETTINGS)
        return _without(scores, {"per_seed", "per_seed_ci95", "closest"})

    assert found([0, 1, 2]) == found([2, 0, 1])


def _without(node, keys):
    if isinstance(node, list):
        return [_without(one, keys) for one in node]
    if not isinstance(node, dict):
        return node
    return {key: _without(value, keys) for key, value in node.items() if key not in keys}


@pytest.mark.slow
def test_of_several_seeds_the_line_and_the_curve_go_through_the_mean_fid(judge, images):
    def rows(seed):
        random = torch.Generator().manual_seed(seed)
        grey = torch.randint(60, 200, (1000, 1, 8, 8), generator=random, dtype=torch.uint8)
        return rows_of(judge.encoder, grey)

    draws, truth = [rows(seed) for seed in range(3)], real(judge, 24)
    mean = measured("fid", draws, truth, SETTINGS)["fid"]["value"]
    found = measured("infinity", draws, truth, SETTINGS)["fid_infinity"]
    assert found["points"][0][:2] == pytest.approx([1000, mean])
    n, fids, _ = zip(*found["points"], strict=True)
    slope, value = np.polyfit([1 / k for k in n], fids, 1)
    assert (found["value"], found["slope"]) == pytest.approx((value, slope), rel=1e-6)
    assert found["ci95"][0] <= found["parabola"] <= found["ci95"][1]
    assert curve(draws, truth)[-1] == pytest.approx([1000, mean, 0])
    assert curve(draws, truth)[0] == pytest.approx(curve(draws[::-1], truth)[0])
