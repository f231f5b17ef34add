"""Of several seeds an interval of a difference holds, too, what none of them changes."""

import math

import pytest
import torch
from scipy import stats

from diffuse.comparison import difference
from diffuse.metrics import Moments, fid_gap, fid_infinity, frechet
from diffuse.scoring.joining import joined

SEEDS = 3
D = 8
DEVIATIONS = torch.exp(-torch.arange(D, dtype=torch.float64) / 4)


def rows(random, n, deviations=DEVIATIONS):
    return torch.randn(n, len(deviations), generator=random, dtype=torch.float64) * deviations


def collapsed(table):
    """Of a third of the spread in most features, and off in the first."""
    table = table.clone()
    table[:, 2:] *= 0.3
    table[:, 0] += 1
    return table


def gap(table, train, test):
    found = fid_gap(table, train, test)
    return {"value": found.value, "ci95": [*found.interval], "real_reach": found.reach}


def infinity(table, reference):
    found = fid_infinity(table, reference, blocks=20)  # of its own interval nothing is used
    ends = [found.low, found.high]
    return {"value": found.value, "ci95": ends, "parabola": found.parabola}


def both(name, measure, kinds, random, *real, n=150, deviations=DEVIATIONS):
    """Two models, image by image from the same noise of SEEDS seeds."""
    noise = [rows(random, n, deviations) for _ in range(SEEDS)]
    return [joined(name, [measure(kind(one), *real) for one in noise]) for kind in kinds]


def held(pairs, truth):
    """How many intervals hold it: those of seeds alone, and with what they do not change."""
    found = [difference(*pair, same_seeds=True) for pair in pairs]
    fixed = ("real_reach", "parabola")
    bare = [[{k: v for k, v in one.items() if k not in fixed} for one in pair] for pair in pairs]
    alone = [difference(*pair, same_seeds=True) for pair in bare]
    assert all(one.paired for one in (*found, *alone))
    return [sum(one.low <= truth <= one.high for one in each) for each in (alone, found)]


def test_a_gap_that_neither_has_is_no_difference_whatever_the_real_images():
    """Fresh rows have no true gap."""
    random, rounds = torch.Generator().manual_seed(0), 20
    real = [(rows(random, 150), rows(random, 150)) for _ in range(rounds)]
    pairs = [both("gap", gap, (torch.clone, collapsed), random, *each) for each in real]
    alone, found = held(pairs, 0.0)
    assert alone <= 5
    assert found >= 18


@pytest.mark.slow
def test_two_fids_at_infinite_n_differ_by_what_infinitely_many_images_say():
    """A good model beside a collapsed one: the line misses more of the one than of the other."""
    d, rounds = 40, 12
    even = torch.ones(d, dtype=torch.float64)
    far = torch.cat([torch.ones(2), torch.full((d - 2,), 0.1)]).double()
    random = torch.Generator().manual_seed(1)
    reference = rows(random, 10 * d, even)
    infinite = (
        Moments.known(10**9, torch.zeros(d).double(), torch.diag(one**2)) for one in (even, far)
    )
    first, other = (frechet(one, Moments.of(reference)) for one in infinite)
    kinds = (torch.clone, lambda table: table * far)
    pairs = [
        both("fid_infinity", infinity, kinds, random, reference, n=5 * d, deviations=even)
        for _ in range(rounds)
    ]
    alone, found = held(pairs, other - first)
    assert alone <= 3
    assert found >= 11


def test_the_parts_add_up_as_they_do_in_one_record():
    values = [1.0, 2.0, 4.0], [2.0, 5.0, 6.0]
    low, high = stats.ttest_rel(values[1], values[0]).confidence_interval(0.95)
    middle, reach = (low + high) / 2, (high - low) / 2
    first, other = (
        {"value": sum(each) / 3, "ci95": [0.0, 9.0], "per_seed": each} for each in values
    )
    found = difference(first | {"real_reach": 3.0}, other | {"real_reach": 4.0}, same_seeds=True)
    assert found.high - middle == pytest.approx(math.hypot(reach, 5))
    assert middle - found.low == pytest.approx(math.hypot(reach, 5))
    bent = [one | {"parabola": one["value"] + b} for one, b in ((first, -1.0), (other, -1.5))]
    found = difference(*bent, same_seeds=True)
    assert (found.low, found.high) == pytest.approx((low - 0.5, high))
    found = difference(*reversed(bent), same_seeds=True)
    assert (found.low, found.high) == pytest.approx((-high, 0.5 - low))
