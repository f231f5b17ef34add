"""Grids: exactly the steps that were asked for, where other tools run 16 for 15 or 62 for 61."""

import math
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from diffuse import grids
from diffuse.config import build
from diffuse.errors import ConfigError
from diffuse.schedules import cosine, linear, ve

YAMLS = sorted(Path(__file__).parents[1].glob("conf/grid/*.yaml"))
every_grid = pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
LINEAR, COSINE = linear(0.02, 1e-4, 1000, False), cosine(0.008, 0.001, 0.999)


NODES = {path: yaml.safe_load(path.read_text()) for path in YAMLS}


def levels(path, steps, schedule):
    return build("grid", NODES[path], steps=steps, schedule=schedule)


def is_a_walk_down(sigmas, steps, schedule):
    low, high = schedule.range
    return (
        len(sigmas) == steps + 1
        and bool((sigmas.diff() < 0).all())
        and sigmas[-1] == 0
        and sigmas[0] <= high * (1 + 1e-12)
        and sigmas[-2] >= low * (1 - 1e-12)
    )


@every_grid
@pytest.mark.parametrize("schedule", [LINEAR, COSINE], ids=["linear", "cosine"])
def test_every_number_of_steps_gives_as_many_distinct_levels_and_then_zero(path, schedule):
    some = [*range(1, 40), *range(40, 1000, 37), 999, 1000]
    for steps in some if path.stem in ("karras", "logsnr") else range(1, 1001):
        assert is_a_walk_down(levels(path, steps, schedule), steps, schedule), steps


@every_grid
def test_so_it_does_on_every_small_table(path):
    for size in range(2, 40):
        schedule = linear(0.3, 1e-3, size, False)
        for steps in range(1, size + 1):
            assert is_a_walk_down(levels(path, steps, schedule), steps, schedule), (steps, size)


@every_grid
def test_levels_are_float64(path):
    assert levels(path, 7, COSINE).dtype == torch.float64


@pytest.mark.parametrize("schedule", [LINEAR, COSINE], ids=["linear", "cosine"])
def test_the_uniform_grid_begins_at_pure_noise(schedule):
    for steps in (1, 15, 61, 1000):
        top = grids.uniform(steps, schedule, "trailing")[0].item()
        assert top == pytest.approx(schedule.range[1], rel=1e-12)


def test_with_as_many_steps_as_levels_it_is_the_table_itself():
    assert torch.equal(grids.uniform(1000, LINEAR, "trailing")[:-1], LINEAR.table.flip(0))


def test_on_a_table_it_visits_no_level_that_is_not_in_the_table():
    table = set(LINEAR.table.tolist())
    assert all(
        set(grids.uniform(n, LINEAR, "trailing")[:-1].tolist()) <= table for n in (3, 15, 61, 999)
    )


def test_on_a_table_its_strides_differ_by_at_most_one_the_last_one_included():
    place = {sigma: i for i, sigma in enumerate(LINEAR.table.tolist())}
    for steps in (15, 61, 300):
        visited = [place[s] for s in grids.uniform(steps, LINEAR, "trailing")[:-1].tolist()] + [-1]
        strides = {a - b for a, b in pairwise(visited)}
        assert max(strides) - min(strides) <= 1


@pytest.mark.parametrize("name", ["uniform", "quadratic"])
def test_more_steps_than_the_table_has_levels_are_refused(name):
    path = next(path for path in YAMLS if path.stem == name)
    with pytest.raises(ConfigError, match="grid: steps must be at most T = 1000"):
        levels(path, 1001, LINEAR)


def test_a_clipped_grid_stays_inside_what_was_trained_and_still_ends_at_zero():
    sigmas = grids.clipped(grids.uniform(50, COSINE, "trailing"), 0.02, 80.0)
    assert sigmas[:-1].min() >= 0.02
    assert sigmas[:-1].max() <= 80
    assert sigmas[-1] == 0
    assert torch.equal(grids.clipped(sigmas, 0.02, 80.0), sigmas)


@pytest.mark.parametrize("spacing", grids.SPACINGS)
@pytest.mark.parametrize("schedule", [LINEAR, COSINE], ids=["linear", "cosine"])
def test_every_spacing_gives_as_many_distinct_levels_as_steps(spacing, schedule):
    for steps in range(1, 1001):
        assert is_a_walk_down(grids.uniform(steps, schedule, spacing), steps, schedule), steps


def test_spacings_have_the_ends_that_they_are_named_for():
    low, high = COSINE.range
    for steps in (2, 7, 50):
        trailing, leading, linspace = (
            grids.uniform(steps, COSINE, s)[:-1] for s in ("trailing", "leading", "linspace")
        )
        assert (trailing[0], leading[-1]) == (high, low)
        assert leading[0] < high
        assert trailing[-1] > low
        assert linspace[[0, -1]].tolist() == pytest.approx([high, low])
        strides = COSINE.t(trailing).diff()
        assert strides.tolist() == pytest.approx([-1 / steps] * (steps - 1))
        assert COSINE.t(leading).diff().tolist() == pytest.approx([-1 / steps] * (steps - 1))


def test_on_a_table_leading_and_linspace_are_ddims_and_numpys_integers():
    table = LINEAR.table.tolist()
    for steps in (10, 50, 100, 1000):  # these divide T: others do not agree on the rest
        places = [table.index(s) for s in grids.uniform(steps, LINEAR, "leading")[:-1].tolist()]
        assert places == list(range(0, 1000, 1000 // steps))[::-1]
        places = [table.index(s) for s in grids.uniform(steps, LINEAR, "linspace")[:-1].tolist()]
        assert places == np.linspace(0, 999, steps).round().astype(int)[::-1].tolist()


def test_quadratic_is_ddims_where_its_levels_are_distinct_and_keeps_them_apart_elsewhere():
    table = LINEAR.table.tolist()

    def places(steps):
        return [table.index(s) for s in grids.quadratic(steps, LINEAR, top=0.8)[:-1].tolist()]

    published = [int(s) for s in np.linspace(0, np.sqrt(1000 * 0.8), 20) ** 2][::-1]
    assert places(20) == [min(k, 999) for k in published]
    crowded = places(300)
    assert crowded[-10:] == list(range(9, -1, -1))
    assert max(crowded) <= 800
    assert places(1) == [800]
    assert grids.quadratic(5, COSINE, top=1.0)[0] == pytest.approx(COSINE.range[1])


def test_karras_is_his_equation_five():
    n, rho, low, high = 18, 7, 0.002, 80.0
    i = np.arange(n)
    expected = (high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    ours = grids.karras(n, ve(low, high), rho=7.0, sigma_min=None, sigma_max=None)
    assert ours[:-1].numpy() == pytest.approx(expected, rel=1e-12)
    even = grids.karras(n, ve(low, high), rho=1.0, sigma_min=None, sigma_max=None)[:-1].diff()
    assert even.numpy() == pytest.approx([even[0].item()] * (n - 1))


def test_logsnr_is_even_in_log_sigma():
    steps = grids.logsnr(9, ve(0.01, 10.0), sigma_min=None, sigma_max=None)[:-1].log().diff()
    assert steps.tolist() == pytest.approx([-np.log(1000) / 8] * 8)


@pytest.mark.parametrize("make", [partial(grids.karras, rho=7.0), grids.logsnr])
def test_ends_that_are_asked_for_stay_inside_the_schedule(make):
    low, high = COSINE.range
    inside = make(6, COSINE, sigma_min=0.05, sigma_max=20.0)
    assert inside[[0, -2]].tolist() == pytest.approx([20.0, 0.05])
    outside = make(6, COSINE, sigma_min=1e-9, sigma_max=1e9)
    assert outside[[0, -2]].tolist() == pytest.approx([high, low])
    assert is_a_walk_down(outside, 6, COSINE)
    assert make(1, COSINE, sigma_min=None, sigma_max=None).tolist() == pytest.approx([high, 0])
    with pytest.raises(ValueError, match=r"need sigma_min < sigma_max, got 5 and 0.1; .* has 0\.0"):
        make(6, COSINE, sigma_min=5.0, sigma_max=0.1)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"name": "uniform", "spacing": "traling"}, "spacing must be one of trailing, leading"),
        ({"name": "quadratic", "top": 1.5}, r"top must be in \(0, 1\], got 1.5"),
        *(
            ({"name": "karras", "rho": rho, "sigma_min": None, "sigma_max": None}, words)
            for rho, words in (
                (0.0, "rho must be more than 0"),
                (math.inf, "rho must be more than 0"),
                (1e17, r"rho = 1e\+17 leaves no 5 levels apart"),
                (0.008, "rho = 0.008 leaves no 5 levels apart"),
                (0.005, r"karras\(rho=0.005, .* numbers that are too large"),
            )
        ),
    ],
)
def test_options_that_cannot_be_are_refused_in_words(node, words):
    with pytest.raises(ConfigError, match=f"grid: {words}"):
        build("grid", node, steps=5, schedule=ve(0.002, 80.0))
