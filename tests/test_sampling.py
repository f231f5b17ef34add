"""Images by number: image k is the same whichever others are drawn, and whatever the order."""

from dataclasses import replace

import pytest
import torch
from closed_forms import nodes
from scipy import stats

from diffuse import config
from diffuse.data import ImageSpec
from diffuse.denoiser import Denoiser
from diffuse.errors import DivergedError
from diffuse.objectives import v
from diffuse.sampling import Noise, calls, draw, first_state, images
from diffuse.weightings import uniform as unweighted

SPEC = ImageSpec("noise", 1, 8, 8, 8, 8, "none", ("a", "b", "c"))


@pytest.fixture
def denoiser(make_net):
    return Denoiser(make_net(init="torch", attention=[1]), v(), unweighted(), torch.float32).eval()


def drawn(denoiser, plan, n, label=None, spec=SPEC):
    parts = list(images(denoiser, spec, plan, n, label))
    return torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts])


@pytest.mark.parametrize("n", [1, 3, 4, 5, 8, 11])
def test_exactly_n_images_and_each_the_same_whatever_n(n, denoiser, make_plan):
    some, labels = drawn(denoiser, make_plan(), n)
    many, _ = drawn(denoiser, make_plan(), 12)
    assert (some.shape, some.dtype) == ((n, 1, 8, 8), torch.uint8)
    assert torch.equal(some, many[:n])
    assert labels.tolist() == [k % 3 for k in range(n)]
    assert len({image.numpy().tobytes() for image in many}) == 12


def test_an_image_does_not_depend_on_its_neighbours_or_its_place(denoiser, make_plan):
    plan = make_plan()
    many, _ = drawn(denoiser, plan, 12)
    for indices in ([7], [7, 2], [2, 7, 11, 0], [11, 3, 7]):
        labels = torch.tensor(indices) % 3
        alone = draw(denoiser, SPEC, plan, indices, labels).images
        assert torch.equal(alone, many[indices])


def test_another_seed_or_another_class_is_another_image(denoiser, make_plan):
    once, _ = drawn(denoiser, make_plan(), 4)
    again, _ = drawn(denoiser, make_plan(), 4)
    assert torch.equal(once, again)
    other, _ = drawn(denoiser, make_plan(seed=1), 4)
    assert not any(map(torch.equal, once, other))
    ones, labels = drawn(denoiser, make_plan(), 4, label=1)
    assert labels.tolist() == [1] * 4
    assert torch.equal(ones[1], once[1])
    assert not torch.equal(ones[0], once[0])


def test_drawing_uses_no_common_random_numbers(denoiser, make_plan):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    drawn(denoiser, make_plan(), 5)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_network_always_sees_as_many_images_so_that_no_bit_depends_on_how_many_there_are(
    denoiser, make_plan
):
    """Convolutions of another batch size differ in their last bits."""
    seen = set()
    denoiser.net.stem.register_forward_hook(lambda m, args, out: seen.add(len(args[0])))
    for n in (1, 3, 9):
        drawn(denoiser, make_plan(), n)
    assert seen == {4}


def test_calls_are_the_steps_whatever_the_batch(denoiser, make_plan):
    batches = list(images(denoiser, SPEC, make_plan(calls=4), 9))
    assert [batch.calls for batch in batches] == [4, 4, 4]


def test_unlabelled_images_are_all_of_class_zero_which_nobody_hears(make_net, make_plan):
    net = make_net(init="torch", conditional=False, classes=0)
    spec = replace(SPEC, classes=())
    some, labels = drawn(Denoiser(net, v(), unweighted(), torch.float32), make_plan(), 5, spec=spec)
    assert labels.tolist() == [0] * 5
    assert len(some) == 5


MOMENTS = {"vp": (0.0, 2**0.5), "ve": (0.0, 1.0), "moments": (0.3, (1 + 4) ** 0.5)}


@pytest.mark.parametrize("start", MOMENTS)
def test_the_first_state_is_normal_with_the_moments_it_is_said_to_have(start, make_plan):
    mean, std = MOMENTS[start]
    sigmas = torch.tensor([1.0, 0.0], dtype=torch.float64)
    plan = make_plan(sigmas=sigmas, start=start, moments=(0.3, 2.0))
    x = first_state(plan, Noise(0, range(50), (1, 20, 20))())
    standard = ((x - mean) / std).flatten().double().numpy()
    assert standard.mean() == pytest.approx(0, abs=4 / 20_000**0.5)
    assert standard.std() == pytest.approx(1, abs=4 / 40_000**0.5)
    assert stats.kstest(standard, "norm").pvalue > 0.01


def test_noise_comes_in_streams_that_go_on():
    noise = Noise(0, [3, 5], (2, 2))
    first, second = noise(), noise()
    assert not torch.equal(first, second)
    alone = Noise(0, [5], (2, 2))
    assert torch.equal(alone()[0], first[1])
    assert torch.equal(alone()[0], second[1])


class Constant(torch.nn.Module):
    """Its v makes every estimate of x0 the same value, at every level."""

    def __init__(self, value):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(float(value)))

    def forward(self, x, sigma, label=None):
        return self.weight.expand_as(x)


@pytest.mark.parametrize(
    ("value", "level"), [(-1, 0), (1, 255), (0.99, 254), (2 / 255 * 100.6 - 1, 101), (7, 255)]
)
def test_pixels_are_rounded_and_held_in_range(value, level, make_plan):
    some, _ = drawn(Constant(value), make_plan(), 2)
    assert some.unique().tolist() == [level]


def test_padding_is_cut_off_again(make_plan):
    spec = replace(SPEC, height=32, width=32, native_height=28, native_width=20, fit="pad")
    some, _ = drawn(Constant(0), make_plan(), 3, spec=spec)
    assert some.shape == (3, 1, 28, 20)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_a_state_that_explodes_stops_the_drawing_with_step_and_level(value, make_plan):
    plan = make_plan(clip="none")
    with pytest.raises(DivergedError, match=rf"after step 1, at sigma = {plan.sigmas[1]:.3g}"):
        drawn(Constant(value), plan, 2)


def test_a_late_explosion_is_traced_to_its_step(make_plan):
    asked = []

    class Late(Constant):
        def forward(self, x, sigma, label=None):
            asked.append(sigma)
            return super().forward(x, sigma, label) * (float("nan") if len(asked) == 27 else 1)

    plan = make_plan(clip="none", sigmas=torch.linspace(10, 0, 41, dtype=torch.float64))
    with pytest.raises(DivergedError, match=r"\|x\| is nan after step 27, at sigma = 3.25"):
        drawn(Late(0.0), plan, 2)
    assert len(asked) <= 40


def test_more_or_fewer_calls_than_planned_are_a_bug_that_is_reported(denoiser, make_plan):
    with pytest.raises(RuntimeError, match="made 4 calls of the network, not 5"):
        drawn(denoiser, make_plan(calls=5), 2)


def test_only_the_calls_of_the_plan_are_made(denoiser, make_plan):
    skipping = make_plan(made=(True, False, True, True), calls=3)
    assert [batch.calls for batch in images(denoiser, SPEC, skipping, 4)] == [3]
    every, some = drawn(denoiser, make_plan(), 4)[0], drawn(denoiser, skipping, 4)[0]
    assert not torch.equal(every, some)


@pytest.mark.parametrize(
    ("clip", "least", "most"), [("range", 0, 255), ("0.5", 64, 191), ("dynamic", 0, 255)]
)
def test_estimates_are_held_where_the_plan_says(clip, least, most, make_plan):
    class Wild(Constant):
        def forward(self, x, sigma, label=None):
            return 50 * x

    seen, _ = drawn(Wild(0), make_plan(clip=clip), 8)
    assert (int(seen.min()), int(seen.max())) == (least, most)


@pytest.mark.parametrize(("name", "expected"), [("ddim", 9), ("heun", 17)])
def test_how_often_a_sampler_asks_is_counted_without_a_network(name, expected):
    node = nodes("sampler")[name]
    sampler = config.bind("sampler", node, "denoise", "x", "sigmas", "randn")
    assert calls(sampler, 9) == expected
