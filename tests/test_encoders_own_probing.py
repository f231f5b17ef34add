"""What a module of one's own says of itself, and what it does with a few images."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from diffuse.data import ImageSpec
from diffuse.encoders import Encoder, encode
from diffuse.encoders.own import wrapped

SPEC = ImageSpec("photos", 1, 8, 8, 8, 8, "none", ())


class Net(nn.Module):
    range = (0, 1)

    def forward(self, x):
        return x.flatten(1)


def with_attributes(**attributes):
    return type("Net", (Net,), attributes)()


def computing(function):
    return with_attributes(forward=lambda self, x: function(x))


def normed(**keys):
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, **keys), nn.ReLU(), nn.Flatten())
    made.range = (0, 1)
    return made


def opened(net):
    return wrapped(lambda: net, partial(with_attributes), "mine", SPEC)


def refusal(net):
    with pytest.raises(ValueError, match=r"mine|flat") as error:
        opened(net)
    assert "\n" not in str(error.value)
    return str(error.value)


def images(n=3):
    random = torch.Generator().manual_seed(1)
    return torch.randint(256, (n, 1, 8, 8), generator=random, dtype=torch.uint8)


def standardised(x):
    x = x.flatten(1)
    return (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)


class Remembers(Net):
    def forward(self, x):
        self.seen = getattr(self, "seen", 0) + x.flatten(1)
        return self.seen


@pytest.mark.parametrize(
    "net",
    [
        normed(track_running_stats=False),
        computing(lambda x: x.flatten(1) + 0.01 * x.mean()),
        computing(lambda x: x.flatten(1) - x.flatten(1).amax(0)),
        Encoder(normed(track_running_stats=False), "mine", "0" * 64, (1, 8, 8), 144),
    ],
)
def test_features_that_depend_on_the_images_beside_are_refused(net):
    assert "other features of an image when others stand beside it" in refusal(net)


@pytest.mark.parametrize(
    "net",
    [
        computing(lambda x: nn.functional.dropout(x.flatten(1), training=True)),
        computing(lambda x: x.flatten(1) + 0.01 * torch.rand(64)),
        Remembers(),
        Encoder(nn.Sequential(Remembers()), "mine", "0" * 64, (1, 8, 8), 64),
    ],
)
def test_features_that_are_others_each_time_are_refused(net):
    assert "other features of the same images the second time" in refusal(net)


@pytest.mark.parametrize(
    "net",
    [
        normed(),
        computing(standardised),  # of a gray image it makes no numbers
        computing(lambda x: x.flatten(1).bfloat16() @ torch.ones(64, 3).bfloat16()),
        computing(lambda x: 1000 + x.flatten(1)),
        computing(lambda x: 0 * x.flatten(1)),
    ],
)
def test_features_of_one_image_alone_are_believed(net):
    assert encode(opened(net), images()).isfinite().all()


def test_an_encoder_makes_as_many_features_as_it_says():
    said = refusal(Encoder(nn.Flatten(), "flat", "0" * 64, (1, 8, 8), 63))
    assert "encoder flat says dim=63 and makes 64 features" in said


@pytest.mark.parametrize("size", [np.int64(4), torch.tensor(4), np.array([4, 4]), [4, np.int32(4)]])
def test_a_whole_number_of_any_kind_is_a_size(size):
    assert encode(opened(with_attributes(size=size)), images()).shape == (3, 16)


def test_a_whole_number_of_any_kind_is_a_number_of_channels():
    assert encode(opened(with_attributes(channels=np.int64(3))), images()).shape == (3, 192)


def raises(self):
    raise RuntimeError("not\nhere")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"channels": 64}, "of 64 channels, photos has 1: the attribute channels of the module"),
        ({"channels": torch.tensor([1, 3])}, "its attribute channels must be a whole number, got"),
        ({"channels": "rgb"}, "its attribute channels must be a whole number, got 'rgb'"),
        ({"size": 3.5}, "size must be a side or (height, width), got 3.5"),
        ({"size": torch.zeros(40, 40)}, "size must be a side or (height, width), got tensor("),
        ({"range": torch.zeros(2, 2)}, "range must be (low, high) or 'uint8', got tensor("),
        ({"range": np.array([1, 0])}, "range must be (low, high) or 'uint8', got array("),
        ({"range": None}, "give the module an attribute range = (-1, 1)"),
    ],
)
def test_an_attribute_that_cannot_be_is_named(attributes, message):
    assert message in refusal(with_attributes(**attributes))


@pytest.mark.parametrize("name", ["range", "size", "channels"])
def test_an_attribute_that_raises_is_named(name):
    said = refusal(with_attributes(**{name: property(raises)}))
    assert f"mine: its attribute {name} cannot be read: not here" in said


class Convolving(nn.Module):
    """Two convolutions; `end` is a function of what they make, [b 4 4 4]."""

    range = (0, 1)

    def __init__(self, end):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3))
        self.end = end

    def forward(self, x):
        self.layout = self.layers(x).is_contiguous(memory_format=torch.channels_last)
        return self.end(self.layers(x))


def by_mean(x):
    return x.mean((2, 3))


def by_view(x):
    return x.view(len(x), -1)


def by_storage(x):
    return x.as_strided((len(x), 64), (64, 1))


@pytest.mark.parametrize(("end", "quick"), [(by_mean, True), (by_view, False), (by_storage, False)])
def test_convolutions_see_channels_last_unless_the_module_minds(end, quick):
    torch.manual_seed(0)
    net = Convolving(end)
    with torch.no_grad():
        expected = net(images() / 255)
    encoder = opened(net)
    assert torch.allclose(encode(encoder, images()), expected, atol=1e-6)
    assert net.layout is quick
    weight = net.layers[1].weight
    assert weight.is_contiguous() is not quick


def test_what_is_no_image_in_a_module_with_convolutions_stays_as_it_is():
    net = Convolving(by_mean)
    net.register_buffer("grid", torch.zeros(1, 1, 2, 2, 2))
    assert opened(net).layout == torch.channels_last
    assert net.grid.is_contiguous()


def test_a_module_may_write_into_its_images():
    class Writing(Convolving):
        def forward(self, x):
            return super().forward(x.sub_(0.5))

    assert opened(Writing(by_mean)).layout == torch.channels_last


def test_without_convolutions_nothing_is_turned():
    assert opened(Net()).layout == torch.preserve_format


def test_features_that_are_not_dense_are_refused():
    said = refusal(computing(lambda x: x.flatten(1).to_sparse()))
    assert "must return dense features, got torch.sparse_coo" in said
