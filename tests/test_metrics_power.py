"""What the planner promises is what a simulation finds."""

import numpy as np
import pytest
from scipy.stats import nct, t

from diffuse.metrics import Need, Spread, needed, power_of, resolved

SPREAD = Spread(images=0.4, n=1000, seeds=0.3)


def simulated(delta, spread, n, seeds, times=4000):
    """How often the interval of the difference of two runs excludes 0 on the right side."""
    random = np.random.default_rng(0)

    def run(truth):
        shape = (times, seeds)
        training = random.normal(0, spread.seeds, shape)
        return truth + training + random.normal(0, spread.images * np.sqrt(spread.n / n), shape)

    a, b = run(delta), run(0)
    error = np.sqrt((a.var(1, ddof=1) + b.var(1, ddof=1)) / seeds)
    return np.mean(a.mean(1) - b.mean(1) > t.ppf(0.975, 2 * seeds - 2) * error)


@pytest.mark.parametrize("need", needed(1.0, SPREAD), ids=lambda need: f"{need.seeds} seeds")
def test_what_is_needed_is_enough_and_a_fifth_less_is_not(need):
    assert simulated(1.0, SPREAD, need.n, need.seeds) == pytest.approx(0.8, abs=0.025)
    assert simulated(0.8, SPREAD, need.n, need.seeds) < 0.72


@pytest.mark.parametrize(("n", "seeds"), [(500, 2), (2000, 3), (4000, 8)])
def test_power_is_the_tail_of_scipys_noncentral_t(n, seeds):
    variance = 0.4**2 * 1000 / n + 0.3**2
    shift = 0.7 / np.sqrt(2 * variance / seeds)
    freedom = 2 * seeds - 2
    wanted = nct.sf(t.ppf(0.975, freedom), freedom, shift)
    assert power_of(0.7, SPREAD, n, seeds) == pytest.approx(wanted, rel=1e-6)


def test_the_fewest_images_are_the_fewest():
    for need in needed(1.0, SPREAD):
        assert need.power >= 0.8
        assert power_of(1.0, SPREAD, need.n - 1, need.seeds) < 0.8


def test_more_trainings_need_fewer_images_and_smaller_differences_need_more():
    of_one, of_half = needed(1.0, SPREAD), needed(0.5, SPREAD)
    assert [need.seeds for need in of_one] == sorted(need.seeds for need in of_one)
    images = [need.n for need in of_one]
    assert images == sorted(images, reverse=True)
    halves = {need.seeds: need.n for need in of_half}
    assert all(halves[need.seeds] > 4 * need.n for need in of_one if need.seeds in halves)


def test_no_number_of_images_makes_up_for_trainings_that_scatter():
    scattered = Spread(images=0.1, n=1000, seeds=1.0)
    assert needed(0.5, scattered, seeds=(2, 3, 5)) == []
    assert needed(0.5, scattered, seeds=(100,), most=10**6) != []
    assert 1 not in [need.seeds for need in needed(5.0, scattered)]


def test_one_training_will_do_where_two_checkpoints_are_asked_about():
    (need,) = needed(1.0, Spread(images=0.4, n=1000), seeds=(1,))
    error = 0.4 * np.sqrt(2 * 1000 / need.n)
    reach = t.ppf(0.975, 19)  # of each jackknife, and the two intervals add up in quadrature
    assert nct.sf(reach, 38, 1.0 / error) == pytest.approx(need.power, rel=1e-6)
    assert isinstance(need, Need)
    with_seeds = power_of(1.0, SPREAD, 1000, 1)
    assert with_seeds == power_of(1.0, SPREAD._replace(seeds=0.0), 1000, 1)


@pytest.mark.parametrize(("n", "seeds"), [(1000, 2), (5000, 5), (3000, 1)])
def test_what_is_resolved_is_resolved_with_the_power_wanted(n, seeds):
    delta = resolved(SPREAD, n, seeds)
    assert power_of(delta, SPREAD, n, seeds) == pytest.approx(0.8, abs=1e-9)
    assert resolved(SPREAD, n, seeds, wanted=0.95) > delta
    assert power_of(100 * delta, SPREAD, n, seeds) == pytest.approx(1, abs=1e-3)


def test_what_does_not_scatter_is_always_resolved():
    assert resolved(Spread(0.0, 1000), 500, 2) == 0
    assert power_of(1e-6, Spread(0.0, 1000), 500, 2) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: needed(-1.0, SPREAD), "delta must be > 0, got -1"),
        (lambda: needed(0.0, SPREAD), "delta must be > 0, got 0"),
        (lambda: needed(float("nan"), SPREAD), "delta must be > 0, got nan"),
        (lambda: needed(1.0, SPREAD, wanted=1.0), r"in \(0.05, 1\), got 1.0"),
        (lambda: needed(1.0, Spread(-0.1, 1000)), "deviations must be at least 0"),
        (lambda: needed(1.0, Spread(float("nan"), 1000)), "deviations must be at least 0"),
        (lambda: power_of(1.0, SPREAD, 1, 2), "n of at least 2 .* n=1 and seeds=2"),
        (lambda: resolved(SPREAD, 100, 0), "a seed, got n=100 and seeds=0"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
