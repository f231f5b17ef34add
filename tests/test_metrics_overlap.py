"""Precision, recall, density and coverage against their definitions, and other people's ways."""

import time

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from diffuse.metrics import nearest, nearest_others, overlap
from diffuse.metrics import neighbours as rooms
from diffuse.metrics.intervals import blocks_of, reach_of

K = 4


def table(seed, n, d, scale=1.0, shift=0.0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=random, dtype=torch.float64) * scale + shift


def by_definition(fake, real, k):
    """All distances at once, as the papers write it."""
    fake, real = fake.numpy(), real.numpy()
    radius = np.sort(cdist(real, real), 1)[:, k]  # the first is the row itself
    reach = np.sort(cdist(fake, fake), 1)[:, k]
    between = cdist(real, fake)
    within = between <= radius[:, None]
    return (
        within.any(0).mean(),
        (between <= reach).any(1).mean(),
        (between < radius[:, None]).sum() / (k * len(fake)),
        within.any(1).mean(),
    )


def by_tree(fake, real, k):
    """Balls that are asked for their points."""
    real_tree, fake_tree = cKDTree(real.numpy()), cKDTree(fake.numpy())
    radius = real_tree.query(real.numpy(), k + 1)[0][:, -1]
    reach = fake_tree.query(fake.numpy(), k + 1)[0][:, -1]
    held = [fake_tree.query_ball_point(x, r) for x, r in zip(real.numpy(), radius, strict=True)]
    hit = [real_tree.query_ball_point(x, r) for x, r in zip(fake.numpy(), reach, strict=True)]
    return (
        len({i for rows in held for i in rows}) / len(fake),
        len({j for rows in hit for j in rows}) / len(real),
        sum(len(rows) for rows in held) / (k * len(fake)),
        np.mean([len(rows) > 0 for rows in held]),
    )


def values(*args, **kwargs):
    return [estimate.value for estimate in overlap(*args, **kwargs)]


@pytest.mark.parametrize("oracle", [by_definition, by_tree])
@pytest.mark.parametrize("scale", [0.5, 1.0, 1.6])
def test_the_four_are_what_the_papers_define(oracle, scale):
    fake, real = table(0, 300, 6, scale, 0.3), table(1, 250, 6)
    assert values(fake, real, K) == pytest.approx(oracle(fake, real, K), rel=1e-12)


@pytest.mark.slow  # its import takes seconds
def test_precision_and_recall_are_torch_fidelitys():
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    fake, real = table(0, 300, 6, 1.3), table(1, 250, 6)
    theirs = calculate_precision_recall_full(fake, real, neighborhood=3)
    assert values(fake, real, 3)[:2] == pytest.approx(theirs, rel=1e-6)


def test_the_pieces_it_is_computed_in_change_nothing(monkeypatch):
    fake, real = table(0, 200, 6, 1.2), table(1, 150, 6)
    whole, near = overlap(fake, real), nearest(fake, real, 3)
    monkeypatch.setattr(rooms, "PIECE", 1000)
    for one, other in zip(overlap(fake, real), whole, strict=True):
        assert one == pytest.approx(other, rel=1e-12)
    assert torch.equal(nearest(fake, real, 3).numbers, near.numbers)


def test_the_interval_is_that_of_the_four_with_each_block_of_generated_rows_left_out():
    fake, real = table(0, 120, 3, 0.6, 0.3), table(1, 100, 3)  # no share is near 0 or 1
    found = overlap(fake, real, K, blocks=7, seed=5)
    draws = []
    for part in blocks_of(120, 7, 5):
        kept = [i for i in range(120) if i not in set(part.tolist())]
        draws.append(by_definition(fake[kept], real, K))
    _, recalls, densities, coverages = zip(*draws, strict=True)
    assert found.recall.value - found.recall.low == pytest.approx(reach_of(recalls), rel=1e-9)
    assert found.density.high - found.density.value == pytest.approx(reach_of(densities), rel=1e-9)
    assert found.density.record()["jackknife"] == pytest.approx(densities, rel=1e-9)
    assert found.recall.record()["jackknife"] == pytest.approx(recalls, rel=1e-9)
    assert "jackknife" not in found.precision.record()
    wide = reach_of(coverages)
    assert found.coverage.value - found.coverage.low == pytest.approx(wide, rel=1e-9)


def test_a_table_is_all_that_it_is_itself():
    """In its own neighbourhoods every row has itself, k - 1 others, and one on the edge."""
    a = table(0, 200, 6) + 1e3
    found = overlap(a, a.clone(), K)
    assert (found.precision.value, found.recall.value, found.coverage.value) == (1, 1, 1)
    assert found.density.value == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("far", [1e4, 1e6, 1e8])
def test_one_row_far_away_from_all_others_changes_nothing_for_these(far):
    fake, real = table(0, 300, 6, 1.0, 0.3), table(1, 250, 6)
    for moved in (fake, real):
        moved[7] += far
        assert values(fake, real, K) == pytest.approx(by_definition(fake, real, K), rel=1e-12)


def test_one_feature_as_large_as_all_others_are_not_hides_them_not():
    fake, real = table(0, 300, 17, 1.0, 0.3), table(1, 250, 17)
    for some in (fake, real):
        some[:, 0] = (some[:, 0] > 0) * 1e6
    assert values(fake, real, K) == pytest.approx(by_definition(fake, real, K), abs=1e-2)


def test_tables_that_are_far_apart_have_nothing_in_common():
    assert values(table(0, 100, 4), table(1, 100, 4, shift=100)) == [0, 0, 0, 0]


def test_what_no_row_of_some_hundred_shows_is_not_certain():
    """Rows of 100 may be 3 in a hundred of all there are: an interval of [0, 0] hides them."""
    apart = overlap(table(0, 100, 4), table(1, 100, 4, shift=100))
    same = overlap(table(0, 100, 4), table(0, 100, 4))
    assert all(estimate.high > 0.03 for estimate in apart)
    assert all(e.low < 0.97 for e in (same.precision, same.recall, same.coverage))
    assert not any("jackknife" in estimate.record() for estimate in (*apart, same.recall))


@pytest.mark.slow
@pytest.mark.parametrize("hits", [0.3, 2, 8])
def test_near_0_the_intervals_cover_the_means_over_samples_all_the_same(hits):
    """So many of 200 rows, on average, are where the real ones are; the others are far away."""
    real, random = table(0, 200, 4), torch.Generator().manual_seed(0)
    found = []
    for i in range(120):
        rows = table(2 * i + 1, 200, 4, 0.5, shift=30)
        near = torch.rand(200, generator=random) < hits / 200
        rows[near] = table(2 * i + 2, 200, 4)[near]
        found.append(overlap(rows, real, K))
    for name in ("precision", "density", "coverage"):
        estimates = [getattr(one, name) for one in found]
        mean = np.mean([e.value for e in estimates])
        assert np.mean([e.low <= mean <= e.high for e in estimates]) >= 0.9, name
        wide = np.mean([e.high - e.low for e in estimates]) / np.std([e.value for e in estimates])
        assert wide < 2.5 * 2 * 1.96, name


def test_a_generator_of_half_of_the_classes_is_precise_but_recalls_half():
    real = table(0, 400, 4)
    real[200:] += 50
    precision, recall, _, coverage = values(table(1, 300, 4), real)
    assert precision > 0.9
    assert recall == pytest.approx(0.5, abs=0.05)
    assert coverage == pytest.approx(0.5, abs=0.05)


def test_one_outlier_fools_precision_and_not_density():
    """The case of Naeem et al. (2020): its ball is so large that it holds every bad sample."""
    real = table(0, 300, 4)
    far = table(1, 200, 4, scale=0.1, shift=20)
    outlier = torch.full((1, 4), 21.0, dtype=torch.float64)
    precision, _, density, _ = values(far, torch.cat([real, outlier]))
    assert precision == 1
    assert density <= 1 / 5 + 1e-9


def test_density_and_coverage_of_one_distribution_are_as_expected():
    """A real row is not covered where the k rows nearest to it, of both tables, are all real."""
    found = [values(table(2 * i, 400, 5), table(2 * i + 1, 400, 5), k=2) for i in range(10)]
    _, _, density, coverage = np.mean(found, 0)
    assert density == pytest.approx(1, abs=0.05)
    missed = (399 / 799) * (398 / 798)
    assert coverage == pytest.approx(1 - missed, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.8, 1.0, 1.2])
def test_the_intervals_cover_the_means_over_samples_at_least_19_times_of_20(scale):
    real = table(0, 400, 8)
    found = [overlap(table(1 + i, 400, 8, scale), real) for i in range(120)]
    for estimates in zip(*found, strict=True):
        mean = np.mean([e.value for e in estimates])
        deviation = np.std([e.value for e in estimates])
        assert np.mean([e.low <= mean <= e.high for e in estimates]) >= 0.9
        wide = np.mean([e.high - e.low for e in estimates]) / (2 * 1.96 * deviation)
        assert wide < 2.2  # Efron & Stein (1981): too wide, but not by more


@pytest.mark.slow
def test_ten_thousand_rows_of_128_features_take_seconds():
    started = time.process_time()
    overlap(table(0, 10_000, 128, 0.95), table(1, 10_000, 128))
    assert time.process_time() - started < 30


def test_neighbours_are_those_of_a_tree_and_a_copy_is_at_distance_nothing():
    rows, among = table(0, 80, 5) + 1e4, table(1, 300, 5) + 1e4
    rows[7] = among[123]
    distances, numbers = cKDTree(among.numpy()).query(rows.numpy(), 3)
    found = nearest(rows, among, 3)
    assert np.array_equal(found.numbers.numpy(), numbers)
    np.testing.assert_allclose(found.distances.numpy(), distances, rtol=1e-9)
    assert found.distances[7, 0] == 0
    others = nearest_others(among, 2, torch.tensor([5, 250]))
    wanted = cKDTree(among.numpy()).query(among[[5, 250]].numpy(), 3)
    assert np.array_equal(others.numbers.numpy(), wanted[1][:, 1:])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: overlap(a, a, k=0), r"k must be in \[1, .*, got 0"),
        (lambda a: overlap(a, a[:5], k=5), r"k must be in \[1, 4\].* got 5"),
        (lambda a: overlap(a[:10], a, k=5, blocks=2), r"k must be in \[1, 4\].* got 5"),
        (lambda a: overlap(a, a[:, :3]), "one encoder, got 4 and 3"),
        (lambda a: overlap(a, a * torch.inf), "must be finite"),
        (lambda a: nearest(a, a[:2], 3), r"k must be in \[1, 2\].*got 3"),
    ],
)
def test_what_has_no_neighbours_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(table(0, 60, 4))
    assert "\n" not in str(caught.value)
