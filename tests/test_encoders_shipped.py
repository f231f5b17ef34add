"""The encoder in the package: what its file says of itself is true, and holds on real images."""

import hashlib
import shutil
from pathlib import Path

import pytest
import yaml

from diffuse.config import build
from diffuse.data import ImageSpec, open_dataset
from diffuse.data.sources import cache
from diffuse.encoders import ASSETS, about_encoder, encode, load_encoder
from diffuse.errors import DataError

CONF = Path(__file__).parent.parent / "conf"
SHIPPED = yaml.safe_load((CONF / "encoder/fashion_mnist.yaml").read_text())["sha256"]
SPEC = ImageSpec("fashion_mnist", 1, 28, 28, 28, 28, "none", ("a", "b"))
FASHION = {"name": "fashion_mnist", "root": None, "fit": "none"}


@pytest.fixture(scope="module")
def shipped():
    return load_encoder("fashion_mnist", SHIPPED)


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


def _accuracy(encoder, n):
    test = open_dataset(FASHION, "test")
    logits = encoder.head(encode(encoder, test.images[:n]))
    return float((logits.argmax(1) == test.labels[:n]).double().mean())


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
            build(
                "encoder", node, ImageSpec("fashion_mnist", 1, 28, 28, 28, 28, "none", ("a", "b"))
            )
