"""An interval covers what it says, and the same rows give the same interval."""

import statistics

import numpy as np
import pytest
import torch
from jackknives import jackknife
from scipy.stats import binomtest, t

from diffuse.metrics import (
    Estimate,
    fid,
    fid_estimate,
    over_seeds,
    reach_of,
    wilson,
)
from diffuse.metrics.tables import Moments


def normal(random, *shape):
    return torch.randn(*shape, generator=random, dtype=torch.float64)


def test_the_jackknife_of_a_mean_with_blocks_of_two_is_the_textbook_interval():
    values = normal(torch.Generator().manual_seed(0), 40)
    pairs = jackknife(lambda kept: float(values[kept].mean()), 40, blocks=20, seed=3)
    assert pairs.value == pytest.approx(float(values.mean()), rel=1e-12)
    constant = jackknife(lambda kept: 7.0, 40)
    assert constant == Estimate(7.0, 7.0, 7.0)
    # a mean over blocks of equal size has the interval of the means of the blocks
    draws = []
    jackknife(lambda kept: draws.append(kept) or 0.0, 40, blocks=20, seed=3)
    left = [set(range(40)) - set(kept.tolist()) for kept in draws[:20]]
    assert sorted(i for rows in left for i in rows) == list(range(40))
    means = [float(values[sorted(rows)].mean()) for rows in left]
    reach = t.ppf(0.975, 19) * statistics.stdev(means) / np.sqrt(20)
    assert pairs.high - pairs.value == pytest.approx(reach, rel=1e-9)


def test_the_generic_jackknife_of_the_fid_is_the_fast_one():
    random = torch.Generator().manual_seed(0)
    a, b = normal(random, 300, 5) * 1.2, normal(random, 200, 5)
    slow = jackknife(lambda kept: fid(a[kept], b), 300, blocks=10, seed=2)
    quick = fid_estimate(a, Moments.of(b), blocks=10, seed=2)
    assert quick == pytest.approx(slow, rel=1e-9)
    assert quick.left_out == pytest.approx(slow.left_out, rel=1e-9)
    assert quick.high - quick.value == pytest.approx(reach_of(quick.left_out), rel=1e-12)
    known = {"value": quick.value, "ci95": [quick.low, quick.high], "jackknife": [*quick.left_out]}
    assert quick.record() == known
    assert Estimate(1.0, 0.5, 1.5).record() == {"value": 1.0, "ci95": [0.5, 1.5]}


@pytest.mark.parametrize(
    ("statistic", "truth"),
    [(torch.mean, 1.0), (torch.std, 1.0), (torch.median, np.log(2))],
    ids=["mean", "deviation", "median"],
)
def test_the_jackknife_covers_what_is_known_of_an_exponential_19_times_of_20(statistic, truth):
    random = torch.Generator().manual_seed(0)
    hits = 0
    for _ in range(200):
        values = torch.empty(600, dtype=torch.float64).exponential_(generator=random)
        estimate = jackknife(lambda kept, x=values: float(statistic(x[kept])), 600)
        hits += estimate.low <= truth <= estimate.high
    assert 0.9 <= hits / 200 <= 0.99  # three standard errors on either side


def test_an_interval_over_seeds_is_students():
    values = [3.1, 2.7, 3.4]
    found = over_seeds(values)
    low, high = t.interval(0.95, 2, np.mean(values), np.std(values, ddof=1) / np.sqrt(3))
    assert found == pytest.approx((np.mean(values), np.std(values, ddof=1), low, high), rel=1e-12)


def test_an_interval_over_three_seeds_covers_the_mean_and_one_of_normal_theory_would_not():
    draws = normal(torch.Generator().manual_seed(0), 2000, 3)
    found = [over_seeds(values) for values in draws.tolist()]
    share = np.mean([s.low <= 0 <= s.high for s in found])
    assert share == pytest.approx(0.95, abs=0.015)
    narrow = np.mean([abs(s.mean) <= 1.96 * s.sd / np.sqrt(3) for s in found])
    assert narrow < 0.85


@pytest.mark.parametrize(("hits", "n"), [(0, 50), (1, 50), (25, 50), (49, 50), (50, 50), (9, 7000)])
def test_a_share_has_wilsons_interval(hits, n):
    low, high = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson(hits / n, n) == pytest.approx((hits / n, low, high), abs=1e-9)


def test_a_share_of_nothing_at_all_is_not_certain():
    assert wilson(0.0, 100).high > 0.03
    assert wilson(1.0, 100).low < 0.97


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: over_seeds([1.0]), "at least 2 values, got 1"),
        (lambda: over_seeds([1.0, float("nan")]), "must be finite, got nan"),
        (lambda: wilson(1.2, 10), r"a share is in \[0, 1\] of n > 0 rows, got 1.2 of 10"),
        (lambda: jackknife(lambda kept: 0.0, 10, blocks=6), r"blocks must be in \[2, .*5\], got 6"),
    ],
)
def test_what_has_no_interval_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
