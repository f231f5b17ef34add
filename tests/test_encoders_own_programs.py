"""Encoders that are programs, TorchScript's or torch.export's, and layers lazy or quantized."""

import copy
import importlib
import io
import os
import subprocess
import sys
import textwrap
from functools import partial

import pytest
import torch
from torch import nn

from diffuse.data import ImageSpec, to_range
from diffuse.encoders import encode
from diffuse.encoders.own import wrapped

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
SPEC = ImageSpec("photos", 1, 8, 8, 8, 8, "none", ())


class Net(nn.Module):
    def __init__(self, gain=1.5, stride=1):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, stride=stride), nn.BatchNorm2d(4)
        self.gain, self.table = gain, torch.full((4,), gain)

    def forward(self, x):
        return self.norm(self.conv(x)).mean((2, 3)) * self.gain * self.table


class Around(nn.Module):
    range = (0, 1)

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


def net(**keys):
    """In evaluation, because what is frozen or exported stays as it was; random but known."""
    torch.manual_seed(0)
    return Net(**keys).eval()


def scripted(**keys):
    return torch.jit.script(net(**keys))


def loaded(**keys):
    file = io.BytesIO()
    torch.jit.save(scripted(**keys), file)
    file.seek(0)
    return torch.jit.load(file)


def frozen(**keys):
    return torch.jit.freeze(scripted(**keys))


def traced(**keys):
    return torch.jit.trace(net(**keys), torch.rand(2, 1, 8, 8))


def exported(batch=None, **keys):
    sizes = ({0: torch.export.Dim("batch") if batch is None else batch},)
    return torch.export.export(
        net(**keys), (torch.rand(batch or 4, 1, 8, 8),), dynamic_shapes=sizes
    ).module()


def ranged(make, **keys):
    made = make(**keys)
    made.range = (0, 1)
    return made


def around(make, **keys):
    return Around(make(**keys))


def opened(make, *args, **keys):
    return wrapped(partial(make, *args, **keys), partial(make, *args), "mine", SPEC)


def images(n=5):
    random = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, 1, 8, 8), generator=random, dtype=torch.uint8)


@pytest.mark.parametrize("make", [scripted, loaded, frozen, traced, exported])
@pytest.mark.parametrize("how", [ranged, around])
def test_a_program_is_an_encoder_as_the_module_is_that_it_was_made_of(make, how):
    encoder = opened(how, make)
    with torch.no_grad():
        expected = net()(to_range(images(), (0, 1)))
    torch.testing.assert_close(encode(encoder, images()), expected)
    assert torch.equal(encode(copy.deepcopy(encoder), images()), encode(encoder, images()))
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.parametrize("make", [scripted, loaded, frozen, traced, exported])
@pytest.mark.parametrize("how", [ranged, around])
def test_its_sha256_is_that_of_its_code_and_numbers_whatever_was_compiled_before(make, how):
    first = opened(how, make).sha256
    for stride in (1, 2):
        frozen(stride=stride)  # classes of a name get another one each time
    assert opened(how, make).sha256 == first
    assert opened(how, make, gain=1.25).sha256 != first  # in no parameter, in no line of code
    assert opened(how, make, stride=2).sha256 != first  # the same tensors, another graph


def test_methods_beside_forward_count():
    class Two(nn.Module):
        def __init__(self, gain):
            super().__init__()
            self.gain = gain

        def forward(self, x: torch.Tensor):
            return x

        @torch.jit.export
        def flat(self, x: torch.Tensor):
            return x.flatten(1) * self.gain

    class Flat(Around):
        def forward(self, x):
            return self.net.flat(x)

    one, two = (opened(lambda g=g: Flat(torch.jit.script(Two(g)))).sha256 for g in (1.0, 2.0))
    assert one != two


def test_a_program_of_another_batch_or_size_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"mine failed on images \[4, 1, 8, 8\]") as refusal:
        opened(ranged, exported, batch=3)
    assert "\n" not in str(refusal.value)


def test_lazy_layers_have_the_same_weights_each_time():
    def lazy():
        made = nn.Sequential(nn.Flatten(), nn.LazyLinear(6))
        made.range = (0, 1)
        return made

    one, two = opened(lazy), opened(lazy)
    assert one.dim == 6
    assert torch.equal(encode(one, images()), encode(two, images()))
    assert one.sha256 == two.sha256
    assert not any(parameter.requires_grad for parameter in one.parameters())


@pytest.mark.parametrize(
    "net", [nn.Flatten(), nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())], ids=type
)
def test_a_lazy_layer_that_sees_no_image_is_named(net):
    def spare():
        made = Around(net)
        made.spare = nn.LazyLinear(2)
        return made

    with pytest.raises(ValueError, match=r"mine: spare\.weight has no shape: no image reaches it"):
        opened(spare)


class Rows(Around):
    """Image by image: a quantized layer sets its scale by all that stand in a batch."""

    def forward(self, x):
        return torch.cat([self.net(row) for row in x.flatten(1).split(1)])


def quantized(seed):
    torch.manual_seed(seed)
    made = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(64, 3)), {nn.Linear})
    return Rows(made)


def test_weights_that_are_packed_count():
    one, two = opened(quantized, seed=0), opened(quantized, seed=1)
    assert not torch.equal(encode(one, images()), encode(two, images()))
    assert one.sha256 == opened(quantized, seed=0).sha256 != two.sha256


CODE = """
    from functools import partial
    import torch
    from torch import nn
    from diffuse.data import ImageSpec
    from diffuse.encoders.own import wrapped

    class Net(nn.Module):
        range = (0, 1)

        def __init__(self):
            super().__init__()
            self.kinds, self.words = {"a", "b", "c", "d"}, list({"e", "f", "g", "h"})
            self.act, self.times = torch.relu, lambda x, k=2: k * x
            self.deep = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)))

        def forward(self, x):
            return self.deep(x)

    def found():
        spec = ImageSpec("photos", 1, 8, 8, 8, 8, "none", ())
        return wrapped(Net, partial(Net), "mine", spec).sha256
"""


def test_every_process_finds_the_same_sha256(tmp_path, monkeypatch):
    (tmp_path / "my_net.py").write_text(textwrap.dedent(CODE))
    monkeypatch.syspath_prepend(tmp_path)
    frozen()
    here = importlib.import_module("my_net").found()
    sys.modules.pop("my_net")
    seeds = {"PYTHONHASHSEED": "1", "PYTHONPATH": str(tmp_path)}  # pytest draws one of its own
    command = [sys.executable, "-c", "import my_net; print(my_net.found())"]
    there = subprocess.run(command, env=os.environ | seeds, capture_output=True, text=True)
    assert there.stdout.strip() == here, there.stderr
