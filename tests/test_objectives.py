"""Objectives and weightings: five ways to ask, one loss; which level counts how much."""

import math

import pytest
import torch
from closed_forms import Gaussian, nodes
from torch import nn

from diffuse.config import build
from diffuse.denoiser import Denoiser
from diffuse.objectives import edm, eps, flow, v, x0
from diffuse.weightings import edm as edm_weighting
from diffuse.weightings import min_snr, p2, snr, uniform

UNIFORM = uniform()
EXACT = torch.float32  # no autocast: float64 goes in and comes out
MEASURED = {"sigma_data": 0.5}  # null in the yamls: measured by training


def built(group, node):
    return build(group, {**node, **(MEASURED if "sigma_data" in node else {})})


OBJECTIVES = {name: built("objective", node) for name, node in nodes("objective").items()}
WEIGHTINGS = {name: built("weighting", node) for name, node in nodes("weighting").items()}
SCHEDULES = {name: build("schedule", node) for name, node in nodes("schedule").items()}
LEVELS = torch.logspace(-3, 3, 25, dtype=torch.float64)


class Answers(nn.Module):
    """A network that gives a known answer, whatever it is asked."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, c_noise, label=None):
        return self.answer


def draw(n):
    random = torch.Generator().manual_seed(0)
    return (torch.randn(n, 2, 4, 4, generator=random, dtype=torch.float64) for _ in range(2))


def column(sigma):
    return sigma.view(-1, 1, 1, 1)


def target(objective, clean, sigma, noise):
    """What F learns, from the general equation."""
    c_skip, c_out, _ = map(column, objective.coefficients(sigma))
    return ((1 - c_skip) * clean - c_skip * column(sigma) * noise) / c_out


def test_input_and_target_have_unit_variance_where_their_paper_wants_it():
    for objective, std in ((v(), 1.0), (edm(1.0), 1.0), (edm(0.3), 0.3), (edm(2.0), 2.0)):
        c_skip, c_out, c_in = objective.coefficients(LEVELS)
        assert torch.allclose(c_in**2 * (std**2 + LEVELS**2), torch.ones_like(LEVELS))
        signal, noise = (1 - c_skip) / c_out, -c_skip * LEVELS / c_out
        assert torch.allclose((signal * std) ** 2 + noise**2, torch.ones_like(LEVELS))


def test_edm_for_data_of_unit_variance_is_v_with_the_other_sign():
    c_skip, c_out, c_in = v().coefficients(LEVELS)
    for ours, theirs in zip(edm(1.0).coefficients(LEVELS), (c_skip, -c_out, c_in), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=0)


def test_the_flow_network_sees_the_straight_path_and_is_asked_for_its_velocity():
    clean, noise = draw(len(LEVELS))
    t = column(LEVELS / (1 + LEVELS))
    _, _, c_in = flow().coefficients(LEVELS)
    seen = column(c_in) * (clean + column(LEVELS) * noise)
    assert torch.allclose(seen, (1 - t) * clean + t * noise, atol=1e-12)
    assert torch.allclose(target(flow(), clean, LEVELS, noise), noise - clean, atol=1e-9)


def test_the_x0_target_is_the_image_and_the_eps_target_the_noise():
    clean, noise = draw(len(LEVELS))
    assert torch.allclose(target(x0(), clean, LEVELS, noise), clean, atol=1e-12)
    assert torch.allclose(target(eps(), clean, LEVELS, noise), noise, atol=1e-12)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_estimates_of_x0_and_eps_and_v_are_those_of_one_truth(name):
    clean, noise = draw(len(LEVELS))
    denoiser = Denoiser(
        Answers(target(OBJECTIVES[name], clean, LEVELS, noise)), OBJECTIVES[name], UNIFORM, EXACT
    )
    x, sigma = clean + column(LEVELS) * noise, column(LEVELS)
    estimate = denoiser(x, LEVELS)
    implied = (x - estimate) / sigma
    a, b = 1 / (1 + sigma**2).sqrt(), sigma / (1 + sigma**2).sqrt()
    assert torch.allclose(estimate, clean, rtol=0, atol=1e-6)
    assert torch.allclose(implied, noise, rtol=0, atol=1e-6)
    assert torch.allclose(a * implied - b * estimate, a * noise - b * clean, rtol=0, atol=1e-6)
    in_float32 = denoiser(x.float(), LEVELS)  # to rounding errors of the state
    assert ((in_float32 - clean).abs() / (1 + sigma)).max() < 1e-6


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_a_deviation_of_the_data_that_cannot_be_is_refused(bad):
    for make in (edm, edm_weighting):
        with pytest.raises(ValueError, match="sigma_data must be more than 0"):
            make(bad)


class Pointwise(nn.Module):
    """A network so simple that the textbook can be written beside it."""

    def forward(self, x, c_noise, label=None):
        return torch.tanh(x) + c_noise.view(-1, 1, 1, 1)


def textbook(kind, clean, alpha_bar, noise):
    """Ho et al.'s L_simple and Salimans & Ho's v loss, in the variance-preserving state x_t."""
    a, b = alpha_bar.sqrt().view(-1, 1, 1, 1), (1 - alpha_bar).sqrt().view(-1, 1, 1, 1)
    x_t = a * clean + b * noise
    predicted = Pointwise()(x_t, (b / a).flatten().log() / 4)
    wanted = noise if kind == "eps" else a * noise - b * clean
    return ((predicted - wanted) ** 2).flatten(1).mean(1)


@pytest.mark.parametrize("objective", [eps, v])
def test_the_loss_is_the_textbooks(objective):
    alpha_bar = torch.tensor([0.9999, 0.9, 0.5, 0.1, 4e-5], dtype=torch.float64)
    clean, noise = draw(5)
    denoiser = Denoiser(Pointwise(), objective(), UNIFORM, torch.float32)
    ours = denoiser.loss(clean, ((1 - alpha_bar) / alpha_bar).sqrt(), noise)
    assert torch.allclose(ours, textbook(objective.__name__, clean, alpha_bar, noise), rtol=1e-9)


def test_the_two_estimates_of_x0_agree_where_the_two_networks_do():
    """A network's eps and v are related by eps = b x_t + a v: both denoisers are then one."""
    sigma = torch.logspace(-2, 2, 9, dtype=torch.float64)
    clean, noise = draw(9)
    x = clean + column(sigma) * noise
    a, b = 1 / (1 + column(sigma) ** 2).sqrt(), column(sigma) / (1 + column(sigma) ** 2).sqrt()
    said = torch.tanh(x)  # any answer will do
    by_v = Denoiser(Answers(said), v(), UNIFORM, torch.float32)(x, sigma)
    by_eps = Denoiser(Answers(b * (a * x) + a * said), eps(), UNIFORM, torch.float32)(x, sigma)
    assert torch.allclose(by_eps, by_v, atol=1e-6)


def losses(objective, weighting, wrong=0.2):
    """The loss of each level of denoisers that all are wrong by the same d in x0."""
    clean, noise = draw(len(LEVELS))
    c_skip, c_out, _ = map(column, objective.coefficients(LEVELS))
    right = ((1 - c_skip) * clean - c_skip * column(LEVELS) * noise) / c_out
    net = Answers(right + wrong / c_out)
    return Denoiser(net, objective, weighting, torch.float32).loss(clean, LEVELS, noise)


@pytest.mark.parametrize("name", [name for name in WEIGHTINGS if name != "uniform"])
def test_a_weighting_is_the_same_for_every_objective(name):
    expected = losses(OBJECTIVES["v"], WEIGHTINGS[name])
    for objective in OBJECTIVES.values():
        assert torch.allclose(losses(objective, WEIGHTINGS[name]), expected, rtol=1e-8)


IN_X0 = {  # the weights of |D - x0|^2 as their papers have them, SNR = 1 / sigma^2
    "snr": lambda r: r,
    "min_snr": lambda r: r.clamp(max=5.0),
    "p2": lambda r: r / (1 + r),
    "edm": lambda r: (1 / r + 0.25) / (0.25 / r),
}


@pytest.mark.parametrize("name", IN_X0)
def test_a_weighting_weighs_the_error_of_x0_as_its_paper_says(name):
    expected = IN_X0[name](LEVELS**-2) * 0.2**2
    assert torch.allclose(losses(OBJECTIVES["flow"], WEIGHTINGS[name]), expected, rtol=1e-8)


SAME = {
    "eps and the SNR": ((eps(), UNIFORM), (v(), snr())),  # L_simple
    "edm and its weighting": ((edm(0.5), UNIFORM), (x0(), edm_weighting(0.5))),
    "no bound at all": ((x0(), min_snr(1e12)), (x0(), snr())),
    "no power at all": ((flow(), p2(gamma=0.0, k=1.0)), (flow(), snr())),
    "v and SNR + 1": ((v(), UNIFORM), (eps(), edm_weighting(1.0))),
}


@pytest.mark.parametrize("name", SAME)
def test_where_theory_says_that_two_losses_are_one_they_are(name):
    one, other = SAME[name]
    assert torch.allclose(losses(*one), losses(*other), rtol=1e-8)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_on_the_networks_own_mse_is_the_factor_that_others_got_wrong_for_v(gamma):
    signal = LEVELS**-2
    for objective, factor in ((eps(), 1 / signal), (v(), 1 / (signal + 1)), (x0(), 1.0)):
        expected = losses(objective, UNIFORM) * signal.clamp(max=gamma) * factor
        assert torch.allclose(losses(objective, min_snr(gamma)), expected, rtol=1e-8)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: min_snr(0.0), "gamma must be more than 0, got 0"),
        (lambda: p2(-1.0, 1.0), r"gamma in \[0, inf\) and k in \(0, inf\), got -1"),
        (lambda: p2(1.0, 0.0), "got 1.0 and 0"),
        (lambda: p2(math.inf, 1.0), "got inf and 1"),  # all weights 0: nothing would be learnt
        (lambda: p2(math.nan, 1.0), "got nan and 1"),
        (lambda: p2(1.0, math.inf), "got 1.0 and inf"),
    ],
)
def test_weightings_that_cannot_be_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


class Affine(nn.Module):
    """F = w(sigma) x + b(sigma) for a few levels: enough for Gaussian data, whose D is affine."""

    def __init__(self, levels):
        super().__init__()
        self.levels = levels
        self.slope = nn.Parameter(torch.zeros(len(levels), 5, dtype=torch.float64))
        self.offset = nn.Parameter(torch.zeros(len(levels), 5, dtype=torch.float64))

    def forward(self, x, c_noise, label=None):
        k = (4 * c_noise[:, None] - self.levels.log()).abs().argmin(1)
        shape = (-1, 5, 1, 1)
        return self.slope[k].view(shape) * x + self.offset[k].view(shape)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_training_on_gaussian_data_finds_the_exact_denoiser(schedule, objective, weighting):
    """The loss is quadratic in slope and offset of each level: one Newton step finds its minimum.

    Noise and data are the nodes of a quadrature, so that the mean over them is exact.
    """
    gauss = Gaussian()
    levels = SCHEDULES[schedule].sigma(torch.tensor([0.02, 0.5, 0.98], dtype=torch.float64))
    net = Affine(levels)
    denoiser = Denoiser(net, OBJECTIVES[objective], WEIGHTINGS[weighting], torch.float32)
    signs = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    clean = (gauss.mean + signs[:, :1] * gauss.std).view(4, 5, 1, 1)
    noise = signs[:, 1:].expand(4, 5).reshape(4, 5, 1, 1)
    for k, sigma in enumerate(levels):
        many = sigma.expand(4)

        def loss(parameters, k=k, many=many):
            state = {"slope": net.slope.detach().clone(), "offset": net.offset.detach().clone()}
            state["slope"][k], state["offset"][k] = parameters[:5], parameters[5:]
            with torch.no_grad():
                net.slope.copy_(state["slope"]), net.offset.copy_(state["offset"])
            return denoiser.loss(clean, many, noise).mean()

        def gradient(loss=loss, k=k):
            value = loss(torch.cat([net.slope[k].detach(), net.offset[k].detach()]))
            found = torch.autograd.grad(value, [net.slope, net.offset])
            return torch.cat([found[0][k], found[1][k]])

        here = torch.zeros(10, dtype=torch.float64)
        start = gradient()
        columns = []
        for i in range(10):
            loss(here + torch.eye(10, dtype=torch.float64)[i])
            columns.append(gradient() - start)
        loss(-torch.linalg.solve(torch.stack(columns, 1), start))
        assert gradient().abs().max() < 1e-6 * (1 + start.abs().max())
    x = torch.linspace(-2, 2, 7, dtype=torch.float64).view(7, 1, 1, 1).expand(7, 5, 1, 1)
    for sigma in levels:
        expected = gauss.denoise(x.reshape(7, 5), sigma)
        scale = 1 + sigma
        with torch.no_grad():
            assert ((denoiser(x, sigma).view(7, 5) - expected) / scale).abs().max() < 1e-6
