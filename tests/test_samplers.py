"""Samplers, on problems whose answer is known in closed form: orders, calls, ends."""

import math

import numpy as np
import pytest
import torch
from closed_forms import Gaussian, Mixture, Points, column, nodes
from scipy.integrate import solve_ivp

from diffuse import config, sampling
from diffuse.denoiser import counted
from diffuse.errors import DivergedError
from diffuse.samplers import ipndm, rk45
from diffuse.schedules import cosine, ve

SAMPLERS, GRIDS = nodes("sampler"), nodes("grid")
SPACINGS = ("trailing", "leading", "linspace")
GRIDS |= {f"uniform-{s}": {**GRIDS["uniform"], "spacing": s} for s in SPACINGS[1:]}
ADAPTIVE = [name for name, node in SAMPLERS.items() if node["meta"].get("adaptive")]
NOISY = ("ddpm", "euler_ancestral", "ddpm_large", "dpmpp_2m_sde", "langevin")
PREDICTED = [name for name, node in SAMPLERS.items() if node["meta"].get("needs")]
EXACT = [name for name in SAMPLERS if name not in (*NOISY, *ADAPTIVE, *PREDICTED)]
STEPPING = [name for name in SAMPLERS if name not in (*ADAPTIVE, *PREDICTED)]
MULTISTEP = ("lms", "deis", "ipndm", "dpmpp_2m", "dpmpp_3m", "unipc")
PROCESS = ve(0.01, 10.0)
GAUSS = Gaussian()


def bound(name, **changes):
    node = {**SAMPLERS[name], **changes}
    return config.bind("sampler", node, "denoise", "x", "sigmas", "randn")


def levels(steps, grid="karras", process=PROCESS, **changes):
    return config.build("grid", {**GRIDS[grid], **changes}, steps=steps, schedule=process)


def order_of(name):
    return SAMPLERS[name]["meta"]["order"]


def no_noise():
    raise AssertionError("a deterministic sampler asked for noise")


def last(steps):
    for x, _ in steps:  # noqa: B007
        pass
    return x


def history(sigmas):
    """What a multistep sampler would have seen on its way, had it made no error."""
    return [(s, GAUSS.state(s), GAUSS.denoise(GAUSS.state(s), s)) for s in sigmas]


def ode_error(name, sigmas, **changes):
    """The distance from the ODE at the last level but 0, from where it was at the first ones."""
    sigmas, past = sigmas[:-1], {}
    if name in MULTISTEP:
        past, sigmas = {"history": history(sigmas[:4])}, sigmas[4:]
    x = last(
        bound(name, **changes)(GAUSS.denoise, GAUSS.state(sigmas[0]), sigmas, no_noise, **past)
    )
    return (x - GAUSS.state(sigmas[-1])).norm().item()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", EXACT)
def test_the_error_falls_with_the_order_that_the_yaml_declares(name, grid):
    order = order_of(name)
    steps = 250 if order < 4 else 600
    errors = [ode_error(name, levels(n, grid)) for n in (steps, 2 * steps)]
    assert errors[1] > 1e-13  # not yet rounding
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize(("name", "gain"), [("lms", 0), ("deis", 0), ("unipc", 1)])
def test_the_order_that_is_asked_for_is_the_order_of_the_error(name, gain, order):
    errors = [ode_error(name, levels(n), order=order) for n in (200, 400)]
    expected = 2 if (name, order) == ("unipc", 1) else order + gain
    assert math.log2(errors[0] / errors[1]) == pytest.approx(expected, abs=0.3)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_ipndm_has_its_order_on_even_sigmas_and_on_others_no_more_than_two(order):
    def observed(grid, **changes):
        sizes = (400, 800)
        grids = [levels(n, grid, process=ve(0.5, 10.0), **changes) for n in sizes]
        first, second = (ode_error("ipndm", sigmas, order=order) for sigmas in grids)
        return math.log2(first / second)

    assert observed("karras", rho=1.0) == pytest.approx(order, abs=0.3)
    assert observed("karras") == pytest.approx(min(order, 2), abs=0.3)


def test_the_published_third_order_of_dpmpp_takes_half_of_the_curvature():
    """Lu et al.'s D2 is h^2 D'' / 2 where its factor wants h^2 D'': with twice that it is third."""
    published = [ode_error("dpmpp_3m", levels(n), curvature=1.0) for n in (300, 600)]
    doubled = [ode_error("dpmpp_3m", levels(n), curvature=2.0) for n in (300, 600)]
    assert math.log2(published[0] / published[1]) == pytest.approx(2, abs=0.1)
    assert math.log2(doubled[0] / doubled[1]) == pytest.approx(3, abs=0.1)
    assert doubled[1] < published[1] / 10


@pytest.fixture(scope="module")
def walked():
    """The ODE of a mixture, by SciPy's rule of another family and to twelve digits."""
    start = torch.linspace(-15, 15, 7, dtype=torch.float64)
    sigmas = levels(1000, "logsnr", ve(0.02, 10.0))

    def slope(u, x):
        x = torch.from_numpy(x)
        return (x - Mixture().denoise(x, torch.tensor(math.exp(u)))).numpy()

    ends = (sigmas[0].log().item(), sigmas[-2].log().item())
    exact = torch.from_numpy(solve_ivp(slope, ends, start, rtol=1e-11, atol=1e-12).y[:, -1])
    return start, sigmas, exact


@pytest.mark.parametrize("name", [*EXACT, *ADAPTIVE])
def test_every_deterministic_sampler_follows_the_ode_of_a_mixture(name, walked):
    mixture, (start, sigmas, exact) = Mixture(), walked
    if name in ADAPTIVE:  # it goes on to 0
        ours = last(rk45(mixture.denoise, start[:, None], sigmas, no_noise, 1e-8, 1e-8))[:, 0]
        assert torch.allclose(ours, mixture.denoise(exact, sigmas[-2]), rtol=0, atol=1e-6)
    else:
        ours = last(bound(name)(mixture.denoise, start, sigmas[:-1], no_noise))
        assert torch.allclose(ours, exact, rtol=0, atol=0.06 if order_of(name) == 1 else 3e-4)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in PREDICTED])
def test_with_the_ideal_denoiser_of_a_few_points_every_sampler_ends_at_one_of_them(name):
    random = torch.Generator().manual_seed(0)
    points = torch.randn(5, 3, generator=random, dtype=torch.float64)
    randn = lambda: torch.randn(60, 3, generator=random, dtype=torch.float64)  # noqa: E731
    sigmas = levels(120, "karras", ve(0.01, 20.0))
    ends = last(bound(name)(Points(points).denoise, 20 * randn(), sigmas, randn))
    distance = torch.cdist(ends, points)
    assert distance.min(1).values.max() < 0.02
    assert len(distance.argmin(1).unique()) == 5


CALLS = {"heun": lambda n: 2 * n - 1, "langevin": lambda n: 2 * n - 1}


@pytest.mark.parametrize("name", STEPPING)
def test_the_network_is_called_as_often_as_is_announced(name):
    zero = torch.zeros(5, dtype=torch.float64)
    for steps in (1, 2, 3, 15, 61):
        count = counted(GAUSS.denoise)
        states = list(bound(name)(count, zero + 1, levels(steps), lambda: zero))
        assert len(states) == steps
        expected = CALLS.get(name, lambda n: n)(steps)
        assert count.calls == sampling.calls(bound(name), steps) == expected


@pytest.mark.parametrize("name", [n for n in STEPPING if n != "lms"])
def test_a_walk_ends_at_the_last_estimate_of_x0(name):
    """LMS integrates its polynomial down to 0 instead, as published."""
    x = torch.ones(5, dtype=torch.float64)
    states = list(bound(name)(GAUSS.denoise, x, levels(9), lambda: torch.ones(5)))
    state, denoised = states[-1]
    assert torch.allclose(state, denoised, rtol=0, atol=1e-15)
    assert not torch.allclose(*states[0])


@pytest.mark.parametrize("name", [n for n in SAMPLERS if n not in PREDICTED])
def test_no_gradient_is_kept_on_the_way(name):
    x = torch.ones(1, 5, dtype=torch.float64, requires_grad=True)
    assert not last(bound(name)(GAUSS.denoise, x, levels(3), lambda: torch.ones(5))).requires_grad


@pytest.mark.parametrize("name", [n for n in SAMPLERS if n not in PREDICTED])
def test_float32_states_stay_float32_and_levels_float64(name):
    seen = set()

    def denoise(x, sigma):
        seen.add((x.dtype, sigma.dtype))
        return x / 2

    x = torch.ones(2, 1, 4, 4)
    assert last(bound(name)(denoise, x, levels(6), lambda: torch.ones_like(x))).dtype == x.dtype
    assert seen == {(torch.float32, torch.float64)}


def test_churn_of_heun_never_asks_for_a_level_above_the_first():
    asked = []

    def denoise(x, sigma):
        asked.append(sigma.item())
        return GAUSS.denoise(x, sigma)

    sigmas = levels(10)
    list(bound("heun", churn=40.0)(denoise, GAUSS.state(sigmas[0]), sigmas, lambda: 0))
    assert max(asked) == sigmas[0]
    assert asked[2] > sigmas[1]  # churned


def test_rk45_keeps_the_error_near_its_tolerance_and_pays_for_it_in_calls():
    sigmas, calls, errors = levels(2, "logsnr"), [], []
    for tolerance in (1e-3, 1e-5, 1e-7):
        count = counted(GAUSS.denoise)
        x = last(rk45(count, GAUSS.state(sigmas[0])[None], sigmas, no_noise, tolerance, tolerance))
        exact = GAUSS.denoise(GAUSS.state(sigmas[-2]), sigmas[-2])
        errors.append((x[0] - exact).abs().max().item())
        calls.append(count.calls)
    assert errors[0] < 1e-2
    assert errors[1] < 1e-4
    assert errors[2] < 1e-6
    assert calls == sorted(calls)
    assert calls[0] < 120
    assert all(count % 6 == 1 for count in calls)  # first same as last: six a step


def test_an_image_of_rk45_does_not_depend_on_the_others():
    sigmas = levels(2, "logsnr")
    easy, hard = GAUSS.state(sigmas[0], 0.01), GAUSS.state(sigmas[0], 30.0)
    together = last(rk45(GAUSS.denoise, torch.stack([easy, hard]), sigmas, no_noise, 1e-4, 1e-4))
    alone = last(rk45(GAUSS.denoise, easy[None], sigmas, no_noise, 1e-4, 1e-4))
    assert torch.equal(together[:1], alone)


def test_rk45_gives_up_on_an_estimate_that_jumps():
    def jumps(x, sigma):
        return torch.where((x * 1e6).floor() % 2 == 0, 1e6, -1e6).to(x.dtype)

    with pytest.raises(DivergedError, match=r"rk45: no step is short enough at sigma = .*rtol"):
        last(rk45(jumps, torch.ones(2, 5, dtype=torch.float64), levels(2), no_noise, 1e-6, 1e-6))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rk45_does_not_wait_for_an_estimate_that_is_no_number(bad):
    def spoiled(x, sigma):
        return GAUSS.denoise(x, sigma) + torch.where(column(sigma) < 1, bad, 0.0)

    with pytest.raises(DivergedError, match="rk45: no step is short enough at sigma = "):
        last(rk45(spoiled, torch.ones(2, 5).double(), levels(2), no_noise, 1e-3, 1e-3))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("ddim", {"eta": -0.1}, r"eta must be in \[0, 1\], got -0.1"),
        ("ddim", {"eta": 1.1}, r"eta must be in \[0, 1\], got 1.1"),
        ("ddim", {"eta": math.nan}, r"eta must be in \[0, 1\]"),
        ("dpmpp_2m_sde", {"eta": 2.0}, r"eta must be in \[0, 1\], got 2"),
        ("heun", {"churn": -1.0}, "churn must be at least 0, got -1"),
        ("langevin", {"corrections": 0}, "corrections must be at least 1 .*got 0"),
        ("langevin", {"snr": 1.5}, r"snr in \(0, 1\), got 1 and 1.5"),
        ("lms", {"order": 5}, r"order must be in \[1, 4\], got 5"),
        ("deis", {"order": 0}, r"order must be in \[1, 4\], got 0"),
        ("ipndm", {"order": 5}, r"order must be in \[1, 4\], got 5"),
        ("unipc", {"order": 0}, r"order must be in \[1, 4\], got 0"),
        ("rk45", {"rtol": 0.0}, "rtol and atol must be more than 0"),
    ],
)
def test_options_that_cannot_be_are_refused_in_words(name, change, words):
    with pytest.raises(ValueError, match=words):
        list(bound(name, **change)(GAUSS.denoise, torch.ones(1, 5), levels(2), no_noise))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_yaml_says_how_many_steps_suit_it_and_its_order(name):
    meta = SAMPLERS[name]["meta"]
    assert meta.get("adaptive") or (meta["steps"] >= 1 and meta["order"] >= 1)


def test_multistep_samplers_begin_with_lower_orders_and_still_converge():
    process = cosine(0.008, 0.001, 0.999)
    for name in MULTISTEP:
        ends = []
        for steps in (200, 400):
            sigmas = levels(steps, process=process)[:-1]
            end = last(bound(name)(GAUSS.denoise, GAUSS.state(sigmas[0]), sigmas, no_noise))
            ends.append((end - GAUSS.state(sigmas[-1])).norm().item())
        assert ends[1] < ends[0] / 3.5, name


def test_weights_of_even_steps_are_those_of_adams_and_bashforth():
    """LMS computes by quadrature on any grid what iPNDM has as fractions for even steps."""
    sigmas = torch.linspace(10, 1, 40, dtype=torch.float64)
    past = history(sigmas[:4])
    for order in (1, 2, 3, 4):
        walk = [GAUSS.denoise, GAUSS.state(sigmas[4]), sigmas[4:], no_noise, order, past]
        by_quadrature = last(bound("lms", order=order)(*walk[:4], history=past))
        assert np.allclose(last(ipndm(*walk)), by_quadrature, rtol=1e-12, atol=0)


def test_a_constant_estimate_leaves_nothing_to_extrapolate():
    target = torch.full((5,), 0.4, dtype=torch.float64)
    sigmas = levels(7)
    for name in EXACT:
        x = last(bound(name)(lambda x, s: target, target + 3, sigmas, no_noise))
        assert torch.allclose(x, target, rtol=0, atol=1e-14), name
