"""Grids: exactly the steps that were asked for, where other tools run 16 for 15 or 62 for 61."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml

from diffuse import grids
from diffuse.config import build
from diffuse.errors import ConfigError
from diffuse.schedules import cosine, linear

YAMLS = sorted(Path(__file__).parents[1].glob("conf/grid/*.yaml"))
every_grid = pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
LINEAR, COSINE = linear(0.02, 1e-4, 1000), cosine(0.008, 0.001, 0.999)


def levels(path, steps, schedule):
    return build("grid", yaml.safe_load(path.read_text()), steps=steps, schedule=schedule)


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
    for steps in range(1, 1001):
        assert is_a_walk_down(levels(path, steps, schedule), steps, schedule), steps


@every_grid
def test_so_it_does_on_every_small_table(path):
    for size in range(2, 40):
        schedule = linear(0.3, 1e-3, size)
        for steps in range(1, size + 1):
            assert is_a_walk_down(levels(path, steps, schedule), steps, schedule), (steps, size)


@every_grid
def test_levels_are_float64(path):
    assert levels(path, 7, COSINE).dtype == torch.float64


@pytest.mark.parametrize("schedule", [LINEAR, COSINE], ids=["linear", "cosine"])
def test_the_uniform_grid_begins_at_pure_noise(schedule):
    for steps in (1, 15, 61, 1000):
        top = grids.uniform(steps, schedule)[0].item()
        assert top == pytest.approx(schedule.range[1], rel=1e-12)


def test_with_as_many_steps_as_levels_it_is_the_table_itself():
    assert torch.equal(grids.uniform(1000, LINEAR)[:-1], LINEAR.table.flip(0))


def test_on_a_table_it_visits_no_level_that_is_not_in_the_table():
    table = set(LINEAR.table.tolist())
    assert all(set(grids.uniform(n, LINEAR)[:-1].tolist()) <= table for n in (3, 15, 61, 999))


def test_on_a_table_its_strides_differ_by_at_most_one_the_last_one_included():
    place = {sigma: i for i, sigma in enumerate(LINEAR.table.tolist())}
    for steps in (15, 61, 300):
        visited = [place[s] for s in grids.uniform(steps, LINEAR)[:-1].tolist()] + [-1]
        strides = {a - b for a, b in pairwise(visited)}
        assert max(strides) - min(strides) <= 1


@every_grid
def test_more_steps_than_the_table_has_levels_are_refused(path):
    with pytest.raises(ConfigError, match="grid: steps must be at most T = 1000"):
        levels(path, 1001, LINEAR)


def test_a_clipped_grid_stays_inside_what_was_trained_and_still_ends_at_zero():
    sigmas = grids.clipped(grids.uniform(50, COSINE), 0.02, 80.0)
    assert sigmas[:-1].min() >= 0.02
    assert sigmas[:-1].max() <= 80
    assert sigmas[-1] == 0
    assert torch.equal(grids.clipped(sigmas, 0.02, 80.0), sigmas)
