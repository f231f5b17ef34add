"""Files of encoders: the same again from the same bytes, refused once they are altered."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
import yaml

from diffuse.classifier import centred, new_classifier, round_weights
from diffuse.config import build
from diffuse.data import ImageSpec
from diffuse.encoders import FILE, classifier, encode, load_encoder, open_encoder, save_encoder
from diffuse.errors import ConfigError, DataError
from diffuse.seeds import generator

torch.set_num_threads(1)

CONF = Path(__file__).parent.parent / "conf"


def spec_of(name="fashion_mnist", channels=1, side=28):
    return ImageSpec(name, channels, side, side, side, side, "none", ("a", "b"))


@pytest.fixture
def small(tmp_path):
    """The file of an encoder that has learned nothing."""
    net = new_classifier(channels=3, classes=2, width=8, blocks=(1, 1), seed=0).eval()
    round_weights(net)
    about = {"name": "small", "channels": 3, "height": 16, "width": 12, "classes": ["a", "b"]}
    save_encoder(tmp_path / "encoder.safetensors", net, about)
    return tmp_path / "encoder.safetensors", net


def test_a_saved_encoder_computes_the_same_features_again(small):
    file, net = small
    images = torch.randint(256, (9, 3, 20, 16), dtype=torch.uint8, generator=generator(0))
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


def test_a_file_for_other_channels_is_refused(small):
    with pytest.raises(ValueError, match="small takes images of 3 channels, fashion_mnist has 1"):
        classifier(spec_of(), path=str(small[0]), sha256=None)


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
    assert open_encoder(node, spec_of(), str(tmp_path / "outputs")).name.startswith("fashion")
