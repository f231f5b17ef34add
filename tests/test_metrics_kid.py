"""KID against its definition, torchmetrics, and how far it scatters."""

import numpy as np
import pytest
import torch
from scipy.stats import t

from diffuse.metrics import Kid, kid, kid_interval
from diffuse.seeds import generator


def table(seed, n, d, shift=0.0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=random, dtype=torch.float64) + shift


def by_double_loop(x, y):
    """Unbiased MMD^2 as it is written on paper."""

    def k(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    x, y = x.tolist(), y.tolist()
    n, m = len(x), len(y)
    xx = sum(k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j) / (n * (n - 1))
    yy = sum(k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def test_kid_of_whole_tables_is_the_double_loop_of_the_definition():
    x, y = table(0, 30, 5), table(1, 30, 5, shift=0.5)
    value, sd = kid(x, y, subsets=3, size=30)
    assert value == pytest.approx(by_double_loop(x, y), rel=1e-10)
    assert sd == pytest.approx(0, abs=1e-12)  # every subset is the whole table


def test_kid_of_whole_tables_is_torchmetrics():
    from torchmetrics.image.kid import KernelInceptionDistance

    x, y = table(0, 60, 12), table(1, 60, 12, shift=0.5)
    ready = torch.nn.Identity()  # the features are ready-made
    ready.num_features = 12
    metric = KernelInceptionDistance(feature=ready, subsets=2, subset_size=60)
    metric.update(x, real=True)
    metric.update(y, real=False)
    assert kid(x, y, subsets=2, size=60).value == pytest.approx(
        float(metric.compute()[0]), rel=1e-6
    )


@pytest.mark.slow  # its import takes seconds
def test_kid_of_whole_tables_is_torch_fidelitys():
    from torch_fidelity.metric_kid import kernel_mmd

    x, y = table(0, 60, 12), table(1, 60, 12, shift=0.5)
    theirs = kernel_mmd(x.numpy(), y.numpy(), kid_kernel="poly", verbose=False)
    assert kid(x, y, subsets=2, size=60).value == pytest.approx(theirs, rel=1e-6)


def test_kid_is_zero_on_average_when_both_tables_come_from_one_distribution():
    random = torch.Generator().manual_seed(0)
    values, biased = [], []
    for _ in range(400):
        x, y = torch.randn(2, 20, 6, generator=random, dtype=torch.float64)
        values.append(kid(x, y, subsets=1, size=20).value)
        biased.append(values[-1] + _bias(x) + _bias(y))
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error
    assert np.mean(biased) > 10 * error  # the control: with the diagonals in, it is not


def _bias(x):
    """What the diagonal adds to the mean of a kernel matrix."""
    k = (x @ x.T / x.shape[1] + 1) ** 3
    off_diagonal = (k.sum() - k.trace()) / (len(x) * (len(x) - 1))
    return float(k.mean() - off_diagonal)


def test_kid_depends_on_its_seed_alone_and_agrees_between_seeds():
    x, y = table(0, 400, 6), table(1, 300, 6, shift=1.0)
    torch.manual_seed(1)
    one = kid(x, y, subsets=20, size=100, seed=1)
    torch.manual_seed(2)
    assert kid(x, y, subsets=20, size=100, seed=1) == one
    other = kid(x, y, subsets=20, size=100, seed=2)
    assert other != one
    assert other.value == pytest.approx(one.value, abs=3 * one.sd)


@pytest.mark.slow
def test_the_kid_interval_covers_the_mean_19_times_of_20():
    reference = table(0, 500, 4)
    random = torch.Generator().manual_seed(1)
    values, intervals = [], []
    for _ in range(300):
        drawn = torch.randn(200, 4, generator=random, dtype=torch.float64) + 0.3
        measured = kid(drawn, reference, subsets=20, size=100)
        values.append(kid(drawn, reference, subsets=1, size=200).value)
        intervals.append(kid_interval(drawn, reference, measured, subsets=20))
    share = np.mean([i.low <= np.mean(values) <= i.high for i in intervals])
    assert 0.91 < share <= 0.99


def test_the_kid_interval_leaves_out_each_block_once():
    x, y = table(0, 12, 3), table(1, 9, 3, shift=0.5)
    exact = Kid(0.0, 0.0)  # a value that does not scatter: what is left is the jackknife
    low, high = kid_interval(x, y, exact, subsets=2, blocks=3, seed=4)
    rows = torch.randperm(12, generator=generator(4, "jackknife")).reshape(3, 4)
    draws = [
        by_double_loop(x[torch.cat([rows[j] for j in range(3) if j != i])], y) for i in (0, 1, 2)
    ]
    deviation = np.sqrt(2 * np.var(draws))
    assert high == pytest.approx(t.ppf(0.975, 2) * deviation, rel=1e-9)
    assert low == -high
    scattered = kid_interval(x, y, Kid(1.0, 3.0), subsets=9, blocks=3, seed=4)
    students = t.ppf(0.975, 8) * 3 / np.sqrt(8)  # sd 3 is divided by 9, not by 8
    assert scattered.high - 1 == pytest.approx(np.hypot(high, students), rel=1e-9)
    with pytest.raises(ValueError, match="at least 2 subsets, got 1"):
        kid_interval(x, y, exact, subsets=1, blocks=3)
