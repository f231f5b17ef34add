"""What the planner promises is what a simulation finds."""

import warnings

import numpy as np
import pytest
from scipy.stats import chi2, nct, t

from diffuse.metrics import Need, Spread, at_most, needed, power_of, resolved

SPREAD = Spread(images=0.4, n=1000, seeds=0.3)


def simulated(delta, spread, n, seeds, times=4000):
    """How often the interval of the difference of two runs excludes 0 on the right side."""
    random = np.random.default_rng(0)

    def run(truth):
        shape = (times, seeds)
        training = random.normal(0, spread.seeds, shape)
        return truth + training + random.normal(0, spread.images * np.sqrt(spread.n / n), shape)

    a, b = run(delta), run(0)
    ours, theirs = a.var(1, ddof=1), b.var(1, ddof=1)
    freedom = (seeds - 1) * (ours + theirs) ** 2 / (ours**2 + theirs**2)
    error = np.sqrt((ours + theirs) / seeds)
    return np.mean(a.mean(1) - b.mean(1) > t.ppf(0.975, freedom) * error)


@pytest.mark.parametrize("need", needed(1.0, SPREAD), ids=lambda need: f"{need.seeds} seeds")
def test_what_is_needed_is_enough_and_a_fifth_less_is_not(need):
    assert simulated(1.0, SPREAD, need.n, need.seeds) == pytest.approx(0.8, abs=0.025)
    assert simulated(0.8, SPREAD, need.n, need.seeds) < 0.72


@pytest.mark.parametrize(("delta", "seeds"), [(1.0, 2), (3.0, 2), (0.7, 3), (0.7, 8)])
def test_power_is_that_of_welchs_test_which_two_trainings_have_little_of(delta, seeds):
    found = power_of(delta, SPREAD, 2000, seeds)
    assert found == pytest.approx(simulated(delta, SPREAD, 2000, seeds, 40_000), abs=0.01)
    shift = delta / np.sqrt(2 * SPREAD.variance(2000) / seeds)
    freedom = 2 * seeds - 2
    students = nct.sf(t.ppf(0.975, freedom), freedom, shift)  # were the deviations known to be one
    assert found < students - {2: 0.14, 3: 0.05, 8: 0.001}[seeds]


@pytest.mark.parametrize("seeds", [2, 3, 100])
def test_power_rises_to_1_and_is_a_number_however_large_the_difference(seeds):
    found = [power_of(delta, SPREAD, 2000, seeds) for delta in np.geomspace(0.01, 100, 400)]
    assert (np.diff(found) >= -1e-12).all()
    assert found[-1] == pytest.approx(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of numpy's: a person would see a line of our code
        assert power_of(1e308, SPREAD, 2000, seeds) == pytest.approx(1)


@pytest.mark.parametrize(
    ("number", "low", "high"), [(2, 0.446, 31.9), (3, 0.521, 6.28), (4, 0.566, 3.73)]
)
def test_a_deviation_of_few_values_may_be_another_by_far(number, low, high):
    assert at_most(number, 0.025) == pytest.approx(low, abs=5e-4)
    assert at_most(number, 0.975) == pytest.approx(high, rel=2e-3)
    wanted = np.sqrt((number - 1) / chi2.ppf(0.2, number - 1))
    assert at_most(number, 0.8) == pytest.approx(wanted)


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
    reach = t.ppf(0.975, 19)  # of a jackknife over 20 blocks
    assert nct.sf(reach, 19, 1.0 / error) == pytest.approx(need.power, rel=1e-6)
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
        (lambda: at_most(1, 0.8), "2 values and a share in .*, got 1 and 0.8"),
        (lambda: at_most(2, 1.0), "2 values and a share in .*, got 2 and 1"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
