"""A rehearsed step leaves nothing behind, and says whether its gradients repeat themselves."""

import logging

import pytest
import torch
from torch import nn

from diffuse import conditions, rehearsal
from diffuse.denoiser import Denoiser
from diffuse.objectives import v
from diffuse.training import fit
from diffuse.weightings import uniform

CPU = torch.device("cpu")


class Counting(nn.Module):
    """A network of somebody else's: it counts its batches, and draws."""

    def __init__(self, last=None):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(1), nn.Dropout(0.5)
        self.last = last or nn.Identity()

    def forward(self, x, level, label):
        return self.last(self.drop(self.norm(x)))


class Unpooled(nn.Module):
    """torch has no way of doing this that gives the same bytes every time."""

    def forward(self, x):
        pooled, where = nn.functional.max_pool2d(x, 2, return_indices=True)
        return nn.functional.max_unpool2d(pooled, where, 2)


class Compared(nn.Module):
    """It counts over vectors, so it cannot learn from one image alone."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(64)

    def forward(self, x):
        return self.norm(x.flatten(1)).view(x.shape)


class Broken(nn.Module):
    def forward(self, x):
        raise RuntimeError("something else")


def denoiser(last=None):
    return Denoiser(Counting(last), v(), uniform(), torch.float32).eval()


def test_nothing_of_it_remains():
    rehearsed = denoiser()
    before = {k: w.clone() for k, w in rehearsed.state_dict().items()}
    random = torch.get_rng_state()
    rehearsal.step(rehearsed, (4, 1, 8, 8), CPU)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(w, before[k]) for k, w in rehearsed.state_dict().items())
    assert all(w.grad is None for w in rehearsed.parameters())
    assert not rehearsed.training


@pytest.mark.parametrize("last", [None, Compared()])
def test_a_network_that_repeats_itself_is_not_spoken_of(last, caplog):
    with caplog.at_level(logging.WARNING, "diffuse"):
        assert rehearsal.repeats(denoiser(last), (1, 8, 8), CPU)
    assert not caplog.records
    assert torch.get_deterministic_debug_mode() == 0


def test_one_that_does_not_is_one_warning(caplog):
    with caplog.at_level(logging.WARNING, "diffuse"):
        assert not rehearsal.repeats(denoiser(Unpooled()), (1, 8, 8), CPU)
    [record] = caplog.records
    message = record.getMessage()
    assert message.startswith("resuming may differ in the last bits: max_unpooling2d_forward_out ")
    assert torch.get_deterministic_debug_mode() == 0


def test_any_other_error_is_the_networks_own():
    with pytest.raises(RuntimeError, match="something else"):
        rehearsal.repeats(denoiser(Broken()), (1, 8, 8), CPU)


@pytest.mark.parametrize("wanted", [True, False])
def test_it_is_strict_where_that_is_wanted_only(wanted):
    with conditions.strict(wanted):
        assert torch.are_deterministic_algorithms_enabled() == wanted
    assert not torch.are_deterministic_algorithms_enabled()


def test_steps_are_as_strict_as_the_training(make_training, images, law, make_recipe):
    seen = []
    training = make_training()
    training.denoiser.net.register_forward_hook(
        lambda *_: seen.append(torch.are_deterministic_algorithms_enabled())
    )
    for strict in (False, True):
        training.strict = strict
        next(fit(training, images, law, make_recipe(), [1e-2]))
    assert seen == [False, True]
