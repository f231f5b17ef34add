"""A trajectory's numbers, against a walk that is made by hand."""

import csv
import math
from dataclasses import replace

import pytest
import torch
from PIL import Image

from diffuse.data import to_uint8
from diffuse.denoiser import Denoiser
from diffuse.objectives import v
from diffuse.plots import trajectory as pictures
from diffuse.plots.trajectory import Trajectory
from diffuse.sampling import Noise, draw, first_state, walk
from diffuse.weightings import uniform as unweighted


@pytest.fixture
def denoiser(make_net):
    """One that does not know its job, so that estimates leave the range."""
    net = make_net(init="torch")
    return Denoiser(net, v(), unweighted(), torch.float32).eval()


@pytest.fixture
def follow(denoiser, images):
    def run(plan, columns=3):
        seen = Trajectory(plan.sigmas, plan.range, denoiser, columns)
        with seen.watching():
            for state in walk(denoiser, images.spec, plan, range(4), torch.arange(4) % 3):
                seen.add(*state)
        return seen

    return run


def by_hand(denoiser, plan, images):
    """DDIM with eta = 1, written out: a row a step."""
    noise = Noise(plan.seed, range(4), images.spec.shape)
    x, before, label = first_state(plan, noise()), None, torch.arange(4) % 3
    for sigma, sigma_next in zip(plan.sigmas[:-1], plan.sigmas[1:], strict=True):
        with torch.no_grad():
            raw = denoiser(x, sigma, label)
        low, high = plan.range
        outside = ((raw < low) | (raw > high)).float().mean().item()
        estimate = raw.clamp(low, high)
        change = math.nan if before is None else (estimate - before).pow(2).mean().sqrt().item()
        ratio = (sigma_next / sigma).item()
        x = estimate + ratio**2 * (x - estimate)
        if sigma_next > 0:
            x = x + sigma_next.item() * math.sqrt(1 - ratio**2) * noise()
        yield sigma.item(), change, outside, x.abs().max().item()
        before = estimate


def test_the_table_says_what_a_walk_by_hand_finds(denoiser, images, make_plan, follow, tmp_path):
    plan = make_plan()
    path = pictures.table(follow(plan), tmp_path)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "sigma", "calls", "change", "clipped", "largest"]
    expected = list(by_hand(denoiser, plan, images))
    assert max(outside for _, _, outside, _ in expected) > 0.1
    for k, (row, numbers) in enumerate(zip(rows, expected, strict=True), 1):
        assert (int(row["step"]), int(row["calls"])) == (k, k)
        seen = [float(row[name] or "nan") for name in ("sigma", "change", "clipped", "largest")]
        assert seen == pytest.approx(numbers, rel=1e-4, abs=1e-6, nan_ok=True)


def test_the_strip_ends_with_the_images_that_sampling_draws(denoiser, images, make_plan, follow):
    plan = make_plan()
    seen = follow(plan)
    assert seen.shown == [1, 2, 4] or seen.shown == [1, 3, 4]
    drawn = draw(denoiser, images.spec, plan, range(4), torch.arange(4) % 3)
    end, denoised = seen.strip[-1].unbind(1)
    assert torch.equal(end, denoised)  # nothing is left to remove
    assert torch.equal(end, to_uint8(drawn.state, plan.range))


@pytest.mark.parametrize("columns", [1, 2, 4, 10])
def test_the_steps_shown_are_different_ones_and_the_last_is_among_them(columns, make_plan, follow):
    shown = follow(make_plan(), columns).shown
    assert len(set(shown)) == len(shown) == min(columns, 4)
    assert shown[-1] == 4
    assert columns == 1 or shown[0] == 1


def test_a_step_without_a_call_of_the_network_has_no_clipped_share(make_plan, follow):
    rows = follow(make_plan(made=(True, False, True, True))).rows
    assert [math.isnan(row["clipped"]) for row in rows] == [False, True, False, False]
    assert [row["calls"] for row in rows] == [1, 1, 2, 3]


def test_half_of_the_change_is_where_the_sum_of_changes_is_half(make_plan, follow):
    seen = follow(make_plan())
    for change, half in (([3, 2, 2], 3), ([5, 1, 1], 2), ([1, 1, 5], 4), ([0, 0, 0], 1)):
        for row, value in zip(seen.rows, [math.nan, *change], strict=True):
            row["change"] = value
        assert seen.half() == half


def test_the_hook_on_the_network_is_gone_afterwards(denoiser, make_plan, follow):
    follow(make_plan())
    assert not denoiser._forward_hooks


def test_the_curves_of_one_step_and_of_many_have_whole_steps_to_the_right(
    make_plan, follow, tmp_path, drawn_figures
):
    plan = make_plan()
    pictures.curves(follow(plan), "a walk of four", tmp_path / "curves")
    one = follow(replace(plan, sigmas=plan.sigmas[[0, -1]]))
    pictures.curves(one, "a walk of one", tmp_path / "one")
    four, single = drawn_figures
    assert {tuple(panel.get_xticks()) for panel in four.axes} == {(1, 2, 3, 4)}
    assert len({panel.get_xlim() for panel in four.axes}) == 1
    assert four.get_suptitle() == "a walk of four"
    assert {tuple(panel.get_xticks()) for panel in single.axes} == {(1,)}
    assert [text.get_text() for text in single.axes[1].texts] == ["there is no step before it"]


def test_all_pictures_are_drawn_and_the_animation_has_a_frame_a_step(make_plan, follow, tmp_path):
    files = pictures.draw(follow(make_plan()), "a walk", ["a", "b", "c", "a"], tmp_path)
    names = ["curves.png", "curves.svg", "trajectory.csv", "trajectory.gif"]
    assert sorted(p.name for p in files) == [*names, "trajectory.png", "trajectory.svg"]
    assert Image.open(tmp_path / "trajectory.gif").n_frames == 4
    assert {"class a, x", "a walk"} <= {
        line.strip()
        for line in (tmp_path / "trajectory.svg").read_text().replace("<", ">").split(">")
    }
