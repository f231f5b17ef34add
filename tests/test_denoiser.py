"""Objectives: what the network is asked for is what the denoiser turns back into x0."""

import math
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from diffuse.config import build
from diffuse.denoiser import Denoiser, clipped, counted, eps, v

CONF = Path(__file__).parents[1] / "conf"


def nodes(group):
    return [yaml.safe_load(path.read_text()) for path in sorted((CONF / group).glob("*.yaml"))]


def named(node):
    return node["name"]


every_objective = pytest.mark.parametrize("objective", nodes("objective"), ids=named)
every_schedule = pytest.mark.parametrize("schedule", nodes("schedule"), ids=named)


class Answers(nn.Module):
    """A network that gives a known answer and remembers what it was told."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, c_noise, label=None):
        self.told = x, c_noise, label
        return self.answer


def sigmas_of(schedule, n=16):
    return build("schedule", schedule).sigma(torch.linspace(0, 1, n, dtype=torch.float64))


def draw(n, dtype=torch.float64):
    random = torch.Generator().manual_seed(0)
    return (torch.randn(n, 2, 4, 4, generator=random, dtype=dtype) for _ in range(2))


def column(sigma):
    return sigma.view(-1, 1, 1, 1)


def target(objective, x0, sigma, noise):
    """What F learns, from the general equation."""
    c_skip, c_out, _ = map(column, objective.coefficients(sigma))
    return ((1 - c_skip) * x0 - c_skip * column(sigma) * noise) / c_out


@every_objective
@every_schedule
def test_a_network_that_is_right_gives_x0_back_and_has_no_loss(objective, schedule):
    objective, sigma = build("objective", objective), sigmas_of(schedule)
    x0, noise = draw(len(sigma))
    net = Answers(target(objective, x0, sigma, noise))
    denoiser = Denoiser(net, objective, torch.float32)
    x = x0 + column(sigma) * noise
    assert torch.allclose(denoiser(x, sigma), x0, rtol=0, atol=1e-9)
    assert denoiser.loss(x0, sigma, noise).max() < 1e-20


@every_objective
@every_schedule
def test_a_network_that_is_wrong_by_d_has_the_loss_d_squared_at_every_level(objective, schedule):
    objective, sigma = build("objective", objective), sigmas_of(schedule)
    x0, noise = draw(len(sigma))
    net = Answers(target(objective, x0, sigma, noise) + 0.3)
    loss = Denoiser(net, objective, torch.float32).loss(x0, sigma, noise)
    assert loss.numpy() == pytest.approx([0.09] * len(sigma), rel=1e-9)


@every_objective
@every_schedule
def test_the_network_sees_unit_variance_and_log_sigma_and_the_label(objective, schedule):
    objective, sigma = build("objective", objective), sigmas_of(schedule)
    _, _, c_in = objective.coefficients(sigma)
    assert (c_in**2 * (1 + sigma**2)).numpy() == pytest.approx([1.0] * len(sigma), rel=1e-12)
    x0, noise = draw(len(sigma))
    label = torch.arange(len(sigma))
    net = Answers(x0)
    Denoiser(net, objective, torch.float32).loss(x0, sigma, noise, label)
    told, c_noise, heard = net.told
    assert torch.allclose(told, column(c_in) * (x0 + column(sigma) * noise))
    assert c_noise.tolist() == pytest.approx([math.log(s) / 4 for s in sigma.tolist()])
    assert heard is label


def test_the_eps_target_is_the_noise():
    sigma = torch.logspace(-2, 2, 9, dtype=torch.float64)
    x0, noise = draw(9)
    assert torch.allclose(target(eps(), x0, sigma, noise), noise, atol=1e-12)


def test_the_v_target_is_a_eps_minus_b_x0():
    sigma = torch.logspace(-2, 2, 9, dtype=torch.float64)
    x0, noise = draw(9)
    a, b = 1 / (1 + column(sigma) ** 2).sqrt(), column(sigma) / (1 + column(sigma) ** 2).sqrt()
    assert torch.allclose(target(v(), x0, sigma, noise), a * noise - b * x0, atol=1e-12)
    c_skip, c_out, c_in = v().coefficients(sigma)
    assert torch.allclose(c_skip, c_in**2)  # a^2
    assert torch.allclose(c_out**2 + c_skip, torch.ones_like(sigma))  # a^2 + b^2 = 1


class Pointwise(nn.Module):
    """A network so simple that the textbook can be written beside it."""

    def forward(self, x, c_noise, label=None):
        return torch.tanh(x) + c_noise.view(-1, 1, 1, 1)


def textbook(kind, x0, alpha_bar, noise):
    """Ho et al.'s L_simple and Salimans & Ho's v loss, in the variance-preserving state x_t."""
    a, b = alpha_bar.sqrt().view(-1, 1, 1, 1), (1 - alpha_bar).sqrt().view(-1, 1, 1, 1)
    x_t = a * x0 + b * noise
    predicted = Pointwise()(x_t, (b / a).flatten().log() / 4)
    wanted = noise if kind == "eps" else a * noise - b * x0
    return ((predicted - wanted) ** 2).flatten(1).mean(1)


@pytest.mark.parametrize("objective", [eps, v])
def test_the_loss_is_the_textbooks(objective):
    alpha_bar = torch.tensor([0.9999, 0.9, 0.5, 0.1, 4e-5], dtype=torch.float64)
    x0, noise = draw(5)
    denoiser = Denoiser(Pointwise(), objective(), torch.float32)
    ours = denoiser.loss(x0, ((1 - alpha_bar) / alpha_bar).sqrt(), noise)
    assert torch.allclose(ours, textbook(objective.__name__, x0, alpha_bar, noise), rtol=1e-9)


def test_the_two_estimates_of_x0_agree_where_the_two_networks_do():
    """A network's eps and v are related by eps = b x_t + a v: both denoisers are then one."""
    sigma = torch.logspace(-2, 2, 9, dtype=torch.float64)
    x0, noise = draw(9)
    x = x0 + column(sigma) * noise
    a, b = 1 / (1 + column(sigma) ** 2).sqrt(), column(sigma) / (1 + column(sigma) ** 2).sqrt()
    said = torch.tanh(x)  # any answer will do
    by_v = Denoiser(Answers(said), v(), torch.float32)(x, sigma)
    by_eps = Denoiser(Answers(b * (a * x) + a * said), eps(), torch.float32)(x, sigma)
    assert torch.allclose(by_eps, by_v, atol=1e-6)


@every_objective
@every_schedule
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_gradients_are_finite_at_both_ends_of_the_schedule(
    objective, schedule, precision, make_net
):
    low, high = build("schedule", schedule).range
    sigma = torch.tensor([low, high], dtype=torch.float64)
    net = make_net(init="torch", attention=[1])
    denoiser = Denoiser(net, build("objective", objective), precision)
    random = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(2, 1, 8, 8, generator=random) for _ in range(2))
    loss = denoiser.loss(x0, sigma, noise, torch.tensor([0, 1]))
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite().all()
    assert all(w.grad is not None and w.grad.isfinite().all() for w in net.parameters())
    assert any(w.grad.any() for w in net.parameters())


def test_only_the_network_runs_in_low_precision(make_net):
    denoiser = Denoiser(make_net(init="torch"), v(), torch.bfloat16)
    seen = []
    denoiser.net.head.register_forward_hook(lambda m, args, out: seen.append(out.dtype))
    x = torch.randn(2, 1, 8, 8)
    assert denoiser(x, torch.tensor(1.0)).dtype == torch.float32
    assert seen == [torch.bfloat16]


def test_one_level_serves_the_whole_batch(make_net):
    denoiser = Denoiser(make_net(init="torch"), v(), torch.float32).eval()
    x = torch.randn(3, 1, 8, 8)
    each = torch.full((3,), 0.7, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(denoiser(x, each[0]), denoiser(x, each))


def test_calls_are_counted_and_estimates_held_in_range():
    count = counted(lambda x, sigma: 3 * x)
    held = clipped(count, -0.5, 0.5)
    x = torch.tensor([-1.0, 0.1, 1.0])
    for _ in range(4):
        assert held(x, torch.tensor(1.0)).tolist() == pytest.approx([-0.5, 0.3, 0.5])
    assert count.calls == 4
