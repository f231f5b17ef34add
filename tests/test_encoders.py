"""Encoders take uint8 and nothing else, do what their file says, and are refused once altered."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from diffuse.classifier import centred, new_classifier, round_weights
from diffuse.config import build
from diffuse.data import ImageSpec, open_dataset, to_range
from diffuse.data.sources import cache
from diffuse.encoders import (
    ASSETS,
    FILE,
    about_encoder,
    classifier,
    encode,
    load_encoder,
    open_encoder,
    pixels,
    save_encoder,
)
from diffuse.errors import ConfigError, DataError
from diffuse.metrics import fid, fid_interval
from diffuse.seeds import generator

torch.set_num_threads(1)

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


@pytest.fixture
def small(tmp_path):
    """The file of an encoder that has learned nothing."""
    net = new_classifier(channels=3, classes=2, width=8, blocks=(1, 1), seed=0).eval()
    round_weights(net)
    about = {"name": "small", "channels": 3, "height": 16, "width": 12, "classes": ["a", "b"]}
    save_encoder(tmp_path / "encoder.safetensors", net, about)
    return tmp_path / "encoder.safetensors", net


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


def test_a_data_set_of_other_channels_is_refused_before_any_image_is_drawn(small):
    with pytest.raises(ValueError, match="small takes images of 3 channels, fashion_mnist has 1"):
        classifier(spec_of(), path=str(small[0]), sha256=None)
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
    other = build("encoder", node, spec_of("cifar10", channels=3, side=32))
    assert (other.name, other.dim) == ("pixels", 192)
    assert "no encoder is shipped for cifar10" in caplog.text
    assert "`diffuse encoder dataset=cifar10`" in caplog.text
    assert "PIXELS" in caplog.text


def test_auto_takes_the_newest_encoder_that_was_trained_here_for_all_of_this_data(small, tmp_path):
    node = yaml.safe_load((CONF / "encoder/auto.yaml").read_text())
    spec = spec_of("cifar10", channels=3, side=32)
    other = {"channels": 3, "height": 16, "width": 12, "classes": ["a", "b"], "test_accuracy": 0.5}
    runs = [
        ("v001", "cifar10-classifier", {}),
        ("v002", "cifar10-classifier", {}),  # this one
        ("v003", "cifar10-classifier", {"smoke": True}),
        ("v004", "cifar10-classifier", {"status": "failed"}),
        ("v005", "cifar10-0123abcd-classifier", {}),  # of a part of the data
        ("v006", "photos-classifier", {}),
    ]
    for version, name, facts in runs:
        folder = tmp_path / "outputs/encoder/any" / version
        folder.mkdir(parents=True)
        facts = {"status": "done", "smoke": False, "started": version} | facts
        (folder / "run.json").write_text(json.dumps(facts))
        save_encoder(folder / FILE, small[1], {"name": name, "note": version, **other})
    encoder = open_encoder(node, spec, str(tmp_path / "outputs"))
    assert encoder.sha256 == load_encoder(tmp_path / "outputs/encoder/any/v002").sha256
    assert open_encoder(node, spec, str(tmp_path / "elsewhere")).name == "pixels"
    assert open_encoder(node, spec_of(), str(tmp_path / "outputs")).sha256 == SHIPPED


def test_the_shipped_file_is_small_good_and_the_one_that_the_yamls_pin():
    (file,) = ASSETS.glob("*.safetensors")
    about = about_encoder("fashion_mnist")
    pins = yaml.safe_load((CONF / "encoder/auto.yaml").read_text())["shipped"]
    assert file.stat().st_size <= 2_000_000
    assert hashlib.sha256(file.read_bytes()).hexdigest() == SHIPPED == pins["fashion_mnist"]
    assert about["test_accuracy"] >= 0.93
    assert about["training"]["command"].startswith("diffuse encoder dataset=fashion_mnist")
    assert len(about["data"]["train_sha256"]) == len(about["data"]["test_sha256"]) == 64


@pytest.mark.skipif(not (cache() / "fashion_mnist").is_dir(), reason="Fashion-MNIST is not cached")
def test_the_recorded_accuracy_is_true_on_a_thousand_test_images(shipped):
    share = _accuracy(shipped, 1000)
    assert share == pytest.approx(about_encoder("fashion_mnist")["test_accuracy"], abs=0.025)


@pytest.mark.slow
def test_the_recorded_accuracy_and_data_are_those_of_the_test_split(shipped):
    about = about_encoder("fashion_mnist")
    assert open_dataset(FASHION, "test").sha256 == about["data"]["test_sha256"]
    assert _accuracy(shipped, 10_000) == pytest.approx(about["test_accuracy"], abs=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("sigma", "most"), [(0.0, 1.0), (0.7, 0.99)])
def test_the_interval_of_a_fid_covers_its_mean_over_splits_of_real_images(shipped, sigma, most):
    train, test = open_dataset(FASHION, "train"), open_dataset(FASHION, "test")
    images = train.images[torch.randperm(60_000, generator=generator(0))]
    if sigma:
        kernel = torch.exp(-(torch.arange(-2, 3) ** 2) / (2 * sigma**2))
        kernel = (kernel / kernel.sum()).outer(kernel / kernel.sum())[None, None]
        blurred = torch.nn.functional.conv2d(images.float(), kernel, padding=2)
        images = blurred.round().to(torch.uint8)
    reference = encode(shipped, test.images)
    tables = encode(shipped, images).split(500)
    mean = sum(fid(table, reference) for table in tables) / len(tables)
    intervals = [fid_interval(table, reference) for table in tables]
    share = sum(i.low <= mean <= i.high for i in intervals) / len(intervals)
    assert 0.9 <= share <= most


def _accuracy(encoder, n):
    test = open_dataset(FASHION, "test")
    logits = encoder.head(encode(encoder, test.images[:n]))
    return float((logits.argmax(1) == test.labels[:n]).double().mean())


# --- files ---------------------------------------------------------------------------------------


def test_a_saved_encoder_computes_the_same_features_again(small):
    file, net = small
    images = some_images(9, channels=3, side=20)[..., :16]
    encoder = load_encoder(file.parent)  # its folder will do
    resized = torch.nn.functional.interpolate(
        images.float(), (16, 12), mode="bilinear", antialias=True
    )
    with torch.no_grad():
        assert torch.equal(encode(encoder, images, batch=9), net(centred(resized)))
    assert (encoder.name, encoder.classes, encoder.dim) == ("small", ("a", "b"), 16)
    assert encoder.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_the_same_encoder_is_the_same_bytes(small, tmp_path):
    file, net = small
    about = {"name": "small", "channels": 3, "height": 16, "width": 12, "classes": ["a", "b"]}
    again = save_encoder(tmp_path / "again.safetensors", net, about)
    assert again == hashlib.sha256(file.read_bytes()).hexdigest()


def test_one_changed_byte_anywhere_is_noticed(small, tmp_path):
    content = bytearray(small[0].read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    for place in (header, len(content) - 1, (header + len(content)) // 2):
        altered = bytearray(content)
        altered[place] ^= 1
        (tmp_path / "altered.safetensors").write_bytes(altered)
        with pytest.raises(DataError, match=r"altered.safetensors is altered"):
            load_encoder(tmp_path / "altered.safetensors")


def test_an_altered_shipped_file_is_refused_by_its_sha256(tmp_path, monkeypatch):
    shutil.copy(ASSETS / "fashion_mnist.safetensors", tmp_path)
    content = bytearray((tmp_path / "fashion_mnist.safetensors").read_bytes())
    name = content.index(b"T-shirt")
    content[name : name + 7] = b"Trouser"  # in the header, which the weights' own hash leaves out
    (tmp_path / "fashion_mnist.safetensors").write_bytes(content)
    monkeypatch.setattr("diffuse.encoders.trained.ASSETS", tmp_path)
    for name in ("auto", "fashion_mnist"):
        node = yaml.safe_load((CONF / f"encoder/{name}.yaml").read_text())
        with pytest.raises(
            DataError, match=rf"fashion_mnist.safetensors is altered.*not {SHIPPED}"
        ):
            build("encoder", node, spec_of())


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_a_file_cut_short_is_refused(small, tmp_path, share):
    content = small[0].read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"cut.safetensors is damaged"):
        load_encoder(tmp_path / "cut.safetensors")


def test_a_file_of_something_else_and_a_missing_one_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match="is no encoder"):
        load_encoder(tmp_path / "other.safetensors")
    with pytest.raises(DataError, match=r"no encoder at .*nowhere"):
        load_encoder(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"encoder: path must name a .safetensors file"):
        build("encoder", {"name": "classifier", "path": None, "sha256": None}, spec_of())
    with pytest.raises(ConfigError, match="encoder: size must be at least 1, got 0"):
        build("encoder", {"name": "pixels", "size": 0}, spec_of())
