"""A generator that copies is caught, and one that does not is left in peace."""

import numpy as np
import pytest
import torch
from jackknives import jackknife
from scipy.spatial import cKDTree
from scipy.stats import norm

from diffuse.metrics import (
    Moments,
    Neighbours,
    authenticity,
    closeness,
    fid_estimate,
    fid_gap,
    frechet,
    nearest,
    wilson,
)


def table(seed, n, d=8, scale=1.0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=random, dtype=torch.float64) * scale


TRAIN, TEST = table(0, 1000), table(1, 500)


def copies(seed, share, n=500):
    """Of training rows, a little off; the rest is fresh."""
    rows = table(seed, n)
    many = round(share * n)
    rows[:many] = TRAIN[:many] + 0.01 * table(seed + 1, many)
    return rows


def test_authenticity_is_the_definition():
    rows = copies(2, 0.4)
    tree = cKDTree(TRAIN.numpy())
    distance, nearest_one = tree.query(rows.numpy())
    others = tree.query(TRAIN[nearest_one].numpy(), 2)[0][:, 1]
    assert authenticity(rows, TRAIN).value == np.mean(distance > others)
    assert authenticity(rows, TRAIN, nearest(rows, TRAIN, 3)) == authenticity(rows, TRAIN)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_authenticity_falls_by_the_share_of_copies(share):
    fresh = authenticity(TEST, TRAIN).value
    found = authenticity(copies(2, share), TRAIN)
    assert found.low - 0.05 <= (1 - share) * fresh <= found.high + 0.05
    if share == 1:
        assert found.value == 0
        assert found.high < 0.02


def test_of_a_training_row_that_is_there_twice_only_the_very_same_is_a_copy():
    """Alaa et al. (2022): its other row is as close as a row can get, so a near one is no copy."""
    twice = torch.cat([TRAIN, TRAIN])
    assert authenticity(TRAIN[:50], twice).value == 0
    assert authenticity(TRAIN[:50] + 1e-3, twice).value == 1


def test_the_mirror_image_of_a_row_is_no_other_row():
    """Of a nearly symmetric image it is as near as its copies are."""
    both = torch.cat([TRAIN, TRAIN + 1e-3])
    near = TRAIN[:50] + 3e-3
    assert authenticity(near, both).value == 1
    assert authenticity(near, both, mirrored=True).value == 0
    mirrored = torch.cat([TRAIN, TRAIN.flip(1)])
    apart = torch.cdist(mirrored, mirrored).fill_diagonal_(torch.inf)
    apart.view(2, 1000, 2, 1000).diagonal(dim1=1, dim2=3).fill_(torch.inf)
    distance, near = torch.cdist(TEST, mirrored).min(1)
    share = (distance > apart.amin(1)[near]).double().mean()
    assert authenticity(TEST, mirrored, mirrored=True).value == pytest.approx(float(share))


def test_closeness_is_the_quantile_it_was_asked_for_where_nothing_is_memorised():
    found = closeness(table(2, 500), TEST, TRAIN)
    assert found.share.low <= 0.05 <= found.share.high
    assert found.median == pytest.approx(found.median_test, rel=0.05)
    distance = cKDTree(TRAIN.numpy()).query(TEST.numpy())[0]
    assert found.threshold == pytest.approx(np.quantile(distance, 0.05), rel=1e-9)


def test_closeness_counts_the_copies():
    found = closeness(copies(2, 0.3), TEST, TRAIN, known=nearest(copies(2, 0.3), TRAIN))
    assert found.share.value == pytest.approx(0.3 + 0.7 * 0.05, abs=0.03)
    assert found.share.low > 0.25
    assert closeness(copies(2, 1), TEST, TRAIN).median < 0.1 * found.median_test


NOTHING = torch.empty(0)  # tables whose distances are known


def distances(values):
    rows = torch.as_tensor(values)[:, None]
    return Neighbours(torch.zeros(len(rows), 1, dtype=torch.int64), rows)


@pytest.mark.parametrize("nearer", [0, 1, 2])  # in deviations: shares of 0.05, 0.26 and 0.64
def test_the_interval_of_closeness_covers_the_share_of_a_generator_that_copies(nearer):
    n, m = 2048, 360
    random, share = np.random.default_rng(nearer), norm.cdf(norm.ppf(0.05) + nearer)
    held, of_fresh_rows = [], []
    for _ in range(1000):
        drawn = distances(10 - nearer + random.standard_normal(n))
        unseen = distances(10 + random.standard_normal(m))
        found = closeness(NOTHING, NOTHING, NOTHING, known=drawn, known_test=unseen).share
        old = wilson(found.value, n * m / (n + m))
        held.append(found.low <= share <= found.high)
        of_fresh_rows.append(old.low <= share <= old.high)
    assert 0.93 <= np.mean(held) <= 0.98
    if nearer:  # the control: with share (1 - share) / m for the test rows it is too sure
        assert np.mean(of_fresh_rows) < 0.88


def test_copies_count_where_test_rows_are_copies_too():
    """Of data that repeats itself: a quantile of 0 is below no distance."""
    train = table(0, 300)
    test = torch.cat([train[:20], table(1, 180)])
    found = closeness(train[:50], test, train)
    assert (found.share.value, found.threshold) == (1, 0)
    assert closeness(test, test, train).share.value == 0.1


def test_where_no_generated_row_is_near_the_threshold_the_test_rows_add_nothing():
    found = closeness(copies(2, 1), TEST, TRAIN)
    assert found.share == wilson(1.0, 500)
    assert found.reach == 0
    mixed = closeness(copies(2, 0.3), TEST, TRAIN)
    assert 0 < mixed.reach < closeness(table(2, 500), TEST, TRAIN).reach


def test_of_the_interval_of_closeness_the_test_rows_part_is_the_share_at_the_thresholds_ends():
    drawn, unseen = np.arange(1, 201) / 100, np.arange(1, 101) / 10  # 10 g = f
    found = closeness(
        NOTHING, NOTHING, NOTHING, known=distances(drawn), known_test=distances(unseen)
    )
    d = norm.ppf(0.975) * np.sqrt(0.05 * 0.95 / 100)
    low, at, high = (
        float(np.mean(drawn < np.quantile(unseen, q))) for q in (0.05 - d, 0.05, 0.05 + d)
    )
    own = wilson(at, 200)
    assert (found.share.value, found.reach) == (at, pytest.approx((high - low) / 2))
    assert found.share.low == pytest.approx(at - np.hypot(at - own.low, at - low))
    assert found.share.high == pytest.approx(at + np.hypot(own.high - at, high - at))


@pytest.mark.parametrize("m", [1, 2, 30])
def test_of_few_test_rows_the_interval_of_closeness_is_a_share(m):
    for rows in (table(2, 50), copies(2, 0.5, 50), 2 * table(2, 50)):
        found = closeness(rows, TEST[:m], TRAIN).share
        assert 0 <= found.low < found.high <= 1


@pytest.mark.slow
def test_the_interval_of_closeness_covers_over_other_test_rows_as_well():
    found = [
        closeness(table(2 * i, 400), table(2 * i + 1, 400), TRAIN).share for i in range(5, 205)
    ]
    assert 0.9 <= np.mean([e.low <= 0.05 <= e.high for e in found]) <= 0.99


def test_the_gap_is_the_difference_of_two_fids_against_as_many_rows():
    rows = table(2, 300, scale=1.2)
    found = fid_gap(rows, TRAIN[:500], TEST)
    for one, reference in ((found.train, TRAIN[:500]), (found.test, TEST)):
        whole = fid_estimate(rows, Moments.of(reference))
        assert one == pytest.approx(whole, rel=1e-9)
        assert one.left_out == pytest.approx(whole.left_out, rel=1e-9)
        assert one.low < one.value < one.high
    assert found.value == pytest.approx(found.train.value - found.test.value, rel=1e-12)
    assert (found.m, fid_gap(rows, TRAIN, TEST).m) == (500, 500)
    assert fid_gap(rows, TEST, TRAIN).value == pytest.approx(-fid_gap(rows, TRAIN, TEST).value)


def test_the_gap_against_few_rows_takes_as_many_blocks_as_they_make():
    few = fid_gap(table(2, 300), TRAIN, TEST[:7])
    assert few.m == 7
    assert few.interval.low < few.value < few.interval.high
    assert 0 < few.reach < few.interval.high - few.value


def test_the_gap_of_a_generator_that_copies_its_few_training_rows_is_below_0():
    few, other = TRAIN[:60], TEST[:60]
    rows = few[torch.arange(600) % 60] + 0.05 * table(3, 600)
    assert fid_gap(rows, few, other).interval.high < 0


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 1.3])
def test_the_interval_of_the_gap_covers_0_over_samples_of_all_three_tables(scale):
    found = [
        fid_gap(table(3 * i, 300, scale=scale), table(3 * i + 1, 600), table(3 * i + 2, 300))
        for i in range(150)
    ]
    share = np.mean([gap.interval.low <= 0 <= gap.interval.high for gap in found])
    assert share >= 0.9
    if scale > 1:
        assert share < 1  # it says something
    wide = np.std([gap.value for gap in found])
    assert np.mean([g.interval.high - g.interval.low for g in found]) / (3.92 * wide) < 1.7


@pytest.mark.slow
def test_over_generated_rows_alone_the_interval_of_the_gap_would_be_too_sure():
    """The control: the references are samples, too."""
    hits = 0
    for i in range(60):
        rows, train, test = (table(3 * i + j, 300, scale=(1.3, 1, 1)[j]) for j in range(3))
        references = Moments.of(train), Moments.of(test)

        def gap(kept, rows=rows, references=references):
            moments = Moments.of(rows[kept])
            return frechet(moments, references[0]) - frechet(moments, references[1])

        alone = jackknife(gap, 300)
        hits += alone.low <= 0 <= alone.high
    assert hits / 60 < 0.8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: closeness(TEST, TEST, TRAIN, quantile=0.0),
            r"quantile must be in \(0, 1\), got 0",
        ),
        (lambda: authenticity(TEST[:, :3], TRAIN), "one encoder, got 3 and 8"),
        (lambda: authenticity(TEST, TRAIN[:1]), "k must be in"),
        (lambda: fid_gap(TEST, TRAIN, TEST[:, :3]), "one encoder, got 8 and 3"),
        (lambda: fid_gap(TEST * torch.nan, TRAIN, TEST), "must be finite"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
