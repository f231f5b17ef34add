"""Encoders take uint8 and nothing else, do what their file says, and are refused once altered."""

from pathlib import Path

import pytest
import torch
import yaml

from diffuse.classifier import centred
from diffuse.config import build
from diffuse.data import ImageSpec, to_range
from diffuse.encoders import (
    encode,
    load_encoder,
    open_encoder,
    pixels,
)
from diffuse.errors import ConfigError
from diffuse.metrics import fid

CONF = Path(__file__).parent.parent / "conf"
SHIPPED = yaml.safe_load((CONF / "encoder/fashion_mnist.yaml").read_text())["sha256"]
FASHION = {"name": "fashion_mnist", "root": None, "fit": "none"}


def spec_of(name="fashion_mnist", channels=1, side=28):
    return ImageSpec(name, channels, side, side, side, side, "none", ("a", "b"))


def some_images(n, channels=1, side=28, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, channels, side, side), generator=random, dtype=torch.uint8)


@pytest.fixture(scope="module")
def shipped():
    return load_encoder("fashion_mnist", SHIPPED)


# --- what goes in --------------------------------------------------------------------------------


@pytest.mark.parametrize("range", [(-1, 1), (-0.5, 0.5), (0, 1)])
def test_the_lessons_mistake_of_a_wrong_range_cannot_be_made(shipped, range):
    with pytest.raises(TypeError, match=r"uint8 images in 0..255, got torch.float32: round with"):
        encode(shipped, to_range(some_images(4), range))


def test_that_mistake_would_have_been_a_large_one(shipped):
    real = some_images(200)
    halved = ((real.float() - 127.5) / 2 + 127.5).round().to(torch.uint8)
    assert fid(encode(shipped, halved), encode(shipped, real)) > 1


@pytest.mark.parametrize("shape", [(4, 3, 28, 28), (4, 28, 28, 1)])
def test_images_of_other_channels_are_refused_naming_both(shipped, shape):
    with pytest.raises(
        ValueError, match=rf"fashion_mnist-\w+ takes images of 1 channel, {shape[1]}"
    ):
        encode(shipped, torch.zeros(shape, dtype=torch.uint8))


def test_a_data_set_of_other_channels_is_refused_before_any_image_is_drawn():
    node = {"name": "classifier", "path": "fashion_mnist", "sha256": SHIPPED}
    with pytest.raises(ConfigError, match="takes images of 1 channel, cifar10 has 3"):
        build("encoder", node, spec_of("cifar10", channels=3))


def test_an_image_that_is_not_in_a_batch_and_no_images_at_all_are_refused(shipped):
    with pytest.raises(ValueError, match=r"\[b c h w\], got shape \[28, 28\]"):
        shipped(torch.zeros(28, 28, dtype=torch.uint8))
    with pytest.raises(ValueError, match="no images"):
        encode(shipped, some_images(0))


# --- what comes out ------------------------------------------------------------------------------


def test_a_feature_depends_on_its_image_alone_to_the_last_bit(shipped):
    images = some_images(70)
    all_at_once = encode(shipped, images, batch=32)
    assert all_at_once.shape == (70, shipped.dim)
    assert all_at_once.dtype == torch.float32
    assert torch.equal(encode(shipped, images[:5], batch=32), all_at_once[:5])
    assert torch.equal(encode(shipped, images.flip(0), batch=32), all_at_once.flip(0))
    torch.testing.assert_close(encode(shipped, images, batch=7), all_at_once)


def test_a_net_that_takes_few_at_once_sees_few_whatever_it_is_given(shipped):
    seen = []
    hook = shipped.net.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    shipped.most, before = 16, shipped.most
    features = encode(shipped, some_images(40))
    shipped.most = before
    hook.remove()
    assert seen == [16, 16, 16]
    assert torch.equal(features, encode(shipped, some_images(40), batch=16))


def test_a_long_wait_says_how_far_it_is(shipped, caplog, monkeypatch):
    caplog.set_level("INFO")
    encode(shipped, some_images(5), batch=2)
    assert caplog.messages == []
    monkeypatch.setattr("diffuse.encoders.encoder.PATIENCE", -1)
    encode(shipped, some_images(5), batch=2)
    said = [f"encoder {shipped.name}: {k} of 5 images" for k in (0, 2, 4)]
    assert caplog.messages == said


def test_the_callers_autocast_does_not_reach_an_encoder(shipped):
    with torch.autocast("cpu", torch.bfloat16):
        features = encode(shipped, some_images(4))
    assert torch.equal(features, encode(shipped, some_images(4)))


def test_the_record_holds_all_that_a_feature_depends_on(shipped):
    assert shipped.record() == {
        "name": "fashion_mnist-classifier",
        "sha256": SHIPPED,
        "size": [28, 28],
        "channels": 1,
        "filter": "bilinear antialias",
        "range": [-1, 1],
        "layer": "last",
        "features": 128,
    }


def test_encoding_leaves_no_graph_and_changes_no_running_statistics(shipped):
    before = {key: value.clone() for key, value in shipped.state_dict().items()}
    shipped.train()  # someone forgot it in this state, as lucidrains's FID did for months
    features = encode(shipped, some_images(3))
    assert not features.requires_grad
    assert torch.equal(features, encode(shipped, some_images(3)))
    assert all(torch.equal(value, before[key]) for key, value in shipped.state_dict().items())


def test_images_of_another_size_are_resized_with_antialias(shipped):
    images = some_images(8, side=84)
    smooth = torch.nn.functional.interpolate(
        images.float(), (28, 28), mode="bilinear", antialias=True
    )
    with torch.no_grad():
        expected = shipped.net(centred(smooth))
    torch.testing.assert_close(encode(shipped, images, batch=8), expected)


def test_pixels_are_the_pixels():
    encoder = pixels(spec_of(channels=3, side=8), size=8)
    images = some_images(5, channels=3, side=8)
    assert encoder.name == "pixels"
    torch.testing.assert_close(encode(encoder, images), to_range(images, (-1, 1)).flatten(1))
    gray = torch.full((2, 3, 40, 24), 51, dtype=torch.uint8)
    torch.testing.assert_close(encode(encoder, gray), torch.full((2, 3 * 64), -0.6))


def test_the_head_turns_stored_features_into_the_logits_of_the_network(shipped):
    images = some_images(6)
    logits = shipped.head(encode(shipped, images))
    assert logits.shape == (6, len(shipped.classes)) == (6, 10)


# --- which encoder -------------------------------------------------------------------------------


def test_auto_takes_the_shipped_encoder_where_there_is_one_and_is_loud_where_not(caplog):
    node = yaml.safe_load((CONF / "encoder/auto.yaml").read_text())
    assert build("encoder", node, spec_of()).name == "fashion_mnist-classifier"
    assert not caplog.records
    other = open_encoder(node, spec_of("cifar10", channels=3, side=32))
    assert (other.name, other.dim) == ("pixels", 192)
    assert "no encoder is shipped for cifar10" in caplog.text
    assert other.doubts == tuple(record.message for record in caplog.records)  # for every record
    assert "encoder=inception is there for images of any kind" in caplog.text  # no data set is
    assert "PIXELS" in caplog.text
    open_encoder(node, spec_of("cifar10", channels=3, side=32), data=["1", "2"])
    assert "`diffuse encoder` and the same words of dataset=" in caplog.records[-1].message
