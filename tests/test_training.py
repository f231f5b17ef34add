"""fit(): averages, learning rates, batches, and what happens when a number is not finite."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from diffuse import training as room
from diffuse.averages import Ema, half_life
from diffuse.errors import DivergedError
from diffuse.training import batch_indices, fit, learning_rate, seconds_per_step
from diffuse.values import CHOICES


def weights(training):
    return {k: w.clone() for k, w in training.denoiser.net.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def drive(training, images, law, recipe, peak=1e-2):
    return list(fit(training, images, law, recipe, [peak] * len(training.optimizer.param_groups)))


def test_the_average_at_a_constant_decay_is_the_closed_form_and_torchs():
    net, decay, late = torch.nn.Linear(3, 2), 0.9, 10**6
    ema = Ema(net, decay)
    theirs = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(decay))
    theirs.update_parameters(net)  # its first call copies
    seen = [net.weight.detach().double().clone()]
    for _ in range(20):
        with torch.no_grad():
            net.weight.add_(torch.randn_like(net.weight))
        ema.update(late)
        theirs.update_parameters(net)
        seen.append(net.weight.detach().double().clone())
    closed = decay**20 * seen[0]
    for k, w in enumerate(seen[1:], start=1):
        closed = closed + (1 - decay) * decay ** (20 - k) * w
    assert torch.allclose(ema.weights["weight"].double(), closed, atol=1e-5)
    assert torch.allclose(ema.weights["weight"], theirs.module.weight, atol=1e-5)


@pytest.mark.parametrize(("step", "decay"), [(1, 2 / 11), (10, 11 / 20), (10**6, 0.99)])
def test_the_average_forgets_its_beginning_faster(step, decay):
    net = torch.nn.Linear(1, 1, bias=False)
    ema = Ema(net, 0.99)
    torch.nn.init.zeros_(ema.weights["weight"])
    torch.nn.init.ones_(net.weight)
    ema.update(step)
    assert ema.weights["weight"].item() == pytest.approx(1 - decay, rel=1e-5)


@pytest.mark.parametrize(("decay", "step"), [(0.99, 10**6), (0.5, 10**6), (0.9999, 200)])
def test_after_a_half_life_a_weights_share_has_halved(decay, step):
    ema = Ema(torch.nn.Linear(1, 1, bias=False), decay)
    torch.nn.init.ones_(ema.weights["weight"])
    torch.nn.init.zeros_(ema.now["weight"])
    batch = 64
    updates = half_life(decay, step, batch) / batch
    for _ in range(round(updates)):
        ema.update(step)
    assert updates < 20 or decay == 0.99  # 0.9999 alone would take 6,931 of them
    left = 0.5 ** (round(updates) / updates)
    assert ema.weights["weight"].item() == pytest.approx(left, rel=1e-3)


def test_without_an_average_there_is_no_half_life():
    assert half_life(0.0, 100, 128) == 0


def test_counts_are_taken_over_rather_than_averaged():
    net = torch.nn.BatchNorm1d(2)
    ema = Ema(net, 0.5)
    net(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)))
    ema.update(10**6)
    assert ema.weights["num_batches_tracked"] == 1
    assert torch.allclose(ema.weights["running_mean"], net.running_mean / 2)


@pytest.mark.parametrize("steps", [4, 7, 10, 100, 999])
def test_onecycle_is_torchs_without_its_cycle_of_the_momentum(steps, make_recipe):
    recipe = make_recipe(steps=steps, lr_schedule="onecycle", warmup=0)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=steps, cycle_momentum=False
    )
    for step in range(1, steps + 1):
        assert learning_rate(step, recipe) == pytest.approx(theirs.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        if step < steps:
            theirs.step()


@pytest.mark.parametrize("steps", [2, 10, 100])
def test_cosine_is_torchs_annealing_down_to_zero(steps, make_recipe):
    recipe = make_recipe(steps=steps, lr_schedule="cosine", warmup=0)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps - 1)
    for step in range(1, steps + 1):
        assert learning_rate(step, recipe) == pytest.approx(theirs.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("lr_schedule", CHOICES["train.lr_schedule"])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 1000])
def test_every_learning_rate_is_a_share_of_the_peak_and_never_a_jump(
    lr_schedule, steps, make_recipe
):
    recipe = make_recipe(steps=steps, lr_schedule=lr_schedule, warmup=100)
    factors = [learning_rate(step, recipe) for step in range(1, steps + 1)]
    assert all(0 <= factor <= 1 for factor in factors)
    if steps == 1000:
        assert max(abs(a - b) for a, b in itertools.pairwise(factors)) < 0.02


def test_warm_up_is_a_straight_line(make_recipe):
    recipe = make_recipe(steps=1000, lr_schedule="constant", warmup=4)
    assert [learning_rate(s, recipe) for s in range(1, 7)] == [0.25, 0.5, 0.75, 1, 1, 1]


@pytest.mark.parametrize("n", [1, 5, 8, 30])
def test_an_epoch_shows_every_image_once_in_an_order_of_its_own(n, make_recipe):
    recipe = make_recipe(batch=8)
    shown = torch.cat([batch_indices(step, n, recipe) for step in range(1, 31)])
    epochs = [epoch for epoch in shown.split(n) if len(epoch) == n]
    assert len(epochs) >= 8
    assert all(epoch.sort().values.tolist() == list(range(n)) for epoch in epochs)
    if n >= 8:
        assert len({tuple(epoch.tolist()) for epoch in epochs}) == len(epochs)
        other = torch.cat([batch_indices(s, n, make_recipe(batch=8, seed=1)) for s in (1, 2, 3, 4)])
        assert not torch.equal(other, shown[: len(other)])


def test_without_shuffling_images_come_in_their_order(make_recipe):
    recipe = make_recipe(batch=3, shuffle=False)
    shown = torch.cat([batch_indices(step, 5, recipe) for step in (1, 2, 3)])
    assert shown.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]


def test_the_loss_falls_where_there_is_something_to_learn(make_training, images, law, make_recipe):
    flat = (images.labels * 100).to(torch.uint8)[:, None, None, None].expand_as(images.images)
    steps = drive(make_training(), replace(images, images=flat), law, make_recipe(steps=60))
    first, last = (torch.stack([s.loss for s in part]).mean() for part in (steps[:10], steps[-10:]))
    assert last < 0.5 * first


def test_a_step_says_where_it_is(make_training, images, law, make_recipe):
    recipe = make_recipe(steps=5, lr_schedule="cosine", warmup=0)
    steps = drive(make_training(), images, law, recipe)
    assert [s.number for s in steps] == [1, 2, 3, 4, 5]
    assert [s.last for s in steps] == [False] * 4 + [True]
    assert [s.lr for s in steps] == [
        pytest.approx(1e-2 * learning_rate(k, recipe)) for k in range(1, 6)
    ]
    assert [s.number for s in steps if s.every(2)] == [2, 4, 5]
    assert not any(s.every(None) for s in steps)


def test_a_gradient_is_no_longer_than_clip_grad(make_training, images, law, make_recipe):
    def length(clip_grad):
        training = make_training(lambda p: torch.optim.SGD(p, lr=1.0), init="torch")
        before = weights(training)
        recipe = make_recipe(steps=1, warmup=0, clip_grad=clip_grad, lr_schedule="constant")
        [step] = drive(training, images, law, recipe, peak=1.0)
        after = weights(training)
        moved = math.sqrt(sum((after[k] - before[k]).square().sum().item() for k in before))
        return moved, step.grad_norm.item()

    moved, norm = length(None)
    assert moved == pytest.approx(norm, rel=1e-3)
    clipped, same_norm = length(norm / 10)
    assert clipped == pytest.approx(norm / 10, rel=1e-3)
    assert same_norm == pytest.approx(norm)


def poisoned(law, at):
    """A law whose level is not a number, from the at-th call on."""
    calls = itertools.count(1)
    return lambda n, generator: law(n, generator) * (math.nan if next(calls) >= at else 1)


def test_a_number_that_is_none_stops_training_before_it_spoils_the_weights(
    make_training, images, law, make_recipe
):
    training = make_training()
    steps = fit(training, images, poisoned(law, at=4), make_recipe(steps=9), [1e-2])
    for _ in range(3):
        next(steps)
    before, averaged = weights(training), {k: w.clone() for k, w in training.ema.weights.items()}
    with pytest.raises(DivergedError, match=r"step 4: loss nan.*last good step was 3"):
        next(steps)
    assert training.step == 3
    assert same(weights(training), before)
    assert same(training.ema.weights, averaged)
    assert all(w.isfinite().all() for w in before.values())


def test_a_gradient_that_overflows_in_fp16_is_skipped_and_the_scale_halved(
    make_training, images, law, make_recipe
):
    training = make_training(precision=torch.float16)
    scaler = training.scaler
    assert scaler.is_enabled()
    recipe = make_recipe(steps=40, warmup=0)
    steps = fit(training, images, law, recipe, [1e-2])
    next(steps)
    scaler.update(2.0**40)
    before = weights(training)
    next(steps)
    assert same(weights(training), before)
    assert scaler.get_scale() == 2.0**39
    for _ in steps:
        pass
    assert not same(weights(training), before)
    assert all(w.isfinite().all() for w in weights(training).values())


def test_clipping_knows_nothing_of_the_scale_of_fp16(make_training, images, law, make_recipe):
    def moved(scale):
        training = make_training(lambda p: torch.optim.SGD(p, lr=1.0), torch.float16, init="torch")
        training.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        before = weights(training)
        recipe = make_recipe(steps=1, warmup=0, clip_grad=0.01, lr_schedule="constant")
        [step] = drive(training, images, law, recipe, peak=1.0)
        after = weights(training)
        change = math.sqrt(sum((after[k] - before[k]).square().sum().item() for k in before))
        return change, step.grad_norm.item()

    small, large = moved(2.0**4), moved(2.0**10)
    assert small == pytest.approx(large, rel=0.05)
    assert small[0] == pytest.approx(0.01, rel=0.05)


def test_labels_are_hidden_as_often_as_asked_and_are_then_the_class_past_the_last(
    images, law, make_recipe
):
    def labels(share):
        recipe = make_recipe(batch=32, label_dropout=share, shuffle=False)
        return torch.stack([room.batch_of(images, law, recipe, k)[1] for k in range(1, 101)])

    assert torch.equal(labels(0.0), images.labels.expand(100, 32))
    hidden = labels(0.3)
    share = (hidden == 3).double().mean().item()
    assert share == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 3200))
    kept = hidden != 3
    assert torch.equal(hidden[kept], images.labels.expand(100, 32)[kept])


def test_images_are_mirrored_only_if_they_may_be(images, law, make_recipe):
    recipe = make_recipe(batch=32, shuffle=False)
    straight = room.batch_of(images, law, recipe, 1)[0]
    whole = images.images / 255 * 2 - 1
    assert torch.allclose(straight, whole, atol=1e-6)
    seen = torch.stack(
        [room.batch_of(replace(images, flip=True), law, recipe, k)[0] for k in range(1, 41)]
    )
    mirrored = (seen - whole.flip(-1)).abs().amax(dim=(2, 3, 4)) < 1e-6
    kept = (seen - whole).abs().amax(dim=(2, 3, 4)) < 1e-6
    assert (mirrored ^ kept).all()
    assert mirrored.double().mean().item() == pytest.approx(0.5, abs=0.06)


def test_what_a_step_draws_depends_on_seed_and_step_alone(images, law, make_recipe):
    seeds = itertools.count()

    def draws(step, **changes):
        torch.manual_seed(next(seeds))
        return room.batch_of(images, law, make_recipe(**changes), step)

    once, again = draws(3), draws(3, steps=99)
    assert all(map(torch.equal, once, again))
    for other in (draws(4), draws(3, seed=1)):
        assert not any(torch.equal(a, b) for a, b in zip(once[2:], other[2:], strict=True))


def test_the_steps_of_a_training_that_goes_on_are_timed_as_well(
    make_training, images, law, make_recipe
):
    training = make_training()
    training.step = 20
    assert 0 < seconds_per_step(training, images, law, make_recipe(steps=30), seconds=0.0) < 1


def test_timing_the_first_steps_changes_nothing(make_training, images, law, make_recipe):
    training = make_training()
    before = weights(training)
    seconds = seconds_per_step(training, images, law, make_recipe(), seconds=0.0)
    assert 0 < seconds < 1
    assert training.step == 0
    assert not training.optimizer.state
    assert same(weights(training), before)
    assert same(training.ema.weights, before)
