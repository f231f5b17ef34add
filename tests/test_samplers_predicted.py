"""DDIM by a predicted level: plain DDIM where the prediction is right, else lesson 22's rule."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from closed_forms import Gaussian, nodes

from diffuse import config
from diffuse.grids import karras, uniform
from diffuse.samplers import ddim, ddim_predicted
from diffuse.samplers.predicted import guarded
from diffuse.schedules import cosine, linear, ve

NODE = nodes("sampler")["ddim_predicted"]
COSINE, TABLE = cosine(0.008, 0.001, 0.999), linear(0.02, 1e-4, 1000, False)
GAUSS = Gaussian()


def sampler(**changes):
    later = ("denoise", "x", "sigmas", "randn", "level_of")
    return config.bind("sampler", {**NODE, **changes}, *later)


def normal(*shape, seed=0):
    """One draw after the other, the same every time."""
    random = torch.Generator().manual_seed(seed)
    return partial(torch.randn, shape, generator=random, dtype=torch.float64)


def exact(sigmas):
    """A regressor that is always right: it has seen the grid."""
    levels = iter(sigmas)
    return lambda y: next(levels).expand(len(y))


def last(steps):
    for x, _ in steps:  # noqa: B007
        pass
    return x


def no_noise():
    raise AssertionError("a deterministic sampler asked for noise")


@pytest.mark.parametrize("level", ["image", "median"])
@pytest.mark.parametrize("guard", [None, 1.0, 2.0])
@pytest.mark.parametrize(("eta", "noise"), [(0.0, 1.0), (0.4, 1.0), (1.0, 1.0), (1.0, 0.5)])
def test_an_exact_prediction_makes_it_ddim(eta, noise, guard, level):
    sigmas = uniform(40, COSINE, "trailing")
    start = sigmas[0] * normal(6, 5, seed=1)()
    ours = sampler(eta=eta, noise=noise, guard=guard, level=level)
    mine = ours(GAUSS.denoise, start, sigmas, normal(6, 5), level_of=exact(sigmas))
    theirs = ddim(GAUSS.denoise, start, sigmas, normal(6, 5), eta=eta, noise=noise)
    for (x, denoised), (y, estimate) in zip(mine, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(denoised, estimate, rtol=1e-9, atol=1e-11)


def test_halving_the_step_divides_the_error_as_the_yaml_says():
    errors = []
    for steps in (64, 128):
        sigmas = karras(steps, ve(0.01, 10.0), rho=7.0, sigma_min=None, sigma_max=None)[:-1]
        start = GAUSS.state(sigmas[0])[None]
        end = last(sampler(eta=0.0)(GAUSS.denoise, start, sigmas, no_noise, level_of=exact(sigmas)))
        errors.append((end - GAUSS.state(sigmas[-1])).abs().max().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(NODE["meta"]["order"], abs=0.15)


def network(y):
    """What a network without noise level may say: eps, from the variance-preserving state alone."""
    return 0.8 * torch.tanh(y) + 0.1 * y.flip(1)


def estimate(x, sigma):
    """The same network as a denoiser."""
    sigma = sigma[:, None]
    return x - sigma * network(x / (1 + sigma**2).sqrt())


def predicted(y):
    """Far from right, and another for each image."""
    return 0.2 + 2 * torch.sigmoid(3 * y.mean(1))


def lesson_22(y, sigmas, eta, randn):
    """The lessons' loop in the lessons' variables: abar is scheduled, abar_hat predicted."""
    abars = [*(1 / (1 + sigmas[:-1] ** 2)).tolist(), 1.0]
    for abar, after in pairwise(abars):
        abar_hat = 1 / (1 + predicted(y) ** 2)[:, None]
        noise = network(y)
        x0_hat = (y - (1 - abar_hat).sqrt() * noise) / abar_hat.sqrt()
        sig = eta * math.sqrt((1 - after) / (1 - abar)) * math.sqrt(1 - abar / after)
        y = math.sqrt(after) * x0_hat + math.sqrt(1 - after - sig**2) * noise
        if sig:
            y = y + sig * randn()
    return y


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("process", [COSINE, TABLE], ids=["cosine", "linear"])
def test_with_a_wrong_prediction_it_is_the_lessons_rule(process, eta):
    sigmas = uniform(50, process, "trailing")
    start = normal(4, 5, seed=1)()
    expected = lesson_22(start, sigmas, eta, normal(4, 5))
    x = start * (1 + sigmas[0] ** 2).sqrt()
    ours = last(sampler(eta=eta, guard=None)(estimate, x, sigmas, normal(4, 5), level_of=predicted))
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-10)
    straight = last(ddim(lambda x, s: estimate(x, s[None]), x, sigmas, normal(4, 5), eta, 1.0))
    assert (ours - straight).abs().max() > 0.1


STD = 0.25


def seen(y):
    """Of many independent pixels N(0, STD^2 + sigma^2) the variance says the level."""
    variance = y.square().mean(1)
    return ((variance - STD**2).clamp(min=1e-6) / (1 - variance).clamp(min=1e-6)).sqrt()


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_level_that_is_read_off_the_image_is_as_good_as_the_true_one(eta):
    """Gaussian data of 10,000 pixels; the denoiser is exact, and nobody tells it the level."""

    def denoise(x, sigma):
        return x * STD**2 / (STD**2 + sigma[:, None] ** 2)

    sigmas = uniform(200, COSINE, "trailing")
    draw = normal(2, 10_000)
    start = math.hypot(STD, sigmas[0]) * draw()
    told = last(sampler(eta=eta)(denoise, start, sigmas, normal(2, 10_000), exact(sigmas)))
    free = last(sampler(eta=eta)(denoise, start, sigmas, normal(2, 10_000), seen))
    assert told.std().item() == pytest.approx(STD, rel=0.03)
    assert free.std().item() == pytest.approx(STD, rel=0.03)


def test_the_guard_is_a_factor_on_alpha_bar_around_the_batchs_median():
    sigma = (1 / torch.tensor([0.9, 0.5, 0.45, 0.05, 0.6], dtype=torch.float64) - 1).sqrt()

    def kept(guard):
        return (1 / (1 + guarded(sigma, guard) ** 2)).tolist()

    assert kept(1.5) == pytest.approx([0.75, 0.5, 0.45, 1 / 3, 0.6])
    assert kept(2.0) == pytest.approx([0.9, 0.5, 0.45, 0.25, 0.6])
    assert kept(1.0) == pytest.approx([0.5] * 5)
    assert kept(100.0) == pytest.approx([0.9, 0.5, 0.45, 0.05, 0.6])


def levels_used(**changes):
    used = []

    def denoise(x, sigma):
        used.append(sigma.tolist())
        return 0 * x

    sigmas = torch.tensor([1.0, 0.0], dtype=torch.float64)
    guess = torch.tensor([0.1, 1.0, 9.0], dtype=torch.float64)
    last(sampler(**changes)(denoise, torch.ones(3, 2).double(), sigmas, no_noise, lambda y: guess))
    return used[0]


def test_the_network_gets_each_images_level_the_guarded_one_or_the_batchs_median():
    assert levels_used(guard=None) == [0.1, 1.0, 9.0]
    assert levels_used(guard=2.0) == pytest.approx([0.1, 1.0, math.sqrt(3)])
    assert levels_used(level="median") == [1.0, 1.0, 1.0]


def test_the_regressor_sees_the_variance_preserving_state():
    states = []

    def level_of(y):
        states.append(y)
        return torch.ones(len(y), dtype=torch.float64)

    sigmas = uniform(5, COSINE, "trailing")
    walk = sampler(eta=0.0)(lambda x, s: 0 * x, torch.ones(2, 3), sigmas, no_noise, level_of)
    visited = [torch.ones(2, 3), *[x for x, _ in walk]]
    for y, x, sigma in zip(states, visited, sigmas, strict=False):
        torch.testing.assert_close(y, x / math.sqrt(1 + sigma**2))
    assert len(states) == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"guard": 0.9}, "guard must be at least 1, or null for none, got 0.9"),
        ({"guard": math.nan}, "guard must be at least 1"),
        ({"level": "mean"}, "level must be one of image, median, got 'mean'"),
        ({"eta": 1.1}, "eta must be in"),
    ],
)
def test_an_option_that_means_nothing_is_refused(change, words):
    sigmas = uniform(2, COSINE, "trailing")
    options = {"eta": 1.0, "noise": 1.0, "guard": 2.0, "level": "image", **change}
    walk = ddim_predicted(GAUSS.denoise, torch.ones(2, 5), sigmas, no_noise, predicted, **options)
    with pytest.raises(ValueError, match=words):
        next(walk)
