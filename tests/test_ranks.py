"""What each process does is a part of what one would do alone."""

import contextlib
from functools import partial

import pytest
import torch

from diffuse import ranks
from diffuse import training as training_room
from diffuse.errors import DivergedError
from diffuse.ranks import ALONE, Ranks
from diffuse.training import batch_of


@pytest.mark.parametrize("world", [2, 4])
def test_the_parts_of_a_batch_are_the_batch_that_one_process_draws(world, images, law, make_recipe):
    recipe = make_recipe()
    whole = batch_of(images, law, recipe, 3)
    parts = [batch_of(images, law, recipe, 3, ranks=Ranks(k, world)) for k in range(world)]
    for one, shares in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat(shares), one)


def test_each_process_hides_other_units_and_always_the_same(
    make_training, images, law, make_recipe
):
    recipe = make_recipe(label_dropout=0.0)
    batch = batch_of(images, law, recipe, 1)

    def gradient(rank):
        training = make_training(dropout=0.5, init="torch")
        losses = ALONE.losses(training.denoiser)
        training_room._gradient(training, recipe, 1, batch, losses, rank, 8)
        return torch.cat([w.grad.flatten() for w in training.denoiser.parameters()])

    one, again, other = gradient(0), gradient(0), gradient(1)
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)


def test_alone_there_is_nobody_to_ask():
    assert ALONE.agree("so") == "so"
    assert ALONE.any(True)
    assert not ALONE.any(False)
    assert ALONE.part(8) == slice(0, 8)
    assert ALONE.dealt([lambda: 1, lambda: 2]) == [1, 2]
    assert ALONE.mean(torch.tensor(3.0)) == 3


def test_processes_beside_each_other_share_the_threads_of_one_and_look_with_all(monkeypatch):
    monkeypatch.setattr(ranks.dist, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(Ranks, "agree", lambda self, value: 5)  # the first one's
    before = torch.get_num_threads()
    try:
        for beside, each in ((1, 5), (2, 2), (8, 1)):
            here = Ranks.joined(1, 8, 1, "nowhere", beside)
            assert torch.get_num_threads() == each
            with here.as_one():
                assert torch.get_num_threads() == 5
            assert torch.get_num_threads() == each
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("world", [2, 3])
def test_what_is_dealt_comes_back_in_order(world, monkeypatch):
    """As if each process had done its part: here one after the other."""
    jobs, parts = [partial(str, k) for k in range(5)], []
    monkeypatch.setattr(ranks.dist, "all_gather_object", lambda hands, mine: parts.append(mine))
    for rank in range(world):
        with contextlib.suppress(TypeError):  # nobody else's part is there yet
            Ranks(rank, world).dealt(jobs)
    monkeypatch.setattr(
        ranks.dist, "all_gather_object", lambda hands, mine: hands.__setitem__(slice(None), parts)
    )
    for rank in range(world):
        assert Ranks(rank, world).dealt(jobs) == ["0", "1", "2", "3", "4"]


def test_what_one_process_raises_all_raise(monkeypatch):
    def fails(where):
        raise DivergedError(where)

    def gather(hands, mine):
        theirs = DivergedError("in the other one") if mine == [1] else [2]
        hands[:] = [mine, theirs]

    monkeypatch.setattr(ranks.dist, "all_gather_object", gather)
    with pytest.raises(DivergedError, match="in the other one"):
        Ranks(0, 2).dealt([lambda: 1, lambda: 2])
    with pytest.raises(DivergedError, match="in this one"):
        Ranks(0, 2).dealt([lambda: fails("in this one"), lambda: 2])
    with pytest.raises(ZeroDivisionError):  # a bug: nobody waits to hear of it
        Ranks(0, 2).dealt([lambda: 1 // 0, lambda: 2])


def test_a_step_is_sound_for_all_or_for_none(monkeypatch):
    def reduce(theirs, flag, how):
        assert how == ranks.dist.ReduceOp.MIN
        flag.fill_(min(int(flag), theirs))

    for theirs, mine, expected in ((1, True, True), (0, True, False), (1, False, False)):
        monkeypatch.setattr(ranks.dist, "all_reduce", partial(reduce, theirs))
        assert bool(Ranks(0, 2).all(torch.tensor(mine))) is expected
    assert bool(ALONE.all(torch.tensor(True)))
