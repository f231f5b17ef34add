"""Noise laws: where training's levels fall, and that nothing but the generator decides it."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy import stats

from diffuse.config import build
from diffuse.errors import ConfigError
from diffuse.noise_laws import logit_normal, lognormal, triangular, uniform
from diffuse.schedules import cosine, flow, linear, ve

YAMLS = sorted(Path(__file__).parents[1].glob("conf/noise_law/*.yaml"))
SCHEDULES = [linear(0.02, 1e-4, 1000, False), cosine(0.008, 0.001, 0.999)]
names = pytest.mark.parametrize("schedule", SCHEDULES, ids=["linear", "cosine"])


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@names
@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_a_law_draws_levels_inside_the_schedule_from_the_generator_alone(path, schedule):
    law = build("noise_law", yaml.safe_load(path.read_text()), schedule=schedule)
    before = torch.get_rng_state()
    sigma = law(64, seeded(1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(law(64, seeded(1)), sigma)
    assert not torch.equal(law(64, seeded(2)), sigma)
    assert (sigma.shape, sigma.dtype, sigma.device.type) == ((64,), torch.float64, "cpu")
    low, high = schedule.range
    assert low < sigma.min() <= sigma.max() < high


@names
@pytest.mark.parametrize("stratified", [True, False])
@pytest.mark.parametrize("number", [0.0, 1 - 2**-53])
def test_even_the_unluckiest_number_is_not_an_end_of_the_schedule(
    number, stratified, schedule, monkeypatch
):
    low, high = schedule.range
    law = uniform(schedule, stratified)
    monkeypatch.setattr(torch, "rand", lambda n, **k: torch.full((n,), number, dtype=torch.float64))
    sigma = law(4, seeded(0))
    assert low < sigma.min() <= sigma.max() < high


@names
@pytest.mark.parametrize("n", [1, 2, 7, 64, 512])
def test_a_stratified_batch_has_one_level_in_every_stratum(n, schedule):
    for seed in range(20):
        t = schedule.t(uniform(schedule, stratified=True)(n, seeded(seed)))
        assert (t * n).floor().sort().values.tolist() == list(range(n))


@pytest.mark.parametrize("stratified", [True, False])
def test_every_place_in_the_batch_sees_all_levels_evenly(stratified):
    schedule = SCHEDULES[1]
    law = uniform(schedule, stratified)
    t = torch.stack([schedule.t(law(5, seeded(seed))) for seed in range(2000)])
    for place in t.T:
        assert stats.kstest(place.numpy(), "uniform").pvalue > 0.01


def test_strata_lower_the_variance_of_a_mean_over_a_batch_by_the_size_of_the_batch():
    schedule = SCHEDULES[1]

    def spread(stratified):
        law = uniform(schedule, stratified)
        return torch.stack([schedule.t(law(32, seeded(s))).mean() for s in range(300)]).var()

    assert spread(True) < spread(False) / 20


def many(law, n=20_000):
    return law(n, seeded(0))


@pytest.mark.parametrize("stratified", [True, False])
def test_lognormal_is_normal_in_log_sigma_between_the_ends_of_the_schedule(stratified):
    wide = many(lognormal(ve(1e-4, 1e4), mean=-1.2, std=1.2, stratified=stratified)).log()
    assert stats.kstest(wide.numpy(), stats.norm(-1.2, 1.2).cdf).pvalue > 0.01
    narrow = many(lognormal(ve(0.1, 1.0), mean=-1.2, std=1.2, stratified=stratified)).log()
    ends = [(end + 1.2) / 1.2 for end in (np.log(0.1), np.log(1.0))]
    assert stats.kstest(narrow.numpy(), stats.truncnorm(*ends, -1.2, 1.2).cdf).pvalue > 0.01


def test_logit_normal_is_normal_in_the_logit_of_t():
    schedule = SCHEDULES[1]
    t = schedule.t(many(logit_normal(schedule, mean=0.5, std=0.8, stratified=False)))
    assert stats.kstest(torch.logit(t).numpy(), stats.norm(0.5, 0.8).cdf).pvalue > 0.01


def test_on_the_straight_path_logit_normal_is_lognormal():
    """logit t = log sigma there."""
    straight = flow(1.0, 1e-9, 1 - 1e-9)
    one = logit_normal(straight, mean=0.2, std=0.7, stratified=True)(64, seeded(3))
    other = lognormal(straight, mean=0.2, std=0.7, stratified=True)(64, seeded(3))
    assert torch.allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("mode", [0.0, 0.2, 0.5, 1.0])
def test_triangular_is_scipys(mode):
    schedule = SCHEDULES[1]
    t = schedule.t(many(triangular(schedule, mode=mode, stratified=False)))
    assert stats.kstest(t.numpy(), stats.triang(mode).cdf).pvalue > 0.01


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"name": "lognormal", "mean": 0.0, "std": 0.0}, "std must be more than 0"),
        ({"name": "logit_normal", "mean": 0.0, "std": -1.0}, "std must be more than 0, got -1"),
        ({"name": "triangular", "mode": 1.5}, r"mode must be in \[0, 1\], got 1.5"),
        ({"name": "lognormal", "mean": 90.0, "std": 1.0}, "has nothing in the schedule's levels"),
    ],
)
def test_laws_that_cannot_be_are_refused_in_words(node, words):
    with pytest.raises(ConfigError, match=f"noise_law: .*{words}"):
        build("noise_law", {**node, "stratified": True}, schedule=SCHEDULES[0])
