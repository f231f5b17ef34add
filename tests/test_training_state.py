"""What a resumed training takes from its checkpoint, and what is its own optimizer's."""

from functools import partial

import pytest
import torch
from going_on import ADAMW, FUSED, MUON, NET, go_on, save

from diffuse import training
from diffuse.training_state import settings


def test_a_state_keeps_the_settings_of_its_own_optimizer_that_it_is_told_to(
    make_training, images, law, make_recipe, tmp_path
):
    first = make_training(MUON, **NET)
    for _ in go_on(first, images, law, make_recipe(steps=2)):
        pass
    path = save(first, tmp_path)
    second = make_training(partial(MUON, weight_decay=0.5, betas=(0.5, 0.6)), **NET)
    second.own = {"weight_decay"}
    second.load(path)
    inside = second.optimizer.muon, second.optimizer.adamw
    assert [optimizer.param_groups[0]["weight_decay"] for optimizer in inside] == [0.5, 0.5]
    assert list(second.optimizer.adamw.param_groups[0]["betas"]) == [0.9, 0.95]


@pytest.mark.parametrize(("saved", "going_on"), [(ADAMW, FUSED), (FUSED, ADAMW)])
def test_how_an_optimizer_computes_is_this_devices_own(
    saved, going_on, make_training, images, law, make_recipe, tmp_path
):
    first = make_training(saved, **NET)
    for _ in go_on(first, images, law, make_recipe(steps=2)):
        pass
    second = make_training(going_on, **NET)
    second.load(save(first, tmp_path))
    assert bool(second.optimizer.param_groups[0]["fused"]) == (going_on is FUSED)
    for _ in go_on(second, images, law, make_recipe(steps=4)):
        pass
    for _ in go_on(first, images, law, make_recipe(steps=4)):
        pass
    for ours, theirs in zip(second.denoiser.parameters(), first.denoiser.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_steps_are_timed_as_they_are_going_to_be_taken(
    make_training, images, law, make_recipe, monkeypatch
):
    """A copied optimizer forgets that it can be told on the device whether to step."""
    told, real = [], training._step_if
    monkeypatch.setattr(training, "_step_if", lambda *args: told.append(1) or real(*args))
    training.seconds_per_step(make_training(FUSED, **NET), images, law, make_recipe(), seconds=0.0)
    assert len(told) == 7  # of eight: the first one makes the moments


def test_another_optimizer_that_is_let_through_is_that_optimizer(
    make_training, images, law, make_recipe, tmp_path
):
    first = make_training(ADAMW, **NET)
    for _ in go_on(first, images, law, make_recipe(steps=2)):
        pass
    second = make_training(partial(torch.optim.Adam, lr=1e-2), **NET)
    second.own = settings(second.optimizer)
    second.load(save(first, tmp_path))
    [group] = second.optimizer.param_groups
    assert (group["weight_decay"], group["decoupled_weight_decay"]) == (0, False)


class Counting(torch.optim.SGD):
    """Its settings and what it counts are side by side, as in those that need no schedule."""

    def __init__(self, parameters, lr, warmup):
        super().__init__(parameters, lr)
        self.param_groups[0].update(warmup=warmup, count=0)

    def step(self, closure=None):
        self.param_groups[0]["count"] += 1
        return super().step(closure)


def test_what_an_optimizer_counts_is_no_setting_of_its_own(
    make_training, images, law, make_recipe, tmp_path
):
    first = make_training(partial(Counting, lr=1e-2, warmup=3), **NET)
    for _ in go_on(first, images, law, make_recipe(steps=2)):
        pass
    second = make_training(partial(Counting, lr=1e-2, warmup=5), **NET)
    second.own = settings(second.optimizer)
    second.load(save(first, tmp_path))
    [group] = second.optimizer.param_groups
    assert (group["warmup"], group["count"]) == (5, 2)


def test_a_training_goes_on_in_fp16_although_it_was_not(
    make_training, images, law, make_recipe, tmp_path
):
    first = make_training(ADAMW, **NET)
    for _ in go_on(first, images, law, make_recipe(steps=2)):
        pass
    second = make_training(ADAMW, torch.float16, **NET)
    before = second.scaler.state_dict()
    second.load(save(first, tmp_path))
    assert second.scaler.state_dict() == before
