"""Schedules against their papers: a product of alphas, a squared cosine, digit by digit."""

import math
from functools import partial
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
import yaml

from diffuse.config import build
from diffuse.errors import ConfigError
from diffuse.schedules import (
    alpha_bar,
    cosine,
    cosine_table,
    flow,
    linear,
    scaled_linear,
    sigmoid,
    ve,
)

YAMLS = sorted(Path(__file__).parents[1].glob("conf/schedule/*.yaml"))
T = torch.linspace(0, 1, 20_001, dtype=torch.float64)


@pytest.fixture(params=YAMLS, ids=lambda path: path.stem)
def schedule(request):
    return build("schedule", yaml.safe_load(request.param.read_text()))


def test_levels_are_finite_and_grow_with_t(schedule):
    sigma = schedule.sigma(T)
    assert sigma.dtype == torch.float64
    assert sigma.isfinite().all()
    assert sigma[0] > 0
    assert (sigma.diff() > 0).all()


def test_t_is_the_inverse_of_sigma(schedule):
    assert schedule.t(schedule.sigma(T)).sub(T).abs().max() < 1e-9


def test_the_range_is_that_of_the_levels(schedule):
    assert schedule.range == (schedule.sigma(T[:1]).item(), schedule.sigma(T[-1:]).item())


def test_t_outside_the_levels_is_the_end_that_is_nearer(schedule):
    low, high = schedule.range
    outside = torch.tensor([low / 2, high * 2], dtype=torch.float64)
    assert schedule.t(outside).tolist() == pytest.approx([0, 1], abs=1e-9)


@pytest.mark.parametrize("T", [2, 10, 1000])
def test_a_table_stands_at_even_steps_of_t(T):
    schedule = linear(0.02, 1e-4, T, False)
    t = torch.linspace(0, 1, len(schedule.table), dtype=torch.float64)
    assert torch.allclose(schedule.sigma(t), schedule.table, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("betamax", "last"), [(0.02, 4.0e-5), (0.01, 6.3e-3)])
def test_the_linear_table_is_the_textbook_product_of_alphas(betamax, last):
    table = linear(betamax, betamin=1e-4, T=1000, zero_snr=False).table
    textbook = np.cumprod(1 - np.linspace(1e-4, betamax, 1000))
    assert alpha_bar(table).numpy() == pytest.approx(textbook, rel=1e-12)
    assert alpha_bar(table[-1]).item() == pytest.approx(last, rel=0.02)
    assert table[0].item() == pytest.approx(0.01, rel=1e-4)


def share_of_noise(schedule):
    """The share of steps with alpha_bar < 0.01: the lessons' flat region."""
    sigma = schedule.sigma(T) if schedule.table is None else schedule.table
    return (alpha_bar(sigma) < 0.01).double().mean().item()


@pytest.mark.parametrize(
    ("schedule", "share"),
    [
        (linear(0.02, 1e-4, 1000, False), 0.327),
        (linear(0.01, 1e-4, 1000, False), 0.048),
        (cosine(0.0, 0.001, 0.999), 0.063),
    ],
)
def test_the_share_of_steps_that_are_nearly_noise_is_the_lessons(schedule, share):
    assert share_of_noise(schedule) == pytest.approx(share, abs=5e-4)


def test_without_offset_the_cosine_is_a_squared_cosine():
    t_min, t_max = 1e-3, 0.999
    t = t_min + T.numpy() * (t_max - t_min)
    ours = alpha_bar(cosine(0.0, t_min, t_max).sigma(T))
    assert ours.numpy() == pytest.approx(np.cos(np.pi * t / 2) ** 2, abs=1e-15)


@pytest.mark.parametrize("s", [0.0, 0.008])
@pytest.mark.parametrize("t", [1e-6, 1e-4, 0.01, 0.3, 0.9, 0.999999])
def test_the_cosine_keeps_its_digits_at_both_ends(s, t):
    with mpmath.workdps(50):
        exact, here = mpmath.mpf(s), mpmath.mpf(t)
        a, a0 = ((u + exact) / (1 + exact) * mpmath.pi / 2 for u in (here, mpmath.mpf(0)))
        kept = (mpmath.cos(a) / mpmath.cos(a0)) ** 2
        expected = float(mpmath.sqrt((1 - kept) / kept))
    schedule = cosine(s, t_min=1e-9, t_max=1 - 1e-9)
    ours = schedule.sigma(torch.tensor((t - 1e-9) / (1 - 2e-9), dtype=torch.float64)).item()
    assert ours == pytest.approx(expected, rel=1e-9)


def test_the_first_levels_of_a_table_keep_their_digits():
    with mpmath.workdps(50):
        betas = np.linspace(1e-8, 1e-3, 100)
        kept = mpmath.fprod([1 - mpmath.mpf(float(beta)) for beta in betas[:3]])
        expected = float(mpmath.sqrt((1 - kept) / kept))
    assert linear(1e-3, 1e-8, 100, False).table[2].item() == pytest.approx(expected, rel=1e-13)


LINEAR = {"name": "linear", "betamax": 0.02, "betamin": 1e-4, "T": 1000, "zero_snr": False}


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (
            {**LINEAR, "betamax": 2, "betamin": 1e-4},
            "betamax must be in (0, 1)",
        ),
        (
            {**LINEAR, "betamax": 0.02, "betamin": 0},
            "betamin must be in (0,",
        ),
        (
            {**LINEAR, "betamax": 0.02, "betamin": 0.03},
            "got 0.03",
        ),
        (
            {**LINEAR, "betamax": 0.02, "betamin": 1e-4, "T": 1},
            "T must be at least 2",
        ),
        ({"name": "cosine", "s": -1, "t_min": 0.001, "t_max": 0.999}, "s must be in [0, 1)"),
        ({"name": "cosine", "s": 0, "t_min": 0, "t_max": 0.999}, "need 0 < t_min"),
        ({"name": "cosine", "s": 0, "t_min": 0.9, "t_max": 0.2}, "got 0.9 and 0.2"),
        ({"name": "cosine", "s": 0, "t_min": 0.1, "t_max": 1}, "t_max < 1"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_in_words(node, words):
    with pytest.raises(ConfigError) as caught:
        build("schedule", node)
    assert str(caught.value).startswith("schedule: ")
    assert words in str(caught.value)


def test_scaled_linear_squares_evenly_spaced_roots():
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    table = scaled_linear(0.012, 0.00085, 1000, zero_snr=False).table
    assert alpha_bar(table).numpy() == pytest.approx(np.cumprod(1 - betas), rel=1e-12)


def test_the_table_of_the_cosine_is_its_closed_form_but_for_the_clipped_end():
    """Checklist row 7: the greatest difference to cos^2 is below 1e-6."""
    table = cosine_table(0.008, 1000, beta_clip=0.999, zero_snr=False).table
    t = np.arange(1, 1001) / 1000
    kept = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    assert alpha_bar(table).numpy()[:-1] == pytest.approx(kept[:-1], rel=1e-9)
    assert abs(alpha_bar(table).numpy() - kept).max() < 1e-6
    assert alpha_bar(table[-1]) == pytest.approx(kept[-2] * 0.001, rel=1e-9)


TABLES = {
    "linear": partial(linear, 0.02, 1e-4, 1000),
    "low betamax": partial(linear, 0.01, 1e-4, 1000),
    "scaled": partial(scaled_linear, 0.012, 0.00085, 1000),
    "cosine": partial(cosine_table, 0.008, 1000, 0.999),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_rescaled_to_zero_snr_ends_without_signal_and_begins_as_it_did(name):
    """Lin et al. (2024), algorithm 1, in NumPy, but for the last level, which is capped."""
    rescaled, plain = TABLES[name](zero_snr=True), TABLES[name](zero_snr=False)
    roots = alpha_bar(plain.table).sqrt().numpy()
    expected = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    assert rescaled.zero_snr
    assert not plain.zero_snr
    assert alpha_bar(rescaled.table).sqrt().numpy()[:-1] == pytest.approx(expected[:-1], rel=1e-9)
    assert rescaled.table[0].item() == pytest.approx(plain.table[0].item(), rel=1e-12)
    assert (rescaled.table.diff() > 0).all()
    assert 4095.9 < rescaled.table[-1] < 1e6
    assert rescaled.table[-1] >= plain.table[-1] * (1 - 1e-12)


def test_the_sigmoid_is_the_papers_function_of_t():
    """Jabri et al. (2023), algorithm 5, written down with numbers in 50 digits."""
    start, end, tau, t_min, t_max = -3.0, 3.0, 0.9, 1e-3, 0.999
    schedule = sigmoid(start, end, tau, t_min, t_max)
    with mpmath.workdps(50):

        def squash(x):
            return 1 / (1 + mpmath.exp(-x))

        for t in (0.0, 1e-3, 0.3, 0.9, 1.0):
            inner = mpmath.mpf(t_min) + mpmath.mpf(t) * (mpmath.mpf(t_max) - mpmath.mpf(t_min))
            low, high = squash(mpmath.mpf(start) / tau), squash(mpmath.mpf(end) / tau)
            kept = high - squash((inner * (end - start) + start) / mpmath.mpf(tau))
            kept = kept / (high - low)
            expected = float(mpmath.sqrt((1 - kept) / kept))
            ours = schedule.sigma(torch.tensor(t, dtype=torch.float64)).item()
            assert ours == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("tau", [1.0, 0.2, 0.1, 0.05, 0.0044])
def test_a_steep_sigmoid_has_an_inverse_as_well(tau):
    schedule = sigmoid(-3.0, 3.0, tau, 1e-3, 0.999)
    assert schedule.t(schedule.sigma(T)).sub(T).abs().max() < 1e-9


def test_flow_is_the_straight_path_and_its_shift_multiplies_sigma():
    inner = 0.001 + T * 0.998
    assert torch.allclose(flow(1.0, 0.001, 0.999).sigma(T), inner / (1 - inner), rtol=1e-12)
    assert torch.allclose(flow(3.0, 0.001, 0.999).sigma(T), 3 * inner / (1 - inner), rtol=1e-12)
    shifted = 3 * inner / (1 + 2 * inner)  # Esser et al., Eq. 23, in the t of the straight path
    assert torch.allclose(flow(3.0, 0.001, 0.999).sigma(T), shifted / (1 - shifted), rtol=1e-9)


def test_ve_is_even_in_log_sigma():
    assert torch.allclose(ve(0.01, 50.0).sigma(T), 0.01 * 5000**T, rtol=1e-12)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (
            {"name": "cosine_table", "s": 0.008, "T": 1, "beta_clip": 0.9, "zero_snr": False},
            "T must",
        ),
        (
            {"name": "cosine_table", "s": 0.0, "T": 9, "beta_clip": 1.0, "zero_snr": False},
            "beta_clip",
        ),
        ({"name": "sigmoid", "start": 3.0, "end": -3.0, "tau": 1.0}, "start must be less than end"),
        ({"name": "sigmoid", "start": -3.0, "end": 3.0, "tau": 0.0}, "tau must be more than 0"),
        (
            {"name": "sigmoid", "start": -3.0, "end": 3.0, "tau": 0.002},
            "tau must be at least 0.00429 from",
        ),
        (
            {"name": "sigmoid", "start": -3.0, "end": 3.0, "tau": math.inf},
            "tau must be more than 0",
        ),
        (
            {"name": "sigmoid", "start": -math.inf, "end": 3.0, "tau": 1.0},
            "tau must be at least inf",
        ),
        ({"name": "flow", "shift": 0.0}, "shift must be more than 0"),
        ({"name": "flow", "shift": math.inf}, "shift must be more than 0"),
        ({"name": "flow", "shift": 1.0, "t_min": 0.0}, "need 0 < t_min"),
        ({"name": "ve", "sigma_min": 1.0, "sigma_max": 1.0}, "need 0 < sigma_min < sigma_max"),
        ({"name": "ve", "sigma_min": 1.0, "sigma_max": math.inf}, "need 0 < sigma_min < sigma_max"),
        (
            {"name": "scaled_linear", "betamax": 1.5, "betamin": 0.1, "T": 9, "zero_snr": False},
            "betamax",
        ),
    ],
)
def test_other_schedules_that_cannot_be_are_refused_in_words(node, words):
    ends = {} if "T" in node or node["name"] == "ve" else {"t_min": 0.001, "t_max": 0.999}
    with pytest.raises(ConfigError, match=f"schedule: {words}"):
        build("schedule", ends | node)
