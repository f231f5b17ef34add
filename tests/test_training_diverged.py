"""A loss or gradient that is not finite changes no weight; a loss that jumps is only reported."""

import json
import math
import random
from functools import partial

import pytest
import torch
from torch import nn

from diffuse import training as room
from diffuse.divergence import IN_A_ROW, Diverged, Spike, Spikes
from diffuse.training import Training, batch_indices, fit, learning_rate


def everything(training):
    """All weights, averages and moments, to the byte."""
    files, _ = training.tensors()
    return {f"{f}/{k}": t.numpy().tobytes() for f, ts in files.items() for k, t in ts.items()}


def nan_in_the_loss(training, patch, steps):
    _patch_draw(patch, steps, lambda x0, label, sigma, eps: (x0, label, sigma, eps * math.nan))


def nan_in_one_image(training, patch, steps):
    def spoil(x0, label, sigma, eps):
        x0[3, 0, 2, 2] = math.nan
        return x0, label, sigma, eps

    _patch_draw(patch, steps, spoil)


def infinite_gradient(training, patch, steps):
    """Of one weight, while the loss is as always."""

    def spoil(gradient):
        return gradient * math.inf if training.step + 1 in steps else gradient

    training.denoiser.net.stem.weight.register_hook(spoil)


def infinite_loss(training, patch, steps):
    """While every gradient is as always."""
    real = training.denoiser.loss

    def loss(*batch):
        return real(*batch) + (math.inf if training.step + 1 in steps else 0)

    patch.setattr(training.denoiser, "loss", loss)


def _patch_draw(patch, steps, spoil):
    real = room.batch_of

    def draw(images, law, recipe, number, rollbacks=0, *ranks):
        batch = real(images, law, recipe, number, rollbacks, *ranks)
        return spoil(*batch) if number in steps and not rollbacks else batch

    patch.setattr(room, "batch_of", draw)


FAULTS = [nan_in_the_loss, nan_in_one_image, infinite_gradient, infinite_loss]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("on_nan", ["stop", "rollback"])
@pytest.mark.parametrize("micro_batch", [None, 2])
def test_a_step_that_is_not_finite_changes_nothing_and_stops(
    fault, on_nan, micro_batch, make_training, images, law, make_recipe, monkeypatch
):
    training = make_training(init="torch")
    fault(training, monkeypatch, {7})
    recipe = make_recipe(steps=9, on_nan=on_nan, micro_batch=micro_batch)
    steps = fit(training, images, law, recipe, [1e-2])
    for _ in range(6):
        next(steps)
    before = everything(training)
    with pytest.raises(Diverged, match=r"^step 7: loss .* last good step was 6") as e:
        next(steps)
    assert (training.step, everything(training)) == (6, before)
    facts = e.value.step.why
    assert facts["step"] == 7
    assert facts["lr"] == pytest.approx(1e-2 * learning_rate(7, recipe))
    assert facts["images"] == batch_indices(7, 32, recipe).tolist()
    assert len(facts["sigmas"]) == 8
    assert {facts["loss"], facts["grad_norm"]} & {"nan", "inf"}
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_the_diagnosis_names_the_weight_whose_gradient_broke(
    make_training, images, law, make_recipe, monkeypatch
):
    training = make_training(init="torch")
    infinite_gradient(training, monkeypatch, {1})
    with pytest.raises(Diverged) as e:
        next(fit(training, images, law, make_recipe(), [1e-2]))
    why = e.value.step.why
    norms = why["grad_norms"]
    assert [name for name, norm in norms.items() if isinstance(norm, str)] == ["stem.weight"]
    weights = dict(training.denoiser.net.named_parameters())
    norm = why["weight_norms"]["stem.weight"]
    assert norm == pytest.approx(weights["stem.weight"].norm().item())
    assert isinstance(why["loss"], float)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_skip_leaves_the_step_out_and_goes_on(
    fault, fused, make_training, images, law, make_recipe, monkeypatch
):
    adamw = partial(torch.optim.AdamW, lr=1e-2, eps=1e-5, fused=fused)
    training = make_training(adamw, init="torch")
    fault(training, monkeypatch, {3, 4, 6})
    before, skipped = None, []
    recipe = make_recipe(steps=8, on_nan="skip")
    for step in fit(training, images, law, recipe, [1e-2]):
        after = everything(training)
        assert (after == before) == step.skipped
        before = after
        skipped += [step.number] * step.skipped
        assert training.step == step.number
        if step.skipped:
            assert step.why["images"] == batch_indices(step.number, len(images), recipe).tolist()
            assert step.why["step"] == step.number
    assert skipped == [3, 4, 6]
    assert (training.skipped, training.in_a_row, step.last) == (3, 0, True)
    assert all(w.isfinite().all() for w in training.denoiser.net.state_dict().values())


def test_a_batch_that_is_left_out_in_fp16_does_not_stop_the_scaling(
    make_training, images, law, make_recipe, monkeypatch
):
    training = make_training(precision=torch.float16)
    nan_in_the_loss(training, monkeypatch, {2, 3})
    scales = []
    for _ in fit(training, images, law, make_recipe(steps=5, on_nan="skip"), [1e-2]):
        scales.append(training.scaler.get_scale())
    assert training.skipped == 2
    assert scales[2] < scales[0]
    assert scales[4] == scales[2]


@pytest.mark.parametrize("on_nan", ["stop", "skip"])
def test_in_fp16_an_overflow_changes_nothing_but_the_scale_and_a_broken_gradient_stops(
    on_nan, make_training, images, law, make_recipe, monkeypatch
):
    training = make_training(precision=torch.float16, init="torch")
    infinite_gradient(training, monkeypatch, {3, *range(6, 99)})
    steps = fit(training, images, law, make_recipe(steps=99, on_nan=on_nan), [1e-2])
    for number in range(1, 6):
        before, scale = everything(training), training.scaler.get_scale()
        assert not next(steps).skipped
        assert (everything(training) == before) == (number == 3)
        assert training.scaler.get_scale() == (scale / 2 if number == 3 else scale)
    before = everything(training)
    with pytest.raises(Diverged):
        list(steps)  # 2^15 is halved until it is 1
    assert everything(training) == before
    assert training.step < 40


def test_too_many_left_out_in_a_row_stop_after_all(
    make_training, images, law, make_recipe, monkeypatch
):
    training = make_training()
    nan_in_the_loss(training, monkeypatch, {*range(2, 11), *range(12, 40)})
    before = {}

    def go_on():
        for step in fit(training, images, law, make_recipe(steps=99, on_nan="skip"), [1e-2]):
            before[step.number] = everything(training)

    with pytest.raises(Diverged, match=rf"{IN_A_ROW} steps in a row; the last good step was 11"):
        go_on()
    assert training.step == 11 + IN_A_ROW - 1
    assert before[1] == before[10] != before[11] == everything(training)


def test_a_rollback_draws_all_but_the_images_anew_and_always_alike(images, law, make_recipe):
    recipe = make_recipe(batch=32, label_dropout=0.5, shuffle=False)
    first, second, third, again = (room.batch_of(images, law, recipe, 5, k) for k in (0, 1, 2, 1))
    assert all(map(torch.equal, second, again))
    assert torch.equal(first[0], second[0])
    for one, other in ((first, second), (second, third), (first, third)):
        assert not any(map(torch.equal, one[1:], other[1:]))


def losses(n, seed, jumps=()):
    """Like a training's: they fall, and scatter by a tenth."""
    scatter = random.Random(seed)
    clean = [(1 / (1 + k / 50) + 0.2) * math.exp(scatter.gauss(0, 0.1)) for k in range(n)]
    return [loss * (8 if k + 1 in jumps else 1) for k, loss in enumerate(clean)]


def found(values, asked):
    """The spikes, if somebody asks after some of the steps."""
    seen, spikes = Spikes(), []
    for step, loss in enumerate(values, start=1):
        seen.add(step, torch.tensor(loss, dtype=torch.float64))
        if step in asked:
            spikes += seen.spikes()
    return spikes + seen.spikes()


@pytest.mark.parametrize("seed", range(5))
def test_a_jump_of_the_loss_is_found_at_its_step_and_nothing_else_is(seed):
    values = losses(3000, seed, jumps={25, 700, 701, 2999})
    spikes = found(values, {3000})
    assert [spike.step for spike in spikes] == [25, 700, 701, 2999]
    assert [spike.loss for spike in spikes] == [values[spike.step - 1] for spike in spikes]
    before = sorted(values[599:699])
    assert spikes[1].median == pytest.approx((before[49] + before[50]) / 2)
    assert not found(losses(3000, seed), {3000})


def test_what_is_found_does_not_depend_on_when_one_asks_or_what_was_saved():
    values = losses(1500, 0, jumps={30, 31, 900})
    expected = found(values, set())
    assert len(expected) == 3
    assert found(values, set(range(1, 1501))) == found(values, {30, 900, 901}) == expected
    seen = Spikes()
    for step, loss in enumerate(values, start=1):
        seen.add(step, torch.tensor(loss, dtype=torch.float64))
        if step % 7 == 0:
            seen = Spikes(**json.loads(json.dumps(seen.state())))
    assert seen.spikes() == expected


def test_neither_the_first_losses_nor_a_loss_of_zero_are_a_spike():
    assert not found([1.0] * 19 + [100.0], {20})
    assert found([1.0] * 20 + [100.0], {21}) == [Spike(21, 100.0, 1.0)]
    assert not found([0.0] * 30 + [1.0], {31})


def test_a_step_that_is_left_out_leaves_no_trace_in_what_a_network_counts(
    make_training, images, law, make_recipe, monkeypatch
):
    def counted(steps):
        training = make_training(init="torch")
        training.denoiser.net.stem = nn.Sequential(
            training.denoiser.net.stem, nn.BatchNorm2d(training.denoiser.net.width)
        )
        recipe, losses = make_recipe(steps=3, on_nan="skip"), []
        fresh = Training.new(
            training.denoiser, torch.optim.SGD(training.denoiser.parameters(), lr=0.0), [0.5]
        )
        with monkeypatch.context() as patch:
            nan_in_the_loss(fresh, patch, steps)
            losses += [step.loss.item() for step in fit(fresh, images, law, recipe, [0.0])]
        return fresh.denoiser.net.stem[1], losses

    spoilt, losses = counted({1, 2, 3})
    assert all(map(math.isnan, losses))
    assert spoilt.num_batches_tracked == 0
    assert torch.equal(spoilt.running_mean, torch.zeros_like(spoilt.running_mean))
    whole, _ = counted(set())
    assert whole.num_batches_tracked == 3
    partly, _ = counted({2})
    assert partly.num_batches_tracked == 2
    assert partly.running_var.isfinite().all()


def test_without_the_check_one_such_step_spoils_all_weights(
    make_training, images, law, make_recipe, monkeypatch
):
    """Control."""
    training = make_training()
    nan_in_one_image(training, monkeypatch, {2})
    monkeypatch.setattr(torch.Tensor, "isfinite", lambda self: torch.ones_like(self, dtype=bool))
    steps = fit(training, images, law, make_recipe(steps=2), [0.001])
    assert not [*steps][-1].skipped
    weights = [weight.isnan().any() for weight in training.denoiser.parameters()]
    assert sum(weights) > len(weights) / 2
