"""Schedules, grids and weightings beside diffusers', or a paper's formula where they differ."""

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from diffusers.training_utils import compute_snr

from diffuse.grids import karras, logsnr, uniform
from diffuse.objectives import eps, v, x0
from diffuse.schedules import (
    alpha_bar,
    cosine_table,
    flow,
    linear,
    scaled_linear,
    sigmoid,
    ve,
)
from diffuse.weightings import min_snr

T = 1000
TABLES = {
    "linear": lambda zero_snr: linear(0.02, 1e-4, T, zero_snr),
    "scaled_linear": lambda zero_snr: scaled_linear(0.012, 0.00085, T, zero_snr),
    "squaredcos_cap_v2": lambda zero_snr: cosine_table(0.008, T, 0.999, zero_snr),
}
ENDS = {
    "linear": {"beta_start": 1e-4, "beta_end": 0.02},
    "scaled_linear": {"beta_start": 0.00085, "beta_end": 0.012},
    "squaredcos_cap_v2": {},
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_theirs_as_far_as_their_float32_goes(name):
    theirs = diffusers.DDPMScheduler(T, beta_schedule=name, **ENDS[name])
    kept = alpha_bar(TABLES[name](False).table)
    assert torch.allclose(kept, theirs.alphas_cumprod.double(), rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("name", TABLES)
def test_zero_terminal_snr_is_theirs_but_for_the_last_level(name):
    """Theirs has no signal there, or 2^-24, which for the linear table is more than before it."""
    kept = alpha_bar(TABLES[name](False).table)
    betas = 1 - kept / torch.cat([kept.new_ones(1), kept[:-1]])
    expected = torch.cumprod(1 - rescale_zero_terminal_snr(betas), 0)
    ours = alpha_bar(TABLES[name](True).table)
    assert torch.allclose(ours[:-1], expected[:-1], rtol=1e-9, atol=0)
    assert expected[-1] == 0
    assert 0 < ours[-1] <= 2**-24
    assert (ours.diff() < 0).all()


@pytest.mark.parametrize(
    ("start", "end", "tau"), [(-3.0, 3.0, 1.0), (-3.0, 3.0, 0.7), (0.0, 3.0, 1.0)]
)
def test_sigmoid_is_the_papers_formula(start, end, tau):
    """Theirs of this name is GeoDiff's, whose betas are the sigmoid, and not alpha_bar."""
    t = np.linspace(0.001, 0.999, 101)
    falling = 1 / (1 + np.exp(-(t * (end - start) + start) / tau))
    first, last = (1 / (1 + np.exp(-u / tau)) for u in (start, end))
    expected = (last - falling) / (last - first)
    ours = sigmoid(start, end, tau, 0.001, 0.999)
    kept = alpha_bar(ours.sigma(torch.linspace(0, 1, 101, dtype=torch.float64)))
    assert kept.numpy() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_and_its_shift_are_theirs(shift):
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(T, shift)
    part = theirs.sigmas[1:].flip(0).double()  # of noise in (1 - t) x0 + t eps, t = 1/T .. 1 - 1/T
    t = torch.linspace(0, 1, T - 1, dtype=torch.float64)
    sigma = flow(shift, 1 / T, 1 - 1 / T).sigma(t)
    assert torch.allclose(sigma / (1 + sigma), part, rtol=1e-6)


def test_variance_exploding_levels_are_theirs():
    theirs = diffusers.ScoreSdeVeScheduler(sigma_min=0.01, sigma_max=50.0)
    theirs.set_sigmas(100)
    ours = ve(0.01, 50.0).sigma(torch.linspace(0, 1, 100))
    assert torch.allclose(ours, theirs.discrete_sigmas.double(), rtol=1e-5)


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("steps", [1, 2, 5, 10, 25, 50, 100, 125, 250, 500, 1000])
def test_a_uniform_grid_visits_their_timesteps_where_the_steps_divide_T(steps, spacing):
    """Elsewhere their leading grid stops short, and trailing is a step too long for 62 numbers."""
    theirs = diffusers.DDIMScheduler(T, timestep_spacing=spacing)
    theirs.set_timesteps(steps)
    timesteps = theirs.timesteps
    if spacing == "linspace" and steps == 1:
        timesteps = torch.tensor([T - 1])  # theirs begins at the data
    table = TABLES["linear"](False)
    assert torch.equal(uniform(steps, table, spacing)[:-1], table.table[timesteps])


@pytest.mark.parametrize("steps", [3, 7, 30, 61, 103, 121, 999])
def test_a_trailing_grid_has_as_many_levels_as_steps_whatever_they_are(steps):
    table = TABLES["linear"](False)
    ours = uniform(steps, table, "trailing")
    theirs = diffusers.DDIMScheduler(T, timestep_spacing="trailing")
    theirs.set_timesteps(steps)
    assert len(ours) == steps + 1
    assert torch.equal(ours[:-1], table.table[theirs.timesteps[:steps]])


@pytest.mark.parametrize(
    ("grid", "setting"),
    [
        (lambda *arguments: karras(arguments[0], arguments[1], 7.0, *arguments[2:]),
         "use_karras_sigmas"),
        (logsnr, "use_exponential_sigmas"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("steps", [2, 10, 33])
def test_karras_and_log_levels_are_theirs(steps, grid, setting):
    table = TABLES["linear"](False)
    ends = {"sigma_min": 0.02, "sigma_max": 80.0}
    theirs = diffusers.EulerDiscreteScheduler(T, **{setting: True}, **ends)
    theirs.set_timesteps(steps)
    ours = grid(steps, table, *ends.values())
    assert torch.allclose(ours, theirs.sigmas.double(), rtol=1e-6)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
@pytest.mark.parametrize(
    ("objective", "share"),
    [(eps, lambda snr: snr), (v, lambda snr: snr + 1), (x0, lambda snr: 1)],
)
def test_min_snr_is_what_their_training_scripts_do(objective, share, gamma):
    """min(SNR, gamma) / SNR for eps and / (SNR + 1) for v, as in train_text_to_image.py."""
    scheduler = diffusers.DDPMScheduler(T)
    scheduler.alphas_cumprod = alpha_bar(TABLES["linear"](False).table)
    snr = compute_snr(scheduler, torch.arange(T)).double()
    expected = snr.clamp(max=gamma) / share(snr)
    sigma = TABLES["linear"](False).table
    _, c_out, _ = objective().coefficients(sigma)
    assert torch.allclose(min_snr(gamma)(sigma, c_out), expected, rtol=1e-5)
