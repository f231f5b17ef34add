"""An encoder of one's own is known by all that it holds, not by its parameters alone."""

import threading
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from diffuse.data import ImageSpec
from diffuse.encoders.own import wrapped

SPEC = ImageSpec("photos", 1, 8, 8, 8, 8, "none", ())


class Holds(nn.Module):
    range = (0, 1)

    def __init__(self, make, x):
        super().__init__()
        self.held = make(x)

    def forward(self, x):
        return x.flatten(1)


class Thing:
    def __init__(self, x):
        self.x = x


def layer(x):
    made = nn.Linear(2, 2)
    nn.init.constant_(made.weight, x)
    nn.init.zeros_(made.bias)
    return made


def closure(x):
    return lambda images: images * x


def hooked(x):
    made = nn.Identity()
    made.register_forward_hook(partial(Thing, x))
    return made


def quantized(x):
    with warnings.catch_warnings():  # torch is going to do without
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(2) * x, x, 0, torch.qint8)


def itself(x):
    found = [x]
    found.append(found)
    return found


HOLDERS = {
    "a list of tensors": lambda x: [torch.full((3,), x)],
    "a tuple of lists": lambda x: ([torch.full((3,), x)],),
    "a dict of tensors": lambda x: {"a": torch.full((3,), x)},
    "a key": lambda x: {x: 1},
    "an array": lambda x: np.full(3, x),
    "a dict of arrays": lambda x: {"a": np.full(3, x)},
    "an array of objects": lambda x: np.array([Thing(x)]),
    "a number": float,
    "a list of numbers": lambda x: [x, 1.0],
    "a set": lambda x: {x, 1.0},
    "bytes": lambda x: np.float32(x).tobytes(),
    "a word": str,
    "a layer in a list": lambda x: [layer(x)],
    "an object": Thing,
    "what contains itself": itself,
    "a closure": closure,
    "a partial": lambda x: partial(torch.add, x),
    "a method": lambda x: Thing(x).__eq__,
    "a hook of a layer": hooked,
    "a quantized tensor": quantized,
    "a complex tensor": lambda x: torch.full((2,), x + 1j).conj(),
    "bfloat16": lambda x: [torch.full((2,), x, dtype=torch.bfloat16)],
}


def opened(make, *args):
    return wrapped(partial(make, *args), partial(make), "mine", SPEC)


@pytest.mark.parametrize("kind", HOLDERS)
def test_what_it_holds_makes_another_encoder(kind):
    one, same, other = (opened(Holds, HOLDERS[kind], x).sha256 for x in (0.5, 0.5, 0.25))
    assert one == same != other


def test_a_list_of_words_may_come_out_of_a_set():
    one, other, third = (
        opened(Holds, lambda x: x, words).sha256 for words in (["a", "b"], ["b", "a"], ["a", "c"])
    )
    assert one == other != third


class Odd(Holds):
    def __init__(self, change):
        super().__init__(float, 1.0)
        change(self)


def refused(change):
    with pytest.raises(ValueError, match=r"^mine") as error:
        opened(Odd, change)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("make", [threading.Lock, lambda: [threading.Lock()]])
def test_what_has_no_sha256_is_refused_by_its_name(make):
    assert "mine: spare" in refused(lambda net: setattr(net, "spare", make()))


@pytest.mark.parametrize("kind", ["attribute", "buffer", "parameter"])
def test_a_sparse_tensor_is_named(kind):
    sparse = torch.eye(2).to_sparse()

    def change(net):
        if kind == "attribute":
            net.table = sparse
        elif kind == "buffer":
            net.register_buffer("table", sparse)
        else:
            net.table = nn.Parameter(sparse)

    assert "table" in (said := refused(change))
    assert "it is torch.sparse_coo, make it dense" in said


def test_a_module_without_values_is_refused():
    assert "meta" in refused(lambda net: net.add_module("deep", nn.Linear(2, 2, device="meta")))
    assert "held" in refused(lambda net: setattr(net, "held", torch.ones(2, device="meta")))
