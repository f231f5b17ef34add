"""Samplers, on the one problem whose answer is known in closed form: Gaussian data."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from diffuse import config
from diffuse.denoiser import clipped, counted
from diffuse.grids import uniform
from diffuse.samplers import ddim
from diffuse.schedules import cosine, linear

MEAN, STD = 0.3, 0.5
YAMLS = sorted(Path(__file__).parents[1].glob("conf/sampler/*.yaml"))
NODES = {path.stem: yaml.safe_load(path.read_text()) for path in YAMLS}
COSINE = cosine(0.008, 0.001, 0.999)
TABLE = linear(0.02, 1e-4, 1000)


def denoise(x, sigma):
    """E[x0 | x] when x0 ~ N(MEAN, STD^2)."""
    return (STD**2 * x + sigma**2 * MEAN) / (STD**2 + sigma**2)


def no_noise():
    raise AssertionError("a deterministic sampler asked for noise")


def last(steps):
    for x, _ in steps:  # noqa: B007
        pass
    return x


@pytest.fixture(params=NODES)
def node(request):
    return NODES[request.param]


def bound(node):
    return config.bind("sampler", node, "denoise", "x", "sigmas", "randn")


def ode_error(sampler, steps):
    """The distance from where the probability-flow ODE ends: x stays 2 std from the mean."""
    sigmas = uniform(steps, COSINE)
    x = torch.tensor(MEAN + 2 * math.hypot(STD, sigmas[0]), dtype=torch.float64)
    return (last(sampler(denoise, x, sigmas, no_noise)) - (MEAN + 2 * STD)).abs().item()


def moments(sampler, steps):
    """The exact mean and std of what a sampler makes of Gaussian noise.

    With a linear denoiser x is a linear function of its start and of each draw: follow a start of
    0, a start of 1, and a single 1 in each draw, all as one batch.
    """
    sigmas = uniform(steps, COSINE)
    x = torch.zeros(steps + 2, dtype=torch.float64)
    x[1] = 1
    draws = iter(range(2, steps + 2))

    def randn():
        impulse = torch.zeros_like(x)
        impulse[next(draws)] = 1
        return impulse

    zero, one, *noise = last(sampler(denoise, x, sigmas, randn)).tolist()
    start = math.hypot(STD, sigmas[0])
    variance = ((one - zero) * start) ** 2 + sum((end - zero) ** 2 for end in noise)
    return zero + (one - zero) * MEAN, math.sqrt(variance)


@pytest.mark.parametrize(
    "node", [n for n in NODES.values() if not n["eta"]], ids=lambda n: n["name"]
)
def test_halving_the_step_divides_the_error_as_the_yaml_says(node):
    sampler, order = bound(node), node["meta"]["order"]
    assert math.log2(ode_error(sampler, 128) / ode_error(sampler, 256)) == pytest.approx(
        order, abs=0.15
    )


@pytest.mark.parametrize("eta", [0.0, 0.2, 0.5, 1.0])
def test_for_every_eta_the_samples_have_the_datas_mean_and_std_in_the_limit(eta):
    sampler = partial(ddim, eta=eta, noise=1.0)
    errors = [abs(moments(sampler, steps)[1] - STD) for steps in (100, 200, 400)]
    assert errors[2] < 0.01 * STD
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.3)
    assert errors[1] / errors[2] == pytest.approx(2, abs=0.3)
    mean, _ = moments(sampler, 400)
    assert mean == pytest.approx(MEAN, abs=0.01)


def test_without_fresh_noise_ddpm_collapses_to_the_mean():
    mean, std = moments(partial(ddim, eta=1.0, noise=0.0), 400)
    assert mean == pytest.approx(MEAN, abs=0.02)
    assert std < 0.05 * STD
    assert moments(partial(ddim, eta=1.0, noise=1.0), 400)[1] > 0.95 * STD


def test_many_images_have_the_moments_that_were_computed():
    sampler, n = partial(ddim, eta=1.0, noise=1.0), 20_000
    random = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, n, generator=random, dtype=torch.float64)
    sigmas = uniform(30, COSINE)
    x = last(sampler(denoise, MEAN + math.hypot(STD, sigmas[0]) * draw(), sigmas, draw))
    mean, std = moments(sampler, 30)
    assert x.mean().item() == pytest.approx(mean, abs=4 * std / math.sqrt(n))
    assert x.std().item() == pytest.approx(std, rel=4 / math.sqrt(2 * n))


def textbook_ddpm(x, noises):
    """Ho et al. (2020), algorithm 2, posterior of Eq. 6 and 7, in the paper's own variables.

    `x` is x_T; `noises` one draw for each t = T .. 2. Written in NumPy, apart from all our rooms.
    """
    betas = np.linspace(1e-4, 0.02, 1000)
    alphas = 1 - betas
    kept = np.cumprod(alphas)
    for t, z in zip(range(1000, 0, -1), [*noises, 0.0], strict=True):
        beta, alpha_bar = betas[t - 1], kept[t - 1]
        before = kept[t - 2] if t > 1 else 1.0
        sigma = math.sqrt((1 - alpha_bar) / alpha_bar)
        state = x / math.sqrt(alpha_bar)
        x0 = (STD**2 * state + sigma**2 * MEAN) / (STD**2 + sigma**2)
        mean = math.sqrt(before) * beta / (1 - alpha_bar) * x0
        mean = mean + math.sqrt(alphas[t - 1]) * (1 - before) / (1 - alpha_bar) * x
        x = mean + math.sqrt((1 - before) / (1 - alpha_bar) * beta) * z
    return x


def test_a_thousand_steps_of_ddpm_are_the_textbook_posterior():
    random = np.random.default_rng(0)
    x_T = random.standard_normal((8,))
    noises = random.standard_normal((999, 8))
    draws = iter(torch.from_numpy(noises))
    sigmas = uniform(1000, TABLE)
    start = torch.from_numpy(x_T) * (1 + sigmas[0] ** 2).sqrt()
    node = yaml.safe_load((YAMLS[0].parent / "ddpm.yaml").read_text())
    ours = last(bound(node)(denoise, start, sigmas, lambda: next(draws)))
    assert next(draws, None) is None
    assert ours.numpy() == pytest.approx(textbook_ddpm(x_T, noises), abs=2e-12)


def test_the_network_is_called_exactly_as_often_as_there_are_steps(node):
    for steps in (1, 2, 3, 15, 61):
        count = counted(denoise)
        x = torch.ones(3, dtype=torch.float64)
        states = list(bound(node)(count, x, uniform(steps, COSINE), lambda: torch.zeros(3)))
        assert count.calls == len(states) == steps


def test_a_walk_ends_at_the_last_estimate_of_x0(node):
    x = torch.ones(3, dtype=torch.float64)
    states = list(bound(node)(denoise, x, uniform(9, COSINE), lambda: torch.ones(3)))
    state, denoised = states[-1]
    assert torch.equal(state, denoised)
    assert not torch.equal(*states[0])


def test_clipping_is_seen_by_the_next_step():
    x = torch.full((1,), 900.0, dtype=torch.float64)
    held = clipped(denoise, -1.0, 1.0)
    for _, denoised in ddim(held, x, uniform(20, COSINE), no_noise, eta=0.0, noise=1.0):
        assert denoised.abs().max() <= 1


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_an_eta_outside_zero_to_one_is_refused(eta):
    with pytest.raises(ValueError, match=r"eta must be in \[0, 1\]"):
        list(ddim(denoise, torch.ones(1), uniform(2, COSINE), no_noise, eta=eta, noise=1.0))


def test_no_gradient_is_kept_on_the_way():
    x = torch.ones(1, dtype=torch.float64, requires_grad=True)
    assert not last(ddim(denoise, x, uniform(3, COSINE), no_noise, 0.0, 1.0)).requires_grad


def test_a_yaml_says_how_many_steps_suit_it_its_grid_and_its_order(node):
    meta = node["meta"]
    assert meta["steps"] >= 1
    assert meta["order"] >= 1
    assert (YAMLS[0].parents[1] / "grid" / f"{meta['grid']}.yaml").exists()
