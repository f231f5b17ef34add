"""A batch in parts has the gradient of the whole; without memory, parts that fit are named."""

import gc
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from diffuse import training as room
from diffuse.denoiser import Denoiser
from diffuse.memory import OutOfMemory
from diffuse.objectives import v
from diffuse.optimizers import Muon
from diffuse.training import Training, fit
from diffuse.weightings import edm

SGD = partial(torch.optim.SGD, lr=1.0)


def muon(parameters):
    """The default of every command: two optimizers in one."""
    betas = (0.9, 0.99)
    return Muon(parameters, 1e-2, 0.95, 1e-2, betas, eps=1e-8, weight_decay=0.0, precision="fp32")


class Small(nn.Module):
    """A network of float64, so that only rounding is left to differ."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 1, 3, padding=1)
        self.label = nn.Embedding(4, 6)
        self.double()

    def forward(self, x, c_noise, label):
        told = (self.label(label) + c_noise[:, None])[..., None, None]
        return self.last(torch.tanh(self.first(x) + told))


class Exact(Denoiser):
    """A denoiser that computes its loss in float64."""

    def loss(self, x0, sigma, eps, label=None):
        return super().loss(x0.double(), sigma, eps.double(), label)


def exact():
    denoiser = Exact(Small(), v(), edm(sigma_data=0.5), torch.float32)
    return Training.new(denoiser, SGD(denoiser.parameters()), 0.9)


def gradient(training, images, law, recipe):
    """That of the first step, and its loss."""
    step = next(fit(training, images, law, replace(recipe, clip_grad=None), [0.0]))
    named = training.denoiser.net.named_parameters()
    return {k: p.grad.clone() for k, p in named}, step.loss.item(), step.grad_norm.item()


def furthest(a, b):
    """The largest difference of two gradients, in units of the largest entry."""
    top = max(g.abs().max() for g in a.values())
    return max((a[k] - b[k]).abs().max() / top for k in a).item()


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_the_parts_of_a_batch_have_the_gradient_of_the_whole(micro_batch, images, law, make_recipe):
    whole, loss, norm = gradient(exact(), images, law, make_recipe())
    parts, same_loss, same_norm = gradient(
        exact(), images, law, make_recipe(micro_batch=micro_batch)
    )
    assert furthest(whole, parts) < 1e-14
    assert same_loss == pytest.approx(loss, rel=1e-14)
    assert same_norm == pytest.approx(norm, rel=1e-14)
    other, *_ = gradient(exact(), images, law, make_recipe(seed=1))
    assert furthest(whole, other) > 0.01


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [(torch.float32, 1e-5), (torch.bfloat16, 0.05), (torch.float16, 0.01)],
)
def test_so_they_have_in_the_unet_in_every_precision(
    precision, tolerance, make_training, images, law, make_recipe
):
    def of(**changes):
        training = make_training(SGD, precision, init="torch")
        return gradient(training, images, law, make_recipe(**changes))[0]

    assert furthest(of(), of(micro_batch=2)) < tolerance


def test_the_whole_batch_as_one_part_is_the_training_without_parts_to_the_byte(
    make_training, images, law, make_recipe
):
    def end(**changes):
        training = make_training(dropout=0.2, init="torch")
        for _ in fit(training, images, law, make_recipe(**changes), [1e-2]):
            pass
        return b"".join(w.numpy().tobytes() for w in training.ema.weights.values())

    assert end(micro_batch=8) == end()
    assert end(micro_batch=4) != end()  # the dropout is drawn part by part


def test_whatever_the_parts_the_network_sees_the_same_images_levels_noise_and_labels(
    make_training, images, law, make_recipe
):
    def seen(**changes):
        training, calls = make_training(), []
        real = training.denoiser.loss

        def loss(*batch):
            calls.append(batch)
            return real(*batch)

        training.denoiser.loss = loss
        mirrored = replace(images, flip=True)
        next(fit(training, mirrored, law, make_recipe(label_dropout=0.5, **changes), [1e-2]))
        assert [len(call[0]) for call in calls] == [changes.get("micro_batch", 8)] * len(calls)
        return [torch.cat(parts) for parts in zip(*calls, strict=True)]

    for micro_batch in (1, 2, 4):
        assert all(map(torch.equal, seen(), seen(micro_batch=micro_batch)))


def short(training, most, error):
    """Let a training run out of memory if it sees more than `most` images at once."""
    real, tried = training.denoiser.loss, []

    def loss(x0, *rest):
        tried.append(len(x0))
        if len(x0) > most:
            error()
        return real(x0, *rest)

    training.denoiser.loss = loss
    return tried


def too_much():
    torch.empty(2**50, dtype=torch.int32)  # 4 PiB: torch's own words


def on_a_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")


@pytest.mark.parametrize("error", [too_much, pytest.param(on_a_gpu, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("most", "named"), [(7, 4), (4, 4), (3, 2), (1, 1)])
def test_without_memory_the_error_names_the_largest_part_that_was_seen_to_fit(
    error, most, named, make_training, images, law, make_recipe
):
    training = make_training()
    tried = short(training, most, error)
    with pytest.raises(
        OutOfMemory, match=rf"8 images at once.*train\.micro_batch={named} fits"
    ) as e:
        next(fit(training, images, law, make_recipe(), [1e-2]))
    assert e.value.exit_code == 1
    asked = {too_much: "4503599627370496 bytes", on_a_gpu: "2.00 GiB"}[error]
    assert f"asked for {asked} more" in str(e.value)
    assert "\n" not in str(e.value)
    assert tried[0] == 8
    assert tried[-1] == named
    again = make_training()
    short(again, most, error)
    assert next(fit(again, images, law, make_recipe(micro_batch=named), [1e-2])).loss.isfinite()


@pytest.mark.parametrize(("kind", "peaks"), [((), [1e-2]), ((muon,), [1e-2, 1e-2])])
def test_beside_what_is_tried_there_is_room_for_moments_that_are_not_there_yet(
    kind, peaks, make_training, images, law, make_recipe, monkeypatch
):
    reserved, real = [], torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda t: reserved.append(t) or real(t))
    training, later = make_training(*kind), make_training(*kind)
    next(fit(later, images, law, make_recipe(), peaks))
    for one, most in ((training, 4), (later, 4)):
        reserved.clear()
        short(one, most, too_much)
        with pytest.raises(OutOfMemory):
            next(fit(one, images, law, make_recipe(), peaks))
        weights = sum(p.numel() for p in one.denoiser.parameters())
        room_made = sum(t.numel() for t in reserved if t.is_floating_point())
        assert room_made == (2 * weights if one is training else 0)


def test_it_says_so_too_where_not_even_one_image_fits(make_training, images, law, make_recipe):
    training = make_training()
    short(training, 0, too_much)
    with pytest.raises(OutOfMemory, match=r"4 images at once.*not even one at a time fits"):
        next(fit(training, images, law, make_recipe(micro_batch=4), [1e-2]))


def test_another_error_is_left_as_it_is(make_training, images, law, make_recipe):
    def broken():
        raise RuntimeError("something else")

    training = make_training()
    short(training, 0, broken)
    with pytest.raises(RuntimeError, match=r"^something else$"):
        next(fit(training, images, law, make_recipe(), [1e-2]))


@pytest.mark.slow
def test_what_filled_the_memory_is_gone_when_smaller_parts_are_tried(
    make_training, images, law, make_recipe
):
    class Big:
        alive = 0

        def __init__(self):
            Big.alive += 1

        def __del__(self):
            Big.alive -= 1

    training, alive = make_training(), []
    real = training.denoiser.loss

    def loss(x0, *rest):
        alive.append(Big.alive)
        held = Big()
        if len(x0) > 1:
            too_much()
        del held
        return real(x0, *rest)

    training.denoiser.loss = loss
    with pytest.raises(OutOfMemory):
        next(fit(training, images, law, make_recipe(), [1e-2]))
    gc.collect()
    assert alive[1:] == [0] * len(alive[1:])
    assert room.memory.ran_out(torch.OutOfMemoryError("..."))


def test_what_other_parts_of_a_gpu_say_without_memory_is_known():
    for words in ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED when calling x"):
        assert room.memory.ran_out(RuntimeError(words))
    assert not room.memory.ran_out(RuntimeError("CUDA error: an illegal memory access"))


def test_so_is_what_parts_of_a_cpu_say():
    for words in ("could not create a primitive", "std::bad_alloc"):
        assert room.memory.ran_out(RuntimeError(words))
    assert room.memory.ran_out(MemoryError())
    primitive = "could not create a primitive descriptor for a convolution"  # it has no such one
    assert not room.memory.ran_out(RuntimeError(primitive))
