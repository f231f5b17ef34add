"""The network that sees how noisy an image is: what it is asked for, that it learns, its files."""

import math
import shutil
from dataclasses import replace

import pytest
import torch
from closed_forms import nodes
from torch import nn

from diffuse import checkpoints, noise_level
from diffuse.config import build
from diffuse.data import open_dataset, to_range
from diffuse.errors import DataError, DivergedError
from diffuse.noise_level import Regressor, covering, even, held_out, new_regressor, visited
from diffuse.schedules import alpha_bar, cosine, ve
from diffuse.seeds import generator

COSINE = cosine(0.008, 0.001, 0.999)
SCHEDULES = nodes("schedule")
RANGE = (-1.0, 1.0)


def digits(split="train"):
    return open_dataset({"name": "digits", "fit": "none"}, split)


def trained(images, steps=3, lr=1e-2, seed=0, width=8):
    regressor = new_regressor(images.spec.channels, width, seed, torch.float32)
    adam = torch.optim.Adam(regressor.parameters(), lr, eps=1e-5)
    law = covering(COSINE)
    how = {"steps": steps, "batch": 32, "range": RANGE, "seed": seed}
    return regressor, list(noise_level.train(regressor, adam, images, law, **how))


@pytest.fixture(scope="module")
def learned():
    return trained(digits(), steps=150, width=16)[0]


# --- what it is asked for ------------------------------------------------------------------------


class Power(nn.Module):
    """The logit, where there is nothing but noise of power 1: y^2 = 1 - alpha_bar."""

    def forward(self, y):
        return (1 / y.square().mean(dim=(1, 2, 3)) - 1).log()


def test_it_is_asked_for_the_logit_of_alpha_bar_of_the_variance_preserving_state():
    sigma = torch.logspace(-1, 1, 7, dtype=torch.float64)
    eps = torch.randn(7, 1, 8, 8, generator=generator(0)).sign()
    loss = Regressor(Power(), torch.float32).loss(torch.zeros(7, 1, 8, 8), sigma, eps)
    assert loss.shape == (7,)
    assert loss.max() < 1e-6
    share = alpha_bar(sigma)
    assert torch.allclose(noise_level.logit(sigma), (share / (1 - share)).log())


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_law_stays_within_the_levels_of_the_schedule(name):
    schedule = build("schedule", SCHEDULES[name])
    low, high = schedule.range
    for law in (even, visited, covering):
        sigma = law(schedule)(5000, generator(0))
        assert sigma.dtype == torch.float64
        assert low <= sigma.min() < sigma.max() <= high


def test_even_levels_are_even_in_alpha_bar_and_visited_ones_in_t():
    wide = ve(1e-4, 1e4)
    n = 40_000
    for values in (alpha_bar(even(wide)(n, generator(0))), wide.t(visited(wide)(n, generator(0)))):
        gap = (values.sort().values - torch.linspace(0, 1, n)).abs().max()
        assert gap < 1.95 / math.sqrt(n)  # Kolmogorov and Smirnov's 0.1 %


def test_the_sampler_begins_and_ends_at_levels_that_were_seen_in_training():
    t = COSINE.t(covering(COSINE)(40_000, generator(0)))
    ends = [(t < 0.01).double().mean().item(), (t > 0.99).double().mean().item()]
    assert ends == pytest.approx([0.005, 0.005], rel=0.3)
    assert (COSINE.t(even(COSINE)(40_000, generator(0))) < 0.01).double().mean() < 0.002


def test_the_baseline_is_that_of_the_logistic_law(learned):
    """E logit(u)^2 = pi^2 / 3 for u ~ U(0, 1); the lessons print 3.567, of one set of draws."""
    law = even(ve(1e-4, 1e4))
    spread = math.sqrt((7 / 15 - 1 / 9) * math.pi**4 / noise_level.HELD_OUT)
    _, baseline = held_out(learned, digits("test"), law, RANGE, seed=0)
    assert baseline == pytest.approx(math.pi**2 / 3, abs=4 * spread)


# --- learning ------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", [even, visited])
def test_it_learns_to_see_the_level_of_images_it_has_not_seen(law, learned):
    loss, baseline = held_out(learned, digits("test"), law(COSINE), RANGE, seed=0)
    assert loss < 0.4 * baseline
    assert held_out(learned, digits("test"), law(COSINE), RANGE, seed=0) == (loss, baseline)


def test_training_depends_on_its_seed_alone_and_leaves_torchs_random_numbers_alone():
    images = digits()
    torch.manual_seed(1)
    one, _ = trained(images)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    two, steps = trained(images)
    other, _ = trained(images, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert [step.number for step in steps] == [1, 2, 3]
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.net.head.weight, other.net.head.weight)


def test_a_training_that_explodes_ends_with_its_own_error():
    with pytest.raises(DivergedError, match=r"step \d+: loss (nan|inf)"):
        trained(digits(), steps=20, lr=1e30)


def test_a_width_that_no_group_divides_is_refused():
    with pytest.raises(ValueError, match="width must be a multiple of 8, got 12"):
        new_regressor(1, 12, 0, torch.float32)


# --- a trained one -------------------------------------------------------------------------------


@pytest.fixture
def saved(learned, tmp_path):
    spec = digits("test").spec
    shape = {"channels": 1, "width": 16}
    sha256 = noise_level.save(tmp_path, 300, learned, spec, RANGE, COSINE.range, shape)
    return tmp_path, sha256


def load(folder):
    return noise_level.load(folder, torch.device("cpu"))


def test_a_saved_one_says_the_same_and_which_one_it_is(saved, learned):
    folder, sha256 = saved
    y = torch.randn(5, 1, 8, 8, generator=generator(0))
    predictor = load(folder)
    with torch.no_grad():
        expected = (-learned(y).double() / 2).exp()
    assert torch.equal(predictor(y), expected.clamp(*COSINE.range))
    assert predictor(y).dtype == torch.float64
    assert predictor.record() == {"run": str(folder), "sha256": sha256}


def test_no_level_outside_those_of_training_is_predicted(saved):
    noise = torch.randn(4, 1, 8, 8, generator=generator(0))
    y = torch.cat([noise, to_range(digits("test").images[:4], RANGE)])
    levels = replace(load(saved[0]), levels=(0.5, 0.6))(y)
    assert levels.tolist() == [0.6] * 4 + [0.5] * 4


def test_a_prediction_is_of_its_image_alone(saved):
    predictor, y = load(saved[0]), torch.randn(4, 1, 8, 8, generator=generator(0))
    alone = torch.cat([predictor(y[k : k + 1]) for k in range(4)])
    torch.testing.assert_close(predictor(y), alone, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["regressor.safetensors", "state.json", "MANIFEST.json"])
def test_a_damaged_file_is_refused_by_name_before_it_is_read(saved, name):
    folder, _ = saved
    path = folder / "checkpoints/step_00000300" / name
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=name):
        load(folder)
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    if name != "MANIFEST.json":
        with pytest.raises(DataError, match=rf"{name} is damaged"):
            load(folder)


def test_a_missing_one_and_one_of_something_else_are_refused(saved, tmp_path):
    folder, _ = saved
    with pytest.raises(DataError, match="no checkpoint: its training did not get to the end"):
        load(tmp_path / "nowhere")
    shutil.rmtree(folder / "checkpoints")
    weights = {"regressor": {"x": torch.zeros(2)}}
    checkpoints.save(folder / "checkpoints", 1, weights, {"network": {"channels": 1, "width": 8}})
    with pytest.raises(DataError, match="is no noise level regressor of this version"):
        load(folder)


def test_it_is_refused_for_images_and_levels_it_has_not_seen(saved):
    predictor, spec = load(saved[0]), digits("test").spec
    sigmas = torch.tensor([*reversed(COSINE.range), 0.0])
    predictor.check(spec, RANGE, sigmas)
    with pytest.raises(ValueError, match=r"digits 1x8x8 in \[-1, 1\], the network on .*\[0, 1\]"):
        predictor.check(spec, (0.0, 1.0), sigmas)
    with pytest.raises(ValueError, match=r"the network on other 3x8x8"):
        predictor.check(replace(spec, name="other", channels=3), RANGE, sigmas)
    with pytest.raises(ValueError, match=r"knows sigma from 0.00643 to 642, the sampler visits"):
        predictor.check(spec, RANGE, sigmas * 2)
