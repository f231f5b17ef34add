"""What each process does is a part of what one would do alone."""

import pytest
import torch

from diffuse.ranks import ALONE, Ranks
from diffuse.training import draw


@pytest.mark.parametrize("world", [2, 4])
def test_the_parts_of_a_batch_are_the_batch_that_one_process_draws(world, images, law, make_recipe):
    recipe = make_recipe()
    whole = draw(images, law, recipe, 3)
    parts = [draw(images, law, recipe, 3, ranks=Ranks(k, world)) for k in range(world)]
    for one, shares in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat(shares), one)


def test_alone_there_is_nobody_to_ask():
    assert ALONE.first
    assert ALONE.agree("so") == "so"
    assert ALONE.any(True)
    assert not ALONE.any(False)
    assert ALONE.part(8) == slice(0, 8)
    assert ALONE.dealt([lambda: 1, lambda: 2]) == [1, 2]
    assert ALONE.mean(torch.tensor(3.0)) == 3
