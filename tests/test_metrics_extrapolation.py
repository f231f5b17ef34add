"""FID without its bias, where the answer is known in closed form."""

import numpy as np
import pytest
import torch

from diffuse.metrics import Moments, bias_curve, enough, fid, fid_infinity, frechet

D = 8


def table(seed, n, scale=1.0, d=D):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=random, dtype=torch.float64) * scale


def limit(reference, scale=1.0):
    """The FID of infinitely many rows of `table`."""
    d = reference.shape[1]
    covariance = torch.eye(d, dtype=torch.float64) * scale**2
    exact = Moments.known(10**9, torch.zeros(d, dtype=torch.float64), covariance)
    return frechet(exact, Moments.of(reference))


@pytest.mark.parametrize("scale", [1.0, 1.1, 1.4])
def test_the_bias_is_gone_on_average(scale):
    reference = table(0, 2000)
    truth = limit(reference, scale)
    rows = [table(1 + i, 400, scale) for i in range(24)]
    found = [fid_infinity(some, reference, blocks=20).value for some in rows]
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - truth) < 3 * error
    biased = [fid(some, reference) for some in rows]
    assert np.mean(biased) - truth > 5 * error  # the control


def test_the_line_goes_through_its_points_and_every_row_counts_once_in_each():
    found = fid_infinity(table(1, 1000, 1.2), table(0, 2000), seed=5)
    assert [point.n for point in found.points] == [1000, 500, 250, 200]
    assert found.points[0].mean == pytest.approx(fid(table(1, 1000, 1.2), table(0, 2000)), rel=1e-9)
    slope, value = np.polyfit([1 / p.n for p in found.points], [p.mean for p in found.points], 1)
    assert (found.value, found.slope) == pytest.approx((value, slope), rel=1e-6)
    assert found.low < found.value < found.points[0].mean < found.points[-1].mean


def test_it_is_a_function_of_its_seed():
    a, b = table(1, 300, 1.2), table(0, 500)
    assert fid_infinity(a, b, seed=1) == fid_infinity(a, b, seed=1)
    assert fid_infinity(a, b, seed=1) != fid_infinity(a, b, seed=2)


def test_numbers_of_rows_that_no_number_of_blocks_divides_are_no_problem():
    reference = table(0, 2000)
    found = [fid_infinity(table(1 + i, 421, 1.2), reference) for i in range(8)]
    error = np.mean([e.value for e in found]) - limit(reference, 1.2)
    bias = np.mean([e.points[0].mean for e in found]) - limit(reference, 1.2)
    assert abs(error) < bias / 2


@pytest.mark.slow
@pytest.mark.parametrize(("n", "d", "scale"), [(400, 8, 1.3), (2000, 8, 1.1), (1000, 16, 1.1)])
def test_its_interval_covers_the_limit_at_least_19_times_of_20(n, d, scale):
    reference = table(0, 3000, d=d)
    truth = limit(reference, scale)
    found = [fid_infinity(table(1 + i, n, scale, d), reference) for i in range(60)]
    assert np.mean([e.low <= truth <= e.high for e in found]) >= 0.91
    wide = np.mean([e.high - e.low for e in found]) / (3.92 * np.std([e.value for e in found]))
    assert 0.9 < wide < 2.4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("d", "scale", "decay", "draws"),
    [
        *((d, *kind, 15) for d in (128,) for kind in ((1.0, 0.0), (1.2, 0.0), (1.1, 0.5))),
        (256, 1.2, 0.0, 7),
    ],
)
def test_from_enough_rows_on_it_covers_the_limit_however_many_features(d, scale, decay, draws):
    """Where all features count alike the bias is worst: the line alone covers it never at 256."""
    spread = torch.arange(1, d + 1, dtype=torch.float64) ** -decay
    reference, n = Moments.of(table(0, 10 * d, d=d) * spread), enough(d)
    exact = torch.diag((scale * spread) ** 2)
    truth = frechet(Moments.known(10**9, torch.zeros(d, dtype=torch.float64), exact), reference)
    found = [fid_infinity(table(1 + i, n, scale, d) * spread, reference) for i in range(draws)]
    assert np.mean([e.low <= truth <= e.high for e in found]) >= 0.85  # 13 of 15, 6 of 7
    one = found[0]
    assert one.high - one.low < 2 * (one.points[0].mean - truth)  # it says more than the FID does


def test_so_many_rows_are_enough_that_each_fit_has_more_rows_than_features():
    assert [enough(d) for d in (8, 128, 200, 201, 2048)] == [1000, 1000, 1000, 1005, 10240]


def test_a_curve_falls_as_one_over_n_to_the_fid_of_the_pool():
    pool, reference = table(1, 4000), table(0, 4000)
    curve = bias_curve(pool, reference, [250, 500, 1000, 4000], draws=60)
    assert [point.n for point in curve] == [250, 500, 1000, 4000]
    assert curve[-1].mean == pytest.approx(fid(pool, reference), rel=1e-9)
    assert curve[-1].sd == 0
    over = [point.mean - fid(pool, reference) for point in curve[:3]]
    # 1/250 - 1/4000 : 1/500 - 1/4000 : 1/1000 - 1/4000 are 15 : 7 : 3
    assert over[0] / over[1] == pytest.approx(15 / 7, rel=0.2)
    assert over[1] / over[2] == pytest.approx(7 / 3, rel=0.3)


def test_the_scatter_of_a_curve_is_that_of_fresh_samples_as_its_docstring_corrects_it():
    reference = table(0, 2000)
    (point,) = bias_curve(table(1, 1000, 1.4), reference, [500], draws=200)
    fresh = np.std([fid(table(2 + i, 500, 1.4), reference) for i in range(200)])
    assert point.sd / np.sqrt(1 - 500 / 1000) == pytest.approx(fresh, rel=0.25)


def test_a_curve_does_not_depend_on_which_other_sizes_are_asked_for():
    pool, reference = table(1, 300), table(0, 300)
    both = bias_curve(pool, reference, [50, 100])
    assert bias_curve(pool, reference, [100]) == both[1:]
    assert bias_curve(pool, reference, [100], seed=1) != both[1:]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: fid_infinity(a[:79], a), "needs at least 80 rows, got 79"),
        (lambda a: fid_infinity(a, a, blocks=30), "blocks must be a multiple of 20, got 30"),
        (lambda a: fid_infinity(a, a[:, :3]), "one encoder, got 8 and 3"),
        (lambda a: bias_curve(a, a, [50, 201]), r"sizes must be in \[2, 200\].* got 201"),
        (lambda a: bias_curve(a, a, [1]), "sizes must be in .* got 1"),
        (lambda a: bias_curve(a, a, [50], draws=1), "draws must be at least 2, got 1"),
        (lambda a: bias_curve(a / 0, a, [50]), "must be finite"),
    ],
)
def test_what_has_no_limit_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(table(0, 200))
    assert "\n" not in str(caught.value)
