"""A comparison finds what is there and, nineteen times of twenty, nothing where nothing is."""

import copy
import math

import pytest
import torch
from jackknives import jackknife
from records import RECORD
from scipy import stats

from diffuse.comparison import brief, compare, difference, verdict
from diffuse.metrics import Moments, fid_estimate


def score(value, low, high, per_seed=()):
    return {"value": value, "ci95": [low, high], "floor": 0.5, "per_seed": list(per_seed)}


def record(fid_score, **changes):
    return {**copy.deepcopy(RECORD), "fid": fid_score, **changes}


def test_two_independent_intervals_add_up_in_quadrature():
    found = difference(score(10, 7, 13), score(5, 1, 9), same_seeds=False)
    assert (found.value, found.low, found.high) == (-5, -10, 0)  # 3 and 4 make 5
    assert not found.paired
    assert not found.shown


def test_of_a_skewed_interval_the_ends_that_face_each_other_count():
    found = difference(score(10, 9, 14), score(0, -3, 1), same_seeds=False)
    assert found.high == pytest.approx(-10 + math.hypot(1, 1))
    assert found.low == pytest.approx(-10 - math.hypot(3, 4))


def test_the_same_seeds_are_compared_pair_by_pair_as_scipy_does():
    first, other = [10.0, 12.0, 15.0], [9.1, 10.9, 14.2]
    found = difference(score(0, 0, 0, first), score(0, 0, 0, other), same_seeds=True)
    expected = stats.ttest_rel(other, first).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.paired
    assert found.shown
    apart = difference(score(12, 5, 19, first), score(11, 4, 18, other), same_seeds=False)
    assert not apart.shown


def test_shares_that_differ_by_as_much_in_every_seed_prove_nothing():
    """0.3 - 0.2 and 0.4 - 0.3 are not the same to the last bit."""
    first, other = score(0.3, 0.2, 0.4, [0.2, 0.3, 0.6]), score(0.4, 0.3, 0.5, [0.3, 0.4, 0.7])
    found = difference(first, other, same_seeds=True)
    assert found == difference(first, other, same_seeds=False)
    assert not found.shown


def test_shares_that_are_0_in_every_seed_of_both_are_no_proof_of_no_difference():
    none = score(0.0, 0.0, 0.013, [0.0, 0.0, 0.0])
    found = difference(none, none, same_seeds=True)
    assert (found.low, found.high) == pytest.approx((-0.013, 0.013))
    some = score(0.1, 0.05, 0.2, [0.1, 0.1, 0.1])
    assert difference(none, some, same_seeds=True) == difference(none, some, same_seeds=False)


def test_one_seed_or_other_seeds_cannot_be_paired():
    one = record(score(3, 2, 4, [3.0]))
    lines = compare([one, one]).lines
    assert not next(line.difference for line in lines if line.difference).paired
    three = {"seed": 0, "count": 3}
    first = record(score(3, 2, 4, [3, 4, 2]), seeds=three)
    other = record(score(3, 2, 4, [3, 4, 2]), seeds=three | {"seed": 7})
    for pair, paired in (([first, first], True), ([first, other], False)):
        assert compare(pair).lines[1].difference.paired == paired


def test_the_interval_of_a_mean_over_seeds_is_students():
    values = [3.0, 4.0, 8.0, 5.0]
    low, high = stats.t.interval(0.95, 3, loc=5.0, scale=stats.sem(values))
    first, other = score(0, 0, 0, [0.0] * 4), score(5, 5, 5, values)
    found = difference(first, other, same_seeds=True)
    assert found.paired
    assert (found.low, found.high) == pytest.approx((low, high))


WORDS = {
    ("fid", -1.1, -0.42): "better by 0.42 to 1.1",
    ("fid", 0.42, 1.1): "worse by 0.42 to 1.1",
    ("precision", 0.012, 0.034): "better by 0.012 to 0.034",
    ("gap", 1.5, 12.3): "higher by 1.5 to 12",
    ("kid", -0.0011, -0.00042): "better by 0.42 to 1.1",  # in the table's thousandths
    ("fid", -0.1, 0.3): "no difference that n=2048 can show",
}


@pytest.mark.parametrize(("case", "words"), WORDS.items())
def test_a_verdict_is_plain_words_and_knows_which_way_is_better(case, words):
    name, low, high = case
    middle = (low + high) / 2
    found = difference(score(0, 0, 0), score(middle, low, high), same_seeds=False)
    assert verdict(name, found, "n=2048") == words


def test_a_number_is_short_and_never_loses_its_size():
    values = (1234.4, 12.3, 1.24, 0.124, 0.00124, 0.0)
    assert [brief(v) for v in values] == ["1234", "12", "1.2", "0.12", "0.0012", "0"]


def test_against_other_training_images_only_what_they_do_not_touch_is_compared():
    gap = {"gap": score(1.0, 0.5, 1.5)}
    first = record(score(3, 2, 4), metrics=gap)
    other = copy.deepcopy(first)
    assert "gap" in {line.name for line in compare([first, other]).lines}
    other["real"]["sha256"] = "another"
    found = compare([first, other])
    assert found.left_out == {"gap": "measured against different training images"}
    assert {line.name for line in found.lines} == {"fid", "kid"}
    assert found.mismatches == []


def test_copies_are_counted_among_mirror_images_in_all_records_or_are_not_compared():
    copies = {name: score(0.5, 0.4, 0.6) for name in ("authenticity", "closer", "gap")}
    first = record(score(3, 2, 4), metrics=copies)
    other = copy.deepcopy(first)
    other["real"]["flip"] = True
    assert compare([first, other]).left_out.keys() == {"authenticity", "closer"}
    first["real"]["flip"] = True
    assert compare([first, other]).left_out == {}


def test_what_only_one_measured_is_left_out_by_name():
    found = compare([record(score(3, 2, 4), metrics={"recall": score(1, 0, 1)}), RECORD])
    assert found.left_out == {"recall": "not measured in all of them"}


def drawn(shift, random, reference, n=128, d=4):
    features = torch.randn(n, d, generator=random, dtype=torch.float64) + shift
    return score(*fid_estimate(features, Moments.of(reference)))


def without(one):
    """As older versions wrote it."""
    return {key: value for key, value in one.items() if key != "jackknife"}


def twins(rho, random, n=128, scale=1.0):
    """FIDs of two models of one feature, image by image of correlation rho, from N(0, 1).

    With `scale` 1 they are as good. Of one feature the FID is m^2 + (s - 1)^2.
    """
    first, more = torch.randn(2, n, generator=random, dtype=torch.float64)
    tables = first + 0.5, scale * (rho * first + math.sqrt(1 - rho**2) * more) + 0.5

    def of_one_feature(rows):
        return float(rows.mean() ** 2 + (rows.std() - 1) ** 2)

    return [jackknife(lambda kept, x=x: of_one_feature(x[kept]), n).record() for x in tables]


@pytest.mark.parametrize(("rho", "narrower"), [(0.0, (0.9, 1.15)), (0.9, (0.2, 0.5))])
def test_the_jackknife_of_a_difference_covers_it_and_knows_how_alike_the_images_are(rho, narrower):
    """Two models as good as each other: 5% of all differences are shown, whatever they share."""
    random, rounds = torch.Generator().manual_seed(0), 300
    pairs = [twins(rho, random) for _ in range(rounds)]
    found = [difference(*pair, same_seeds=True) for pair in pairs]
    assert all(one.paired for one in found)
    assert 0.02 < sum(one.shown for one in found) / rounds < 0.09
    apart = [difference(*map(without, pair), same_seeds=True) for pair in pairs]
    assert not any(one.paired for one in apart)
    ours, theirs = (sum(one.high - one.low for one in each) for each in (found, apart))
    assert narrower[0] < ours / theirs < narrower[1]


def test_the_jackknife_shows_a_difference_that_quadrature_cannot_and_holds_it():
    random = torch.Generator().manual_seed(1)
    pairs = [twins(0.99, random, n=800, scale=1.3) for _ in range(40)]
    found = [difference(*pair, same_seeds=True) for pair in pairs]
    assert sum(one.shown for one in found) >= 36
    assert sum(one.low < 0.3**2 < one.high for one in found) >= 35
    old = [difference(*map(without, pair), same_seeds=True) for pair in pairs]
    assert sum(one.shown for one in old) <= 4


def test_images_that_were_drawn_apart_are_no_pairs_though_the_jackknife_is_of_both():
    pair = twins(0.0, torch.Generator().manual_seed(0))
    ours, theirs = (difference(*pair, same_seeds=same) for same in (True, False))
    assert (ours.low, ours.high) == (theirs.low, theirs.high)
    assert ours.said == "paired, block by block (jackknife)"
    assert theirs.said == "unpaired, block by block (jackknife)"


def test_without_the_values_of_both_jackknives_the_intervals_add_up_in_quadrature():
    a, b = twins(0.9, torch.Generator().manual_seed(0))
    expected = difference(without(a), without(b), same_seeds=True)
    assert expected.said == "two independent 95% intervals, in quadrature"
    fewer = b | {"jackknife": b["jackknife"][1:]}
    alike = b | {"jackknife": [v + 0.1 for v in a["jackknife"]]}  # but for rounding: no proof
    for pair in ((a, without(b)), (without(a), b), (a, fewer), (a, alike)):
        assert difference(*pair, same_seeds=True) == expected
    assert difference(a, b, same_seeds=True, same_n=False) == expected


def test_the_same_images_are_no_further_apart_than_nothing():
    a, _ = twins(0.9, torch.Generator().manual_seed(0))
    line = compare([record(a), record(a)]).lines[1]
    assert line.difference is not None
    assert (line.difference.value, line.difference.low, line.difference.high) == (0, 0, 0)
    assert line.difference.paired
    assert line.verdict.startswith("no difference")


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "rounds"), [(1, 400), (3, 200)])
def test_two_samples_of_one_distribution_show_no_difference_19_times_of_20(seeds, rounds):
    """Models at some distance of the reference, as models are; drawn with different noise."""
    random = torch.Generator().manual_seed(seeds)
    reference = torch.randn(4000, 4, generator=random, dtype=torch.float64)
    found = 0
    for _ in range(rounds):
        pair = []
        for _ in range(2):
            each = [drawn(0.5, random, reference) for _ in range(seeds)]
            values = [one["value"] for one in each]
            mean = sum(values) / seeds
            pair.append(each[0] if seeds == 1 else score(mean, 0, 0, values))
        found += difference(*pair, same_seeds=seeds > 1).shown
    assert 0.02 < found / rounds < 0.08  # 5%, give or take three deviations of a count


def test_a_real_difference_is_found_and_its_interval_holds_it():
    random = torch.Generator().manual_seed(3)
    reference = torch.randn(4000, 4, generator=random, dtype=torch.float64)
    held = shown = 0
    for _ in range(40):
        near, far = (drawn(shift, random, reference) for shift in (0.5, 0.8))
        found = difference(near, far, same_seeds=False)
        shown += found.shown
        held += found.low < 4 * (0.8**2 - 0.5**2) < found.high
    assert shown == 40
    assert held >= 35


@pytest.mark.parametrize("name", ["per_class", "agreement"])
def test_what_is_said_of_classes_needs_as_many_images_of_each(name):
    def of(counts):
        return record(score(3, 2, 4), metrics={name: score(0.5, 0.4, 0.6) | {"counts": counts}})

    assert compare([of([5, 5]), of([9, 1])]).left_out == {
        name: "of other numbers of images of each class"
    }
    assert compare([of([5, 5]), of([5, 5])]).left_out == {}
