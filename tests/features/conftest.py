"""Real images, an encoder, what it was called on, and an empty cache."""

import pytest
import torch

from diffuse import features
from diffuse.classifier import Classifier
from diffuse.data import ImageSet, ImageSpec
from diffuse.encoders import Encoder, encode


@pytest.fixture
def real():
    """600 images: two batches of the encoder and a part of a third."""
    random = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (600, 1, 8, 8), generator=random, dtype=torch.uint8)
    spec = ImageSpec("noise", 1, 8, 8, 8, 8, "none", ("a", "b"))
    return ImageSet(spec, images, torch.arange(600) % 2, "sha", "a test", flip=False)


@pytest.fixture
def make_encoder():
    def make(seed=0, sha256="weights"):
        torch.manual_seed(seed)
        net = Classifier(channels=1, classes=2, width=8, blocks=[1, 1])
        return Encoder(net, "tiny", sha256, (1, 8, 8), net.dim, net.head, ("a", "b"))

    return make


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """The folder of the cache, empty."""
    monkeypatch.setenv("DIFFUSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/features"


@pytest.fixture
def encoded(monkeypatch):
    """How many images went through the encoder, by call."""
    sizes = []

    def counted(encoder, images, *more):
        sizes.append(len(images))
        return encode(encoder, images, *more)

    monkeypatch.setattr(features, "encode", counted)
    return sizes
