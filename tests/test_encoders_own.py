"""Modules of one's own as encoders: any that says what it wants, none that makes no features."""

import sys
import textwrap

import pytest
import torch

from diffuse import config, features
from diffuse.data import ImageSet, ImageSpec, to_range
from diffuse.encoders import check_encoder, encode, open_encoder
from diffuse.errors import ConfigError

AUTO = {"name": "auto", "shipped": {"fashion_mnist": "0" * 64}, "size": 8}  # as composed
CODE = """
    import torch
    from torch import nn
    from diffuse.encoders import Encoder

    class Net(nn.Module):
        range = (0, 1)

        def forward(self, x):
            assert x.dtype == torch.float32
            return x.flatten(1)

    class Wide(nn.Module):
        range, channels, size = (-0.5, 0.5), 3, (10, 12)

        def __init__(self, depth=1):
            super().__init__()
            self.conv = nn.Conv2d(3, 4 * depth, 3)

        def forward(self, x):
            assert x.shape[1:] == (3, 10, 12)
            return self.conv(x).mean((2, 3))

    class Levels(nn.Module):
        range = "uint8"

        def forward(self, x):
            assert x.dtype == torch.uint8
            return x.float().flatten(1)

    class Constant(nn.Module):  # but for what float32 rounds away
        range = (0, 1)

        def forward(self, x):
            return 1e9 + x.double().flatten(1)[:, :6]

    class Silent(nn.Module):
        def forward(self, x):
            return x.flatten(1)

    def made(spec, bias):
        net = Net()
        net.register_buffer("bias", torch.tensor(float(bias)))
        return net

    class Gain(nn.Module):
        range = (0, 1)

        def __init__(self, gain=1.0, kind="attribute"):
            super().__init__()
            self.linear = nn.Linear(64, 6)
            self.gain = gain
            if kind == "buffer":
                self.register_buffer("unsaved", torch.tensor(SECRET), persistent=False)
            if kind == "tensor":
                self.unsaved = torch.tensor(SECRET)

        def forward(self, x):
            self.seen = self.gain * self.linear(x.flatten(1))
            return self.seen * getattr(self, "unsaved", 1)

    SECRET = 1.0  # changed by a test: no argument, no code

    def whole(spec, gain=1.0):
        return Encoder(Gain(gain), "mine", "0" * 64, (spec.channels, 8, 8), 6)

    ONE = Encoder(nn.Flatten(), "one", "0" * 64, (1, 2, 2), 4)

    def always():
        return ONE

    class flat(Net):
        def forward(self, x):
            return x

    def number():
        return 7

    class Fails(nn.Module):
        range = (0, 1)

        def forward(self, x):
            raise RuntimeError("of its own")

    class Integers(Net):
        def forward(self, x):
            return x.flatten(1).long()

    class Nan(Net):
        def forward(self, x):
            return x.flatten(1) / 0 * 0

    class BadRange(Net):
        range = (1, 0)

    class BadSize(Net):
        size = (0, 3)

    class Two(Net):
        channels = 2

    class Broken(Net):
        def __init__(self):
            super().__init__()
            torch.load("weights_that_are_not_there.pt")

    def colours():
        return Encoder(Net(), "mine", "0" * 64, (3, 8, 8), 192)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "my_encoders.py").write_text(textwrap.dedent(CODE))
    monkeypatch.syspath_prepend(tmp_path)
    config.trust("my_encoders")
    yield tmp_path / "my_encoders.py"
    config.trust(None)
    sys.modules.pop("my_encoders", None)


def spec_of(channels=1, side=8):
    return ImageSpec("photos", channels, side, side, side, side, "none", ())


def some_images(n=5, channels=1, side=8):
    random = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, channels, side, side), generator=random, dtype=torch.uint8)


def opened(name, channels=1, **keys):
    return open_encoder({"name": f"my_encoders:{name}", **keys}, spec_of(channels))


def test_a_module_gets_the_range_it_asks_for(package):
    images = some_images()
    encoder = opened("Net")
    torch.testing.assert_close(encode(encoder, images), to_range(images, (0, 1)).flatten(1))
    assert (encoder.name, encoder.dim) == ("my_encoders:Net", 64)
    assert torch.equal(encode(opened("Levels"), images), images.float().flatten(1))


def test_gray_is_repeated_and_resized_for_a_module_that_asks(package):
    encoder = opened("Wide", depth=2)
    images = some_images()
    assert encode(encoder, images).shape == (5, 8)
    record = encoder.record()
    assert (record["size"], record["channels"]) == ([10, 12], "1, gray repeated to 3")
    assert record["range"] == [-0.5, 0.5]
    colour = opened("Wide", channels=3, depth=2)
    torch.testing.assert_close(encode(colour, images.repeat(1, 3, 1, 1)), encode(encoder, images))


def test_uint8_stays_uint8_where_the_size_is_another(package):
    larger = encode(opened("Levels"), some_images(side=20))
    assert torch.equal(larger, larger.round())


def test_its_sha256_is_that_of_its_weights_and_its_code(package):
    assert opened("made", bias=1).sha256 == opened("made", bias=1).sha256
    assert opened("made", bias=1).sha256 != opened("made", bias=2).sha256
    state = torch.get_rng_state()
    one, two = opened("Wide"), opened("Wide")  # random weights are the same ones every time
    assert torch.equal(torch.get_rng_state(), state)
    assert one.sha256 == two.sha256 != opened("Wide", depth=2).sha256
    package.write_text(package.read_text().replace("mean((2, 3))", "amax((2, 3))"))
    assert opened("Wide").sha256 != one.sha256


@pytest.mark.parametrize("name", ["Gain", "whole"])
def test_an_argument_that_changes_no_weight_makes_another_encoder(package, name):
    one, two = opened(name, gain=2.0), opened(name, gain=3.0)
    assert one.sha256 == opened(name, gain=2.0).sha256 != two.sha256
    assert [e.record()["options"] for e in (one, two)] == [{"gain": 2.0}, {"gain": 3.0}]
    assert opened(name).record()["options"] == {}


@pytest.mark.parametrize("kind", ["buffer", "tensor"])
def test_a_tensor_that_no_file_would_hold_counts_and_what_it_made_of_an_image_does_not(
    package, kind, monkeypatch
):
    before = opened("Gain", kind=kind)
    encode(before, some_images())
    assert opened("Gain", kind=kind).sha256 == before.sha256
    monkeypatch.setattr(sys.modules["my_encoders"], "SECRET", 2.0)
    assert opened("Gain", kind=kind).sha256 != before.sha256


def test_features_of_code_from_outside_are_not_kept(package, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSE_CACHE", str(tmp_path / "cache"))
    images = ImageSet(spec_of(), some_images(), torch.zeros(5).long(), "sha", "a test", flip=False)
    order = torch.arange(5)
    one, two = (features.of(opened("Gain", gain=g), images, order, 5) for g in (1.0, 3.0))
    torch.testing.assert_close(two, 3 * one)
    assert not (tmp_path / "cache").exists()


def test_a_function_may_return_an_encoder_of_its_own_and_the_same_one_every_time(package):
    assert opened("whole").name == "mine"
    assert opened("always").sha256 == opened("always").sha256 != "0" * 64


def test_a_name_alone_is_enough_over_the_default_choice(package):
    node = {**AUTO, "name": "my_encoders:Net"}
    check_encoder(node)
    assert open_encoder(node, spec_of()).dim == 64
    with pytest.raises(ConfigError, match="unexpected argument 'data'"):
        check_encoder({**AUTO, "name": "my_encoders:Wide", "data": 3})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flat", r"flat must map images \[b c h w\] to \[b d\]: \[4, 1, 8, 8\] gave \[4, 1, 8, 8"),
        ("number", "number must be or return a torch.nn.Module, got int"),
        ("Fails", r"Fails failed on images \[4, 1, 8, 8\] torch.float32: of its own"),
        ("Integers", "must return a float tensor of features, got torch.int64"),
        ("Silent", r"Silent does not say .* give the module an attribute range = \(-1, 1\)"),
        ("Nan", "features that are not finite"),
        ("BadRange", r"range must be \(low, high\) or 'uint8', got \(1, 0\)"),
        ("BadSize", r"size must be a side or \(height, width\), got \(0, 3\)"),
        ("Two", "takes images of 2 channels, photos has 1"),
        ("colours", "encoder mine takes images of 3 channels, photos has 1"),
        ("Broken", "Broken cannot be made: .*No such file"),
        ("Absent", "my_encoders has no 'Absent'"),
    ],
)
def test_what_makes_no_features_is_refused_in_one_line(package, name, message):
    with pytest.raises(ConfigError, match=message) as refusal:
        opened(name)
    assert "\n" not in str(refusal.value)


def test_keys_and_trust_are_checked_before_any_image_is_seen(package):
    with pytest.raises(
        ConfigError, match=r"Wide got an unexpected argument 'deep'; .*it takes depth"
    ):
        check_encoder({"name": "my_encoders:Wide", "deep": 2})
    with pytest.raises(ConfigError, match="made: missing a required argument: 'bias'"):
        check_encoder({"name": "my_encoders:made"})
    with pytest.raises(ConfigError, match=r"encoder\.name=my_package.module:Net"):
        check_encoder({"name": "own"})
    config.trust(None)
    with pytest.raises(ConfigError, match="add trust=my_encoders"):
        check_encoder({"name": "my_encoders:Net"})


def test_the_command_line_takes_one_by_its_name_and_says_so_in_the_record(
    package, trained, diffuse
):
    line = "eval n=4 steps=2 kid_subset_size=2 kid_subsets=2 encoder.name=my_encoders:Net"
    record = diffuse.json(f"{line} trust=my_encoders")
    assert record["encoder"]["name"] == "my_encoders:Net"
    assert "add trust=my_encoders" in diffuse.error(line)
    assert "must map images" in diffuse.error(
        "eval n=4 encoder=own encoder.name=my_encoders:flat trust=my_encoders"
    )
    assert "my_package.module:Net" in diffuse.error("eval n=4 encoder=own")


def test_features_that_never_differ_are_refused_for_nothing_can_be_told_by_them(
    package, trained, diffuse
):
    line = "eval n=8 steps=2 metrics=[fid] encoder=own encoder.name=my_encoders:Constant"
    said = diffuse.error(f"{line} trust=my_encoders", code=3)
    assert "makes the same features of all 360 test images" in said


@pytest.mark.slow
def test_an_evaluation_by_code_from_outside_is_never_a_known_one(package, trained, diffuse):
    line = "eval n=8 steps=2 device=cpu kid_subsets=2 kid_subset_size=4 known=true encoder=own"
    words = "encoder.name=my_encoders:Gain trust=my_encoders +encoder.gain"
    found = [diffuse.json(f"{line} {words}={gain}") for gain in (1.0, 3.0, 1.0)]
    assert [record["folder"][-4:] for record in found] == ["v001", "v002", "v003"]
    one, two = (record["fid"] for record in found[:2])
    for number in ("value", "floor"):  # of the reference, too: nothing was left of the first gain
        assert two[number] == pytest.approx(9 * one[number], rel=1e-4)
    first, second = (record["folder"].split("eval/")[1] for record in found[:2])
    assert "encoder.options.gain is 1 and 3" in diffuse.error(f"compare {first} {second}")


def test_a_key_of_its_own_is_added_with_a_plus(package, trained, diffuse):
    words = "encoder=own encoder.name=my_encoders:Wide +encoder.depth=2 trust=my_encoders"
    record = diffuse.json(f"eval n=4 steps=2 kid_subset_size=2 kid_subsets=2 {words}")
    assert record["encoder"]["features"] == 8
