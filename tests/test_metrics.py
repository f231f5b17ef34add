"""FID and KID against closed forms, invariances, and four other people's ways to compute them."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from diffuse.metrics import Kid, Moments, fid, fid_estimate, frechet, kid, kid_interval


def gaussian(seed, n, d, spread=1.0, shift=0.0):
    """A table [n d] with correlated columns; the scales of its directions span `spread`."""
    random = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(d, d, generator=random, dtype=torch.float64)).Q
    scales = torch.logspace(0, -np.log10(spread), d, dtype=torch.float64)
    return torch.randn(n, d, generator=random, dtype=torch.float64) * scales @ turn + shift


def by_sqrtm(a, b):
    """pytorch-fid's way."""
    a, b = a.numpy(), b.numpy()
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    gap = a.mean(0) - b.mean(0)
    return gap @ gap + np.trace(s + t) - 2 * np.trace(np.asarray(sqrtm(s @ t))).real


def by_newton_schulz(a, b):
    """The lessons' way: an iteration of matrix products."""
    s, t = torch.cov(a.T), torch.cov(b.T)
    product = s @ t
    norm, eye = product.norm(), torch.eye(len(s), dtype=s.dtype)
    y, z = product / norm, eye
    for _ in range(60):
        step = (3 * eye - z @ y) / 2
        y, z = y @ step, step @ z
    gap = a.mean(0) - b.mean(0)
    return float(gap @ gap + s.trace() + t.trace() - 2 * y.trace() * norm.sqrt())


def by_singular_values(a, b):
    """tr (S T)^(1/2) without S and T: the nuclear norm of the product of the centred tables."""
    a, b = a.numpy(), b.numpy()
    gap = a.mean(0) - b.mean(0)
    a, b = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b))
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return gap @ gap + (a**2).sum() + (b**2).sum() - 2 * root


class Passing(torch.nn.Module):
    """Lets torchmetrics have ready-made features."""

    num_features = 12

    def forward(self, features):
        return features


def by_torchmetrics(a, b):
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=Passing()).set_dtype(torch.float64)
    metric.update(a, real=True)
    metric.update(b, real=False)
    return float(metric.compute())


def by_torch_fidelity(a, b):
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    statistics = (fid_features_to_statistics(table) for table in (a, b))
    return fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]


SLOW = pytest.mark.slow  # where an import takes seconds


def test_gaussians_with_common_axes_have_the_distance_in_closed_form():
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    s, t = torch.tensor([[1.0, 4, 9, 0.25, 2], [4.0, 1, 9, 1, 3]], dtype=torch.float64)
    a = Moments.known(100, torch.zeros(5), turn @ s.diag() @ turn.T)
    b = Moments.known(50, torch.full((5,), 2.0), turn @ t.diag() @ turn.T)
    closed = 5 * 2**2 + ((s.sqrt() - t.sqrt()) ** 2).sum()
    assert frechet(a, b) == pytest.approx(float(closed), rel=1e-12)


@pytest.mark.parametrize(
    "oracle",
    [
        by_sqrtm,
        by_newton_schulz,
        by_singular_values,
        by_torchmetrics,
        pytest.param(by_torch_fidelity, marks=SLOW),
    ],
)
def test_fid_is_what_others_compute(oracle):
    a, b = gaussian(0, 300, 12, spread=5), gaussian(1, 200, 12, spread=9, shift=0.1)
    assert fid(a, b) == pytest.approx(oracle(a, b), rel=1e-6)


@pytest.mark.parametrize("spread", [1e2, 1e4, 1e6, 1e8])
def test_features_of_very_different_scales_keep_the_distance_exact(spread):
    a, b = gaussian(0, 400, 40, spread), 1.01 * gaussian(0, 300, 40, spread)
    assert fid(a, b) == pytest.approx(by_singular_values(a, b), rel=1e-7)


@pytest.mark.parametrize(("n", "m"), [(20, 20), (20, 300), (300, 20), (2, 2), (2, 300)])
def test_fewer_samples_than_features_are_no_problem_for_the_arithmetic(n, m):
    a, b = gaussian(0, n, 50), gaussian(1, m, 50, spread=3)
    assert fid(a, b) == pytest.approx(by_singular_values(a, b), rel=1e-9)


def test_features_that_never_change_add_nothing():
    a, b = gaussian(0, 100, 6), gaussian(1, 100, 6)
    dead = torch.full((100, 3), 7.0)
    assert fid(torch.cat([a, dead], 1), torch.cat([b, dead], 1)) == pytest.approx(fid(a, b))
    assert fid(dead, dead) == 0


@pytest.mark.parametrize(("n", "d"), [(500, 20), (10, 20)])
def test_a_table_is_at_distance_nothing_from_itself(n, d):
    a = gaussian(0, n, d, spread=100)
    assert 0 <= fid(a, a) < 1e-10


def test_the_distance_is_symmetric_and_turns_moves_and_scales_with_the_features():
    a, b = gaussian(0, 200, 10), gaussian(1, 150, 10, spread=4, shift=0.3)
    value = fid(a, b)
    turn = torch.linalg.qr(gaussian(2, 10, 10)).Q
    assert fid(b, a) == pytest.approx(value, rel=1e-12)
    assert fid(a @ turn, b @ turn) == pytest.approx(value, rel=1e-10)
    assert fid(a + 5, b + 5) == pytest.approx(value, rel=1e-10)
    assert fid(3 * a, 3 * b) == pytest.approx(9 * value, rel=1e-10)


@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
def test_moments_do_not_depend_on_the_batches_they_are_summed_in(batch):
    table = gaussian(0, 1000, 8, spread=50, shift=1e3)  # a large mean is where naive sums fail
    first, *rest = (Moments.of(rows) for rows in table.split(batch))
    total = sum(rest, start=first)
    covariance = torch.from_numpy(np.cov(table.numpy(), rowvar=False))
    assert total.n == 1000
    torch.testing.assert_close(total.mean, table.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(total.covariance, covariance, rtol=1e-9, atol=1e-12)
    assert frechet(total, Moments.of(table)) < 1e-10


@pytest.mark.parametrize("batch", [1, 7, 64, 999])
def test_the_distance_does_not_depend_on_the_batches_it_is_summed_in(batch):
    a, b = gaussian(0, 1000, 8, spread=50, shift=3), gaussian(1, 800, 8, spread=9)
    first, *rest = (Moments.of(rows) for rows in a.split(batch))
    assert frechet(sum(rest, start=first), Moments.of(b)) == pytest.approx(fid(a, b), rel=1e-12)


def test_taking_rows_away_is_the_inverse_of_adding_them():
    table = gaussian(0, 300, 8, shift=10)
    rest = Moments.of(table) - Moments.of(table[:37])
    direct = Moments.of(table[37:])
    assert rest.n == direct.n
    torch.testing.assert_close(rest.mean, direct.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(rest.covariance, direct.covariance, rtol=1e-10, atol=1e-12)


def test_half_precision_features_are_summed_in_float64():
    table = gaussian(0, 5000, 4, shift=3).half()
    assert Moments.of(table).mean.dtype == torch.float64
    assert fid(table, table.double()) < 1e-12


@pytest.mark.slow
def test_the_interval_covers_the_mean_fid_of_this_many_samples_19_times_of_20():
    reference = gaussian(0, 3000, 8)
    random = torch.Generator().manual_seed(1)
    tables = [torch.randn(400, 8, generator=random) * 1.1 for _ in range(600)]
    mean = np.mean([fid(table, reference) for table in tables])
    intervals = [fid_estimate(table, Moments.of(reference)) for table in tables[:300]]
    share = np.mean([i.low <= mean <= i.high for i in intervals])
    assert 0.91 < share < 0.985  # 0.95 give or take three standard errors
    # the control: what others print, quantiles of the FID of resampled tables, sits too high
    covered = [_bootstrap(table, reference, random)[0] <= mean for table in tables[:20]]
    assert np.mean(covered) < 0.5


def _bootstrap(table, reference, random):
    draws = [
        fid(table[torch.randint(len(table), (len(table),), generator=random)], reference)
        for _ in range(60)
    ]
    return np.quantile(draws, [0.025, 0.975])


def test_the_interval_does_not_care_that_samples_come_sorted_by_class():
    centres = 5 * torch.eye(10).repeat_interleave(50, 0)  # ten classes in a row
    tables = gaussian(1, 500, 10) + centres, gaussian(2, 2000, 10) + centres.repeat(4, 1)
    reference = Moments.of(tables[1])
    _, low, high = fid_estimate(tables[0], reference)
    shuffled = tables[0][torch.randperm(500, generator=torch.Generator().manual_seed(0))]
    other = fid_estimate(shuffled, reference)
    assert low < fid(*tables) < high
    assert (high - low) / (other.high - other.low) == pytest.approx(1, abs=0.6)


def test_the_interval_shrinks_with_more_samples():
    reference = Moments.of(gaussian(0, 4000, 6))
    widths = []
    for n in (500, 8000):
        _, low, high = fid_estimate(gaussian(3, n, 6, spread=3), reference)
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def interval(a, b, **how):
    return fid_estimate(a, Moments.of(b), **how)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("measure", [fid, kid, interval])
def test_features_that_are_not_finite_are_refused_with_their_place(measure, bad):
    table = gaussian(0, 100, 4)
    spoiled = table.clone()
    spoiled[17, 2] = bad
    for pair in ((spoiled, table), (table, spoiled)):
        with pytest.raises(ValueError, match=r"finite.*\[17, 2\]"):
            measure(*pair)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: fid(a[:1], a), "at least 2 samples, got 1"),
        (lambda a: fid(a[:0], a), r"a table \[n d\], got shape \[0, 4\]"),
        (lambda a: fid(a[0], a), r"a table \[n d\], got shape \[4\]"),
        (lambda a: fid(a, a[:, :3]), "one encoder, got 4 and 3"),
        (lambda a: kid(a, a[:, :3]), "one encoder, got 4 and 3"),
        (lambda a: kid(a, a[:40], size=41), r"size must be in \[2, 40\].*got 41"),
        (lambda a: kid(a, a, size=1), "size must be in"),
        (lambda a: kid(a, a, subsets=0), "subsets must be at least 1, got 0"),
        (lambda a: interval(a, a, blocks=51), r"blocks must be in \[2, .*50\], got 51"),
        (lambda a: kid_interval(a, a, Kid(0, 0), 2, blocks=51), r"blocks must be in .*got 51"),
        (lambda a: interval(a, a, blocks=1), "blocks must be in"),
        (lambda a: Moments.known(9, a[0], a[:3]), r"\[d\] and \[d d\], got \[4\] and \[3, 4\]"),
        (lambda a: Moments.of(a[:9]) - Moments.of(a[:9]), "cannot take 9 samples out of 9"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(gaussian(0, 100, 4))
    assert "\n" not in str(caught.value)
