"""Objectives: what the network is asked for is what the denoiser turns back into x0."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from diffuse.config import build
from diffuse.denoiser import Denoiser, clipped, counted, reused, thresholded
from diffuse.objectives import v
from diffuse.weightings import uniform

CONF = Path(__file__).parents[1] / "conf"
UNIFORM = uniform()


def nodes(group):
    return [yaml.safe_load(path.read_text()) for path in sorted((CONF / group).glob("*.yaml"))]


def named(node):
    return node["name"]


every_objective = pytest.mark.parametrize("objective", nodes("objective"), ids=named)
RANGES = [build("schedule", node).range for node in nodes("schedule")]
LOW, HIGH = min(low for low, _ in RANGES), max(high for _, high in RANGES)
LEVELS = torch.logspace(math.log10(LOW), math.log10(HIGH), 33, dtype=torch.float64)


class Answers(nn.Module):
    """A network that gives a known answer and remembers what it was told."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, c_noise, label=None):
        self.told = x, c_noise, label
        return self.answer


def build_objective(node):
    if "sigma_data" in node:
        node = {**node, "sigma_data": 0.5}  # null in the yaml: measured by training
    return build("objective", node)


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
def test_a_network_that_is_right_gives_x0_back_and_has_no_loss(objective):
    objective, sigma = build_objective(objective), LEVELS
    x0, noise = draw(len(sigma))
    net = Answers(target(objective, x0, sigma, noise))
    denoiser = Denoiser(net, objective, UNIFORM, torch.float32)
    x = x0 + column(sigma) * noise
    assert torch.allclose(denoiser(x, sigma), x0, rtol=0, atol=1e-9)
    assert denoiser.loss(x0, sigma, noise).max() < 1e-20


@every_objective
def test_a_network_that_is_wrong_by_d_has_the_loss_d_squared_at_every_level(objective):
    objective, sigma = build_objective(objective), LEVELS
    x0, noise = draw(len(sigma))
    net = Answers(target(objective, x0, sigma, noise) + 0.3)
    loss = Denoiser(net, objective, UNIFORM, torch.float32).loss(x0, sigma, noise)
    assert loss.numpy() == pytest.approx([0.09] * len(sigma), rel=1e-9)


@every_objective
def test_the_network_sees_a_scaled_state_and_log_sigma_and_the_label(objective):
    objective, sigma = build_objective(objective), LEVELS
    _, _, c_in = objective.coefficients(sigma)
    x0, noise = draw(len(sigma))
    label = torch.arange(len(sigma))
    net = Answers(x0)
    Denoiser(net, objective, UNIFORM, torch.float32).loss(x0, sigma, noise, label)
    told, c_noise, heard = net.told
    assert torch.allclose(told, column(c_in) * (x0 + column(sigma) * noise))
    assert c_noise.tolist() == pytest.approx([math.log(s) / 4 for s in sigma.tolist()])
    assert heard is label


@every_objective
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_gradients_are_finite_at_the_ends_of_all_schedules(objective, precision, make_net):
    sigma = torch.tensor([LOW, HIGH], dtype=torch.float64)
    net = make_net(init="torch", attention=[1])
    denoiser = Denoiser(net, build_objective(objective), UNIFORM, precision)
    random = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(2, 1, 8, 8, generator=random) for _ in range(2))
    loss = denoiser.loss(x0, sigma, noise, torch.tensor([0, 1]))
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite().all()
    assert all(w.grad is not None and w.grad.isfinite().all() for w in net.parameters())
    assert any(w.grad.any() for w in net.parameters())


def test_only_the_network_runs_in_low_precision(make_net):
    denoiser = Denoiser(make_net(init="torch"), v(), UNIFORM, torch.bfloat16)
    seen = []
    denoiser.net.head.register_forward_hook(lambda m, args, out: seen.append(out.dtype))
    x = torch.randn(2, 1, 8, 8)
    assert denoiser(x, torch.tensor(1.0)).dtype == torch.float32
    assert seen == [torch.bfloat16]


def test_one_level_serves_the_whole_batch(make_net):
    denoiser = Denoiser(make_net(init="torch"), v(), UNIFORM, torch.float32).eval()
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


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-0.5, 0.5), (0.0, 1.0)])
def test_dynamic_thresholding_leaves_images_in_range_alone_and_shrinks_others(low, high):
    random = torch.Generator().manual_seed(0)
    inside = low + (high - low) * torch.rand(2, 1, 20, 20, generator=random)
    outside = inside.clone()
    centre, half = (low + high) / 2, (high - low) / 2
    outside[1] = centre + 3 * (inside[1] - centre)
    held = thresholded(lambda x, sigma: x, low, high)(outside, torch.tensor(1.0))
    assert torch.allclose(held[0], inside[0])
    assert low <= held.min() <= held.max() <= high
    unit = (outside[1] - centre).abs() / half
    reach = np.quantile(unit.numpy(), 0.995)
    assert reach > 2
    small = unit < reach
    shrunk = centre + (outside[1] - centre) / float(reach)
    assert torch.allclose(held[1][small], shrunk[small], atol=1e-6)
    assert 0.004 <= (held[1] - centre).abs().isclose(torch.tensor(half)).double().mean() <= 0.0075


def test_a_reused_eps_stands_in_for_the_calls_that_are_not_made():
    network = counted(lambda x, sigma: x / (1 + sigma))
    estimate = reused(network, iter([False, False, True, False, True]))
    x, levels = torch.tensor([2.0]), torch.tensor([4.0, 3.0, 2.0, 1.0, 0.5])
    said = [estimate(x, sigma).item() for sigma in levels]
    eps = [(2 - 2 / (1 + s)) / s for s in (4.0, 4.0, 2.0, 2.0, 0.5)]  # the first one is made
    expected = [2 - s * e for s, e in zip(levels.tolist(), eps, strict=True)]
    assert said == pytest.approx(expected)
    assert network.calls == 3
    assert estimate(x, levels[-1]).item() == pytest.approx(2 / 1.5)  # beyond the plan: made
    assert network.calls == 4
