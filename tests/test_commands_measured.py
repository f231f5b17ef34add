"""What a plan is made of: how far FIDs scatter, and the cheapest way that follows."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import stdtrit

from diffuse.commands.evaluating import measured
from diffuse.commands.evaluating.measured import over_images, scattered
from diffuse.commands.plan import cheapest, priced
from diffuse.metrics import Spread, power_of

REACH = float(stdtrit(19, 0.975))


def record(value=10.0, sd=1.0, n=1000, **more):
    ends = [value - REACH * sd, value + REACH * sd]
    return {"n": n, "fid": {"value": value, "ci95": ends} | more}


def known(values=(), seeds=0.0, training=60.0, speed=100.0):
    return measured.Measured(
        None, "a", [], 10.0, "", Spread(1.0, 1000, seeds), "", list(values), speed, training, []
    )  # fmt: skip


def test_the_deviation_of_one_draw_is_read_from_its_interval():
    assert over_images([record(sd=0.7)])[0] == pytest.approx(0.7)
    few = float(stdtrit(7, 0.975))  # of 16 images: 8 blocks of two
    assert over_images([record(sd=few / REACH, n=16)])[0] == pytest.approx(1)


def test_of_an_interval_that_is_cut_off_at_0_the_upper_end_counts():
    cut = record(value=1.0, sd=2.0)
    cut["fid"]["ci95"][0] = 0.0
    assert over_images([cut])[0] == pytest.approx(2)


def test_several_seeds_give_the_mean_variance_of_their_jackknives_not_their_own_interval():
    each = [record(value=v, sd=sd)["fid"]["ci95"] for v, sd in ((9, 3), (11, 4))]
    several = record(sd=100, per_seed=[9.0, 11.0], per_seed_ci95=each)
    assert over_images([several])[0] == pytest.approx(math.sqrt((9 + 16) / 2))


def test_what_images_add_is_taken_off_the_trainings_unless_their_noise_was_the_same():
    values = [8.0, 10.0, 12.0]  # variance 4
    assert scattered(values, 1.0, 1).measured == pytest.approx(math.sqrt(3))
    assert scattered(values, 1.0, 4).measured == pytest.approx(math.sqrt(3.75))
    assert scattered(values, 1.0, None).measured == pytest.approx(2)
    assert scattered(values, 3.0, 1).measured == 0
    assert scattered(values, 3.0, 1).planned == pytest.approx((4 / 0.4462871 * 2 - 9) ** 0.5)


@pytest.mark.parametrize("number", [2, 3, 5])
def test_what_is_planned_with_is_enough_in_four_of_five_cases(number):
    random = np.random.default_rng(number)
    found = [scattered(row, 0.0, None) for row in random.normal(0, 1, (4000, number)).tolist()]
    assert np.mean([one.planned > 1 for one in found]) == pytest.approx(0.8, abs=0.02)
    assert np.mean([one.low < 1 < one.high for one in found]) == pytest.approx(0.95, abs=0.015)
    assert np.mean([one.measured > 1 for one in found]) < 0.45


def test_a_plan_reaches_the_power_that_it_promises():
    """From the FIDs of three trainings to the power of the plan that is marked; with the deviation
    as measured it is 0.71 on average, and 0.8 of the plans do not reach 0.8.
    """
    truth, random = Spread(0.1, 1000, 1.0), np.random.default_rng(0)
    reached = []
    for row in random.normal(0, truth.seeds, (200, 3)).tolist():
        spread = truth._replace(seeds=scattered(row, truth.images, None).planned)
        plan = cheapest(priced(4.0, 0.8, replace(known(row), spread=spread)))
        if plan is not None:
            reached.append(power_of(4.0, truth, plan.need.n, plan.need.seeds))
    assert len(reached) > 190  # a few of the largest deviations leave no way
    assert np.mean(reached) > 0.85
    assert np.mean([power >= 0.8 for power in reached]) > 0.75


def test_one_training_is_all_there_is_until_others_were_measured():
    assert [cost.need.seeds for cost in priced(0.5, 0.8, known())] == [1]
    assert 1 not in [cost.need.seeds for cost in priced(0.5, 0.8, known([9, 10, 11], 0.2))]
    assert priced(0.5, 0.8, known([5, 10, 15], 5.0)) == []


@pytest.mark.parametrize("delta", [0.3, 1.0])
def test_what_is_asked_for_is_resolved_and_one_image_less_is_not(delta):
    found = known([9, 10, 11], 0.1)
    for cost in priced(delta, 0.8, found):
        n, seeds, power = cost.need
        assert power == power_of(delta, found.spread, n, seeds) >= 0.8
        assert n <= found.least or power_of(delta, found.spread, n - 1, seeds) < 0.8


def test_the_cheapest_way_is_the_quickest_and_dear_trainings_make_it_few():
    values = [9, 10, 11]
    dear, cheap = (cheapest(priced(0.5, 0.8, known(values, 0.1, training=t))) for t in (9000, 1))
    assert dear.need.seeds < cheap.need.seeds
    assert dear.need.n > cheap.need.n
    assert dear.drawing == dear.need.seeds * dear.need.n / 100
    assert dear.training == dear.need.seeds * 9000
    assert dear.seconds == dear.drawing + dear.training


def test_what_the_encoder_takes_is_in_the_time():
    """Inception sees 10 images a second where 100 are drawn: most of what an evaluation takes."""
    found = replace(known([9, 10, 11], 0.1), features=10.0)
    for alone, cost in zip(priced(0.5, 0.8, known([9, 10, 11], 0.1)), priced(0.5, 0.8, found),
                           strict=True):  # fmt: skip
        assert (
            cost.features == cost.need.seeds * cost.need.n / 10 == pytest.approx(10 * cost.drawing)
        )
        assert cost.seconds == pytest.approx(alone.seconds + cost.features)
