"""Statistics of pixels against numpy and scipy."""

import numpy as np
import pytest
import torch
from jackknives import jackknife
from scipy.optimize import linear_sum_assignment

from diffuse.metrics import pixel_statistics, sliced_wasserstein
from diffuse.metrics import pixels as room
from diffuse.seeds import generator


def images(seed, n, shift=0.0, c=1, side=5):
    """Of which each has its own brightness: pixels of one image are not independent."""
    random = torch.Generator().manual_seed(seed)
    level = 20 * torch.randn(n, 1, 1, 1, generator=random)
    values = 128 + shift + level + 40 * torch.randn(n, c, side, side, generator=random)
    return values.clamp(0, 255).to(torch.uint8)


def test_the_statistics_are_numpys():
    some = images(0, 100, shift=60, c=3)
    mean, sd, saturated = pixel_statistics(some)
    array = some.numpy().astype(np.float64)
    assert mean.value == pytest.approx(array.mean(), rel=1e-12)
    assert sd.value == pytest.approx(array.std(), rel=1e-9)
    assert saturated.value == pytest.approx(np.isin(array, [0, 255]).mean(), rel=1e-12)


def test_their_intervals_are_the_generic_jackknifes():
    some = images(0, 100, shift=60)
    slow = jackknife(lambda kept: some[kept].numpy().astype(np.float64).std(), 100, 10, seed=3)
    assert pixel_statistics(some, blocks=10, seed=3).sd == pytest.approx(slow, rel=1e-9)


def test_their_intervals_cover_what_other_images_have_19_times_of_20():
    found = [pixel_statistics(images(i, 200, shift=60)) for i in range(200)]
    for estimates in zip(*found, strict=True):
        mean = np.mean([e.value for e in estimates])
        assert 0.9 <= np.mean([e.low <= mean <= e.high for e in estimates]) <= 0.99


def test_no_saturated_pixel_in_some_images_does_not_mean_that_there_is_none():
    grey = images(0, 100, shift=0) // 4 + 60
    saturated = pixel_statistics(grey).saturated
    assert (saturated.value, saturated.low) == (0, 0)
    assert saturated.high == pytest.approx(0.037, abs=1e-3)  # 3 to 4 of 100


def test_the_distance_of_images_of_one_pixel_is_that_of_two_lists_of_numbers():
    """With one direction there is only one projection, up to its sign."""
    a, b = images(0, 40, side=1), images(1, 40, shift=30, side=1)
    gap = np.sort(a.flatten().double()) - np.sort(b.flatten().double())
    assert sliced_wasserstein(a, b, 3).value == pytest.approx(np.sqrt((gap**2).mean()), rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(40, 40), (30, 45), (7, 100), (64, 20)])
def test_tables_of_different_lengths_are_compared_as_if_each_row_were_repeated(n, m):
    random = torch.Generator().manual_seed(0)
    x = torch.randn(3, n, generator=random, dtype=torch.float64).sort().values
    y = torch.randn(3, m, generator=random, dtype=torch.float64).sort().values
    common = np.lcm(n, m)
    long_x, long_y = (np.repeat(v.numpy(), common // v.shape[1], axis=1) for v in (x, y))
    assert room._distance(x, y) == pytest.approx(np.sqrt(((long_x - long_y) ** 2).mean()), rel=1e-9)


def test_the_distance_is_the_root_mean_square_over_directions_of_what_scipy_assigns():
    """In one dimension the best assignment is that of sorted values; scipy does not know that."""
    a, b = images(0, 50), images(1, 50, shift=20)
    axes = torch.randn(25, 16, generator=generator(0, "sliced"), dtype=torch.float64)
    axes /= axes.norm(dim=0)
    x, y = ((some.flatten(1).double() @ axes).numpy() for some in (a, b))
    costs = ((x[:, None] - y[None]) ** 2).transpose(2, 0, 1)
    least = [cost[linear_sum_assignment(cost)].mean() for cost in costs]
    found = sliced_wasserstein(a, b, 16).value
    assert found == pytest.approx(np.sqrt(np.mean(least)), rel=1e-9)


def test_a_brighter_picture_is_as_far_away_as_the_closed_form_says():
    """Moved by t in each of d pixels, a projection moves by t sqrt(d) cos(angle); E cos^2 = 1/d."""
    a = images(0, 100) // 2
    found = sliced_wasserstein(a, a + 40, projections=2000)
    assert found.value == pytest.approx(40, rel=0.05)
    assert sliced_wasserstein(a, a.clone()).value == 0


def test_the_interval_of_the_distance_is_the_generic_jackknifes():
    a, b = images(0, 61), images(1, 90, shift=20)
    slow = jackknife(lambda kept: sliced_wasserstein(a[kept], b, 8).value, 61, 10, seed=0)
    assert sliced_wasserstein(a, b, 8, blocks=10) == pytest.approx(slow, rel=1e-9)


@pytest.mark.slow
def test_the_interval_of_the_distance_covers_19_times_of_20():
    b = images(1000, 300, shift=20)
    found = [sliced_wasserstein(images(i, 200), b, 32) for i in range(200)]
    mean = np.mean([e.value for e in found])
    assert 0.9 <= np.mean([e.low <= mean <= e.high for e in found]) <= 0.995


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: pixel_statistics(a.float()), "must be uint8 .* got torch.float32"),
        (lambda a: pixel_statistics(a[:0]), r"must be uint8 .* \[0, 1, 5, 5\]"),
        (lambda a: sliced_wasserstein(a, a[..., :3]), r"one size, got \[1, 5, 5\] and \[1, 5, 3\]"),
        (lambda a: sliced_wasserstein(a, a, 0), "projections must be at least 1, got 0"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(images(0, 60))
    assert "\n" not in str(caught.value)
