"""Samplers with fresh noise, on Gaussian data, where mean and deviation are computed, not drawn."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from closed_forms import Gaussian, Mixture, nodes

from diffuse import config
from diffuse.schedules import cosine, linear, ve

SAMPLERS, GRIDS = nodes("sampler"), nodes("grid")
PROCESS = ve(0.01, 10.0)
GAUSS = Gaussian()
MEAN, STD = GAUSS.mean, GAUSS.std


def bound(name, **changes):
    node = {**SAMPLERS[name], **changes}
    return config.bind("sampler", node, "denoise", "x", "sigmas", "randn")


def levels(steps, process=PROCESS, grid="logsnr"):
    return config.build("grid", GRIDS[grid], steps=steps, schedule=process)


def last(steps):
    for x, _ in steps:  # noqa: B007
        pass
    return x


def moments(sampler, sigmas):
    """The exact mean and deviation [5] of what a sampler makes of Gaussian noise.

    With a linear denoiser x is a linear function of its start and of each draw: follow a start of
    0, a start of 1, and a single 1 in each draw, all as one batch.
    """
    draws = 0

    def counting():
        nonlocal draws
        draws += 1
        return torch.zeros(5, dtype=torch.float64)

    last(sampler(GAUSS.denoise, torch.zeros(5, dtype=torch.float64), sigmas, counting))
    x = torch.zeros(draws + 2, 5, dtype=torch.float64)
    x[1] = 1
    rows = iter(range(2, draws + 2))

    def randn():
        impulse = torch.zeros_like(x)
        impulse[next(rows)] = 1
        return impulse

    ends = last(sampler(GAUSS.denoise, x, sigmas, randn))
    zero, one, noise = ends[0], ends[1], ends[2:]
    start = (STD**2 + sigmas[0] ** 2).sqrt()
    variance = ((one - zero) * start) ** 2 + ((noise - zero) ** 2).sum(0)
    return zero + (one - zero) * MEAN, variance.sqrt()


def errors(sampler, sizes, process=PROCESS, grid="logsnr"):
    found = []
    for steps in sizes:
        mean, std = moments(sampler, levels(steps, process, grid))
        found.append(((mean - MEAN).norm().item(), (std - STD).norm().item()))
    return zip(*found, strict=True)


NOISY = [
    *[("ddim", {"eta": eta}) for eta in (0.2, 0.5, 0.8, 1.0)],
    *[("dpmpp_2m_sde", {"eta": eta}) for eta in (0.2, 0.5, 0.8, 1.0)],
    ("ddpm", {}),
    ("euler_ancestral", {}),
    ("ddpm_large", {}),
    ("heun", {"churn": 40.0}),
    ("langevin", {}),
    ("langevin", {"corrections": 3, "snr": 0.1}),
]


@pytest.mark.parametrize(("name", "change"), NOISY, ids=lambda value: str(value))
def test_the_error_of_mean_and_deviation_halves_as_the_steps_double(name, change):
    """At least: dpmpp_2m_sde and heun do better. The end of the levels goes to 0 with the steps."""
    for process, grid in ((ve(1e-4, 10.0), "logsnr"), (cosine(0.008, 1e-5, 0.999), "karras")):
        means, stds = errors(bound(name, **change), (200, 400, 800), process, grid)
        for found in (means, stds):
            for coarse, fine in pairwise(found):
                assert fine < 1e-5 or coarse / fine > 1.7
        assert stds[2] < 0.03


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m_sde"])
def test_without_fresh_noise_samples_collapse_towards_the_mean(name):
    sigmas = levels(800, ve(0.01, 80.0))
    mean, std = moments(bound(name, eta=1.0, noise=0.0), sigmas)
    assert torch.allclose(mean, MEAN, atol=0.02)
    assert (std < 0.05 * STD).all()
    whole = moments(bound(name, eta=1.0, noise=1.0), sigmas)[1]
    assert (whole > 0.95 * STD).all()


DRAWN = [*NOISY[:4], ("dpmpp_2m_sde", {}), ("heun", {"churn": 40.0})]


@pytest.mark.parametrize(("name", "change"), DRAWN, ids=lambda value: str(value))
def test_many_samples_of_a_mixture_have_its_distribution(name, change):
    """The distance of Kolmogorov and Smirnov: 20,000 samples reach 0.0136 once in a thousand."""
    mixture, n = Mixture(), 20_000
    random = torch.Generator().manual_seed(0)
    randn = lambda: torch.randn(n, generator=random, dtype=torch.float64)  # noqa: E731
    sigmas = levels(150, ve(0.01, 20.0), "karras")
    mean = (mixture.shares * mixture.means).sum()
    ends = last(bound(name, **change)(mixture.denoise, mean + sigmas[0] * randn(), sigmas, randn))
    expected = mixture.cdf(ends.sort().values)
    seen = torch.arange(1, n + 1, dtype=torch.float64) / n
    assert (expected - seen).abs().max() < 0.0136 + 0.004  # and what 150 steps leave


def test_at_eta_zero_the_stochastic_multistep_sampler_is_the_deterministic_one():
    sigmas, start = levels(20), GAUSS.state(torch.tensor(10.0).double())
    one = last(bound("dpmpp_2m_sde", eta=0.0)(GAUSS.denoise, start, sigmas, None))
    other = last(bound("dpmpp_2m")(GAUSS.denoise, start, sigmas, None))
    assert torch.allclose(one, other, rtol=1e-14, atol=0)


def textbook_ddpm(x, noises, large):
    """Ho et al. (2020), algorithm 2, posterior of Eq. 6 and 7, in the paper's own variables.

    `x` is x_T; `noises` one draw for each t = T .. 2. Written in NumPy, apart from all our rooms.
    """
    mean_0, std_0 = MEAN.numpy(), STD.numpy()
    betas = np.linspace(1e-4, 0.02, 1000)
    alphas = 1 - betas
    kept = np.cumprod(alphas)
    for t, z in zip(range(1000, 0, -1), [*noises, 0.0], strict=True):
        beta, alpha_bar = betas[t - 1], kept[t - 1]
        before = kept[t - 2] if t > 1 else 1.0
        sigma = math.sqrt((1 - alpha_bar) / alpha_bar)
        state = x / math.sqrt(alpha_bar)
        x0 = (std_0**2 * state + sigma**2 * mean_0) / (std_0**2 + sigma**2)
        mean = math.sqrt(before) * beta / (1 - alpha_bar) * x0
        mean = mean + math.sqrt(alphas[t - 1]) * (1 - before) / (1 - alpha_bar) * x
        variance = beta if large else (1 - before) / (1 - alpha_bar) * beta
        x = mean + math.sqrt(variance) * z
    return x


@pytest.mark.parametrize(("name", "large"), [("ddpm", False), ("ddpm_large", True)])
def test_a_thousand_steps_of_ddpm_are_the_textbook_posterior(name, large):
    random = np.random.default_rng(0)
    x_T = random.standard_normal((8, 5))
    noises = random.standard_normal((999, 8, 5))
    draws = iter(torch.from_numpy(noises))
    table = linear(0.02, 1e-4, 1000, zero_snr=False)
    sigmas = levels(1000, table, "uniform")
    start = torch.from_numpy(x_T) * (1 + sigmas[0] ** 2).sqrt()
    ours = last(bound(name)(GAUSS.denoise, start, sigmas, lambda: next(draws)))
    assert next(draws, None) is None
    assert ours.numpy() == pytest.approx(textbook_ddpm(x_T, noises, large), abs=5e-12)


def test_euler_on_the_straight_path_is_ddim():
    """dz/dt = eps - x0 for z = (1 - t) x0 + t eps, in the variables of flow matching."""
    t = torch.linspace(0.99, 0.02, 30, dtype=torch.float64)
    sigmas = torch.cat([t / (1 - t), torch.zeros(1, dtype=torch.float64)])
    x = GAUSS.state(sigmas[0])
    z = (1 - t[0]) * x
    for now, following in zip(t, [*t[1:], torch.tensor(0.0)], strict=True):
        sigma = now / (1 - now)
        x0 = GAUSS.denoise(z / (1 - now), sigma)
        eps = (z / (1 - now) - x0) / sigma
        z = z + (following - now) * (eps - x0)
    ours = last(bound("ddim")(GAUSS.denoise, x, sigmas, None))
    assert torch.allclose(ours, z, rtol=0, atol=1e-14)
