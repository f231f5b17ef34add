"""Other batches, threads and devices: other last bits, the same numbers, and the record says so."""

import numpy as np
import pytest
import torch

from diffuse import conditions
from diffuse.classifier import new_classifier
from diffuse.data import open_dataset
from diffuse.encoders import encode, load_encoder, save_encoder
from diffuse.metrics import fid

CLOSE = 1e-4  # of the number itself
WAYS = {  # images at once, threads, device
    "few images at once": (7, 1, "cpu"),
    "more threads": (64, 2, "cpu"),
    "both": (33, 3, "cpu"),
} | ({"a GPU": (64, 1, "cuda")} if torch.cuda.is_available() else {})


@pytest.fixture
def threads():
    """Set how many compute; afterwards it is as it was."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """An encoder for digits that has learned nothing."""
    net = new_classifier(channels=1, classes=2, width=16, blocks=(1, 1, 2), seed=0).eval()
    about = {"name": "small", "channels": 1, "height": 8, "width": 8, "classes": ["a", "b"]}
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    save_encoder(path, net, about)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_features_and_their_fid_agree_whatever_computes_them(way, file, threads):
    data, (batch, many, device) = open_dataset({"name": "digits"}, "train"), WAYS[way]
    images, others = data.images[:150], data.images[150:500]
    encoder = load_encoder(file)
    threads(1)
    features, reference = (encode(encoder, some, 64) for some in (images, others))
    expected = fid(features, reference)
    threads(many)
    again, encoder = conditions.machine(torch.device(device)), encoder.to(device)
    assert again["threads"] == many
    found = [encode(encoder, some, batch) for some in (images, others)]
    assert (found[0] - features).abs().max() <= CLOSE * features.abs().max()
    assert fid(*found) == pytest.approx(expected, rel=CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("way", [way for way in WAYS if way != "a GPU"])
def test_an_evaluation_agrees_and_its_record_says_what_computed_it(
    way, file, threads, trained, diffuse
):
    words = f"n=70 steps=5 metrics=fid precision=fp32 encoder=classifier encoder.path={file}"
    words += " device=cpu save=npy"
    batch, many, _ = WAYS[way]
    threads(1)
    one = diffuse.json(f"eval {words} batch=64")
    threads(many)
    other = diffuse.json(f"eval {words} batch={batch}")
    assert other["shards"]["known"] == 0  # nothing was taken from the first
    for number in ("value", "floor"):
        assert other["fid"][number] == pytest.approx(one["fid"][number], rel=CLOSE)
    assert (one["sampler"]["batch"], one["threads"]) == (64, 1)
    assert (other["sampler"]["batch"], other["threads"]) == (batch, many)
    images = [np.load(f"{record['folder']}/images.npy").astype(int) for record in (one, other)]
    assert np.abs(images[0] - images[1]).max() <= 1  # a level, where the last bit decides rounding
    assert (images[0] == images[1]).mean() > 0.99
