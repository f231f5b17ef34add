"""Files of encoders: the same again from the same bytes, refused once they are altered."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save

from diffuse.classifier import centred, new_classifier, round_weights
from diffuse.config import build
from diffuse.data import ImageSpec
from diffuse.encoders import (
    FILE,
    about_encoder,
    classifier,
    doubts,
    encode,
    load_encoder,
    open_encoder,
    save_encoder,
)
from diffuse.encoders.trained import trained_here
from diffuse.errors import ConfigError, DataError
from diffuse.seeds import generator

CONF = Path(__file__).parent.parent / "conf"


def spec_of(name="fashion_mnist", channels=1, side=28):
    return ImageSpec(name, channels, side, side, side, side, "none", ("a", "b"))


@pytest.fixture
def small(tmp_path):
    """The file of an encoder that has learned nothing but its normalisations' statistics."""
    net = new_classifier(channels=3, classes=2, width=8, blocks=(1, 1), seed=0)
    net(torch.randn(8, 3, 16, 12, generator=generator(1)) * 3 + 1)
    net.eval()
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
        expected = net(centred(resized))
    assert torch.allclose(encode(encoder, images, batch=9), expected, rtol=1e-5, atol=1e-6)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in encoder.modules())
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
    other = {"channels": 3, "height": 16, "width": 12, "classes": ["a", "b"], "test_accuracy": 0.9}
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


@pytest.mark.parametrize("damage", [{"nbme": "x"}, {"name": "x", "cha": 3}, []])
def test_a_damaged_encoder_that_was_trained_here_stops_no_evaluation(damage, tmp_path):
    folder = tmp_path / "encoder/any/v001"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"status": "done", "started": "1"}))
    facts = {"schema": 1, **damage} if isinstance(damage, dict) else damage
    content = save({"w": torch.zeros(1)}, {"diffuse": json.dumps(facts)})
    (folder / FILE).write_bytes(content)
    assert [*trained_here(tmp_path, spec_of())] == []
    with pytest.raises(DataError, match="is no encoder of this version"):
        load_encoder(folder)


@pytest.mark.parametrize(("classes", "least"), [(2, 0.707), (10, 0.316), (100, 0.1)])
def test_an_encoder_is_doubted_that_is_nearer_to_chance_than_to_certainty(classes, least):
    about = {"name": "some-classifier", "classes": [*range(classes)]}
    assert doubts(about) == ()  # an older file does not say
    assert doubts(about | {"test_accuracy": least + 0.001}) == ()
    (said,) = doubts(about | {"test_accuracy": least - 0.001})
    assert f"on {least - 0.001:.1%} of its test images, chance on {1 / classes:.1%}" in said


def test_where_most_images_are_of_one_class_it_takes_more_than_to_call_all_by_it():
    about = {"name": "some-classifier", "classes": ["a", "b"], "chance": 0.9}
    (said,) = doubts(about | {"test_accuracy": 0.9})
    assert "it is right on 90.0% of its test images, chance on 90.0%" in said
    assert doubts(about | {"test_accuracy": 0.95}) == ()


def test_auto_passes_over_what_learnt_too_little_and_a_path_to_it_is_a_warning(
    small, tmp_path, caplog
):
    node = yaml.safe_load((CONF / "encoder/auto.yaml").read_text())
    spec = spec_of("cifar10", channels=3, side=32)
    data = {"train_sha256": "mine", "test_sha256": "tests"}
    for version, share in (("v001", 0.9), ("v002", 0.6), ("v003", 0.5)):
        folder = tmp_path / "encoder/any" / version
        folder.mkdir(parents=True)
        facts = {"status": "done", "smoke": False, "started": version}
        (folder / "run.json").write_text(json.dumps(facts))
        about = {"name": "cifar10-classifier", "channels": 3, "height": 16, "width": 12}
        about |= {"classes": ["a", "b"], "test_accuracy": share, "data": data}
        save_encoder(folder / FILE, small[1], about)
    found = open_encoder(node, spec, str(tmp_path), ("mine", "tests"))
    assert (found.sha256, found.doubts) == (load_encoder(tmp_path / "encoder/any/v001").sha256, ())
    passed = [line for line in caplog.messages if "is passed over" in line]
    assert [line.split(" ")[0][-4:] for line in passed] == ["v003", "v002"]
    caplog.clear()
    shutil.rmtree(tmp_path / "encoder/any/v001")
    assert open_encoder(node, spec, str(tmp_path), ("mine", "tests")).name == "pixels"
    assert sum("is passed over" in line for line in caplog.messages) == 2  # each once
    caplog.clear()
    node = {"name": "classifier", "path": str(tmp_path / "encoder/any/v003"), "sha256": None}
    found = open_encoder(node, spec)
    assert caplog.messages == [*found.doubts]
    assert "learnt too little: it is right on 50.0%" in caplog.messages[0]


def test_auto_takes_the_encoder_of_exactly_this_data_whatever_it_is_called(small, tmp_path, caplog):
    node = yaml.safe_load((CONF / "encoder/auto.yaml").read_text())
    for version, name, data in [
        ("v001", "fashion_mnist-0123abcd-classifier", ("mine", "tests")),
        ("v002", "cifar10-classifier", ("cifar", "its tests")),
        ("v003", "cifar10-4567abcd-classifier", ("a part", "its tests")),
    ]:
        folder = tmp_path / "encoder/any" / version
        folder.mkdir(parents=True)
        facts = {"status": "done", "smoke": False, "started": version}
        (folder / "run.json").write_text(json.dumps(facts))
        about = {"channels": 3, "height": 16, "width": 12, "classes": ["a", "b"]}
        about |= {"name": name, "test_accuracy": 0.9}
        about |= {"data": {"train_sha256": data[0], "test_sha256": data[1]}}
        save_encoder(folder / FILE, small[1], about)

    def opened(name, *data):
        found = open_encoder(node, spec_of(name, channels=3), str(tmp_path), data)
        return found.name, found.at_home

    assert opened("other", "mine", "tests") == ("fashion_mnist-0123abcd-classifier", True)
    assert opened("cifar10", "cifar", "its tests") == ("cifar10-classifier", True)
    assert opened("cifar10", "another part", "its tests") == ("cifar10-classifier", True)
    assert opened("cifar10", "mine", "tests") == ("fashion_mnist-0123abcd-classifier", True)
    assert opened("cifar10", "others", "at all") == ("cifar10-classifier", False)
    assert opened("other", "others", "at all") == ("pixels", False)
    # in colour: what is shipped for data of this name has seen gray ones
    assert opened("fashion_mnist", "mine", "tests") == ("fashion_mnist-0123abcd-classifier", True)
    assert opened("fashion_mnist", "others", "at all") == ("pixels", False)
    assert "no encoder is shipped for fashion_mnist: " in caplog.messages[-1]


def test_the_shipped_encoder_is_at_home_with_the_published_images_only(small, tmp_path):
    node = yaml.safe_load((CONF / "encoder/auto.yaml").read_text())
    published = [*about_encoder("fashion_mnist")["data"].values()]
    assert open_encoder(node, spec_of(), None, published).at_home
    assert not open_encoder(node, spec_of(), None, ["0", "1"]).at_home


@pytest.mark.slow
def test_auto_finds_what_was_trained_on_a_folder_that_is_called_like_another_data_set(
    diffuse, tmp_path
):
    images = torch.randint(256, (40, 12, 12), dtype=torch.uint8, generator=generator(0)).numpy()
    for k, image in enumerate(images):
        home = tmp_path / "photos/cifar10" / "ab"[k % 2]
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image // 4 + 190 * (k % 2)).save(home / f"{k}.png")  # dark ones and bright
    np.save(tmp_path / "theirs.npy", images[:4, None])
    data = "dataset=folder dataset.root=photos/cifar10 dataset.test=0.5"
    before = diffuse.json(f"eval images=theirs.npy {data} metrics=fid")
    assert before["encoder"]["name"] == "pixels"
    assert "`diffuse encoder` and the same words of dataset=" in diffuse.err
    line = f"encoder {data} epochs=1 width=8 batch=10 device=cpu"
    assert diffuse(line) == 0, diffuse.err
    record = diffuse.json(f"eval images=theirs.npy {data} metrics=fid")
    assert record["encoder"]["name"].startswith("cifar10-")
    assert record["encoder"]["name"].endswith("-classifier")
    assert not [line for line in record["warnings"] if "other images" in line]


def test_a_folder_of_that_name_is_measured_by_it_with_a_warning(diffuse, tmp_path):
    images = torch.randint(256, (9, 28, 28), dtype=torch.uint8, generator=generator(0)).numpy()
    (tmp_path / "fashion_mnist").mkdir()
    for k, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"fashion_mnist/{k}.png")
    np.save(tmp_path / "theirs.npy", images[:4, None])
    words = "dataset=folder dataset.root=fashion_mnist dataset.test=0.5 metrics=fid"
    record = diffuse.json(f"eval images=theirs.npy {words}")
    assert record["encoder"]["name"] == "fashion_mnist-classifier"
    said = "encoder fashion_mnist-classifier was trained on other images than fashion_mnist, whose"
    assert any(said in line for line in record["warnings"])


def test_an_encoder_of_other_images_is_said_wherever_a_fid_is_measured(trained, tiny, diffuse):
    net = new_classifier(channels=1, classes=2, width=8, blocks=(1, 1), seed=0).eval()
    about = {"name": "small", "channels": 1, "height": 8, "width": 8, "classes": ["a", "b"]}
    save_encoder(Path("small.safetensors"), net, about | {"data": {"train_sha256": "another"}})
    words = "encoder=classifier encoder.path=small.safetensors device=cpu"
    said = "the encoder small was trained on other images than digits, whose sha256 is"
    for line in (
        "plot fid_trajectory n=8 steps=1",
        "plot preprocessing dataset=digits n=8",
    ):
        assert any(said in one for one in diffuse.json(f"{line} {words}")["warnings"]), line
    line = f"train {tiny} {words} train.steps=1 train.sample_every=null train.eval_every=1"
    assert diffuse(f"{line} train.eval_n=8") == 0, diffuse.err
    assert said in diffuse.err
