"""Inception-v3 on random weights: the features that torch-fidelity and pytorch-fid make of them."""

import hashlib
import os

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_fid import inception as pytorch_fid
from safetensors.torch import save_file
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from diffuse.data import ImageSpec
from diffuse.encoders import encode, inception, published, resizing
from diffuse.encoders.choices import RESIZES
from diffuse.encoders.inception import Inception, with_weights
from diffuse.errors import DataError
from diffuse.scoring import rows_of


def spec_of(channels):
    return ImageSpec("photos", channels, 40, 33, 40, 33, "none", ())


def some_images(n=2, channels=3, height=40, width=33):
    random = torch.Generator().manual_seed(1)
    return torch.randint(256, (n, channels, height, width), generator=random, dtype=torch.uint8)


def random_weights():
    """Of the published layout; every statistic differs from what an untouched layer has."""
    random = torch.Generator().manual_seed(0)
    found = {}
    for name, layer in Inception().named_modules():
        if isinstance(layer, torch.nn.Conv2d):
            name = name.removeprefix("stem.").removeprefix("blocks.")
            shape, c = layer.weight.shape, layer.out_channels
            gain = (2 / shape[1:].numel()) ** 0.5
            found[f"{name}.conv.weight"] = gain * torch.randn(shape, generator=random)
            for word in ("bias", "running_mean"):
                found[f"{name}.bn.{word}"] = 0.1 * torch.randn(c, generator=random)
            for word in ("weight", "running_var"):
                found[f"{name}.bn.{word}"] = 0.5 + torch.rand(c, generator=random)
            found[f"{name}.bn.num_batches_tracked"] = torch.tensor(0)
    found["fc.weight"] = 0.02 * torch.randn(1008, 2048, generator=random)
    found["fc.bias"] = torch.randn(1008, generator=random)
    return found


@pytest.fixture(scope="module")
def weights():
    return random_weights()


@pytest.fixture(scope="module")
def file(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(weights, path)
    return path


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def close(ours, theirs):
    """To the rounding of float32, sixty layers deep."""
    return float((ours - theirs).abs().max() / theirs.abs().max()) < 3e-6


# --- the same numbers ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_features_and_logits_are_those_of_torch_fidelity(file, channels):
    theirs = FeatureExtractorInceptionV3("x", ["2048", "logits", "logits_unbiased"], str(file))
    images = some_images(channels=channels)
    ours = inception(spec_of(channels), str(file), sha256(file), "tf")
    with torch.no_grad():
        features, logits, unbiased = theirs(images.expand(-1, 3, -1, -1))
    got = encode(ours, images, batch=2)
    assert got.shape == (2, 2048)
    assert close(got, features)
    assert close(ours.net.head(got), logits)
    assert close(ours.head(got), unbiased)
    probabilities = rows_of(ours, images).probabilities  # what an inception score is of
    assert probabilities is not None
    torch.testing.assert_close(probabilities.float(), unbiased.softmax(1), atol=1e-6, rtol=1e-4)
    assert not probabilities.float().allclose(logits.softmax(1), atol=1e-4)
    assert (features.std(0) > 1e-3).float().mean() > 0.5  # they see the image


@pytest.mark.slow
def test_features_are_those_of_pytorch_fid(file, weights, monkeypatch):
    monkeypatch.setattr(pytorch_fid, "load_state_dict_from_url", lambda *_, **__: weights)
    theirs, images = pytorch_fid.InceptionV3().eval(), some_images()
    with torch.no_grad():
        features = theirs(images / 255)[0].flatten(1)
    ours = {way: inception(spec_of(3), str(file), sha256(file), way) for way in RESIZES}
    assert close(encode(ours["pytorch_fid"], images, batch=2), features)
    for other in ("tf", "clean"):  # which resizing it is, matters
        assert not close(encode(ours[other], images, batch=2), features)


@pytest.mark.parametrize("side", [28, 32, 299, 512])
def test_tf_resizes_as_tensorflow_1_did(side):
    x = some_images(height=side, width=side + 3).float()
    theirs = interpolate_bilinear_2d_like_tensorflow1x(x, (299, 299), align_corners=False)
    torch.testing.assert_close(RESIZES["tf"].resize(x, (299, 299)), theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("side", [28, 32, 512])
def test_clean_resizes_as_pillow_does_on_floats(side):
    x = some_images(1, height=side, width=side + 3).float()
    planes = [Image.fromarray(plane.numpy(), "F") for plane in x[0]]
    resized = [np.asarray(plane.resize((299, 299), Image.Resampling.BICUBIC)) for plane in planes]
    theirs = torch.from_numpy(np.stack(resized).clip(0, 255))[None]
    torch.testing.assert_close(RESIZES["clean"].resize(x, (299, 299)), theirs, atol=5e-3, rtol=0)


def test_each_way_scales_as_its_tool_does_and_has_words_of_its_own():
    levels = torch.tensor([0.0, 128, 255])
    for way, expected in [
        ("tf", [-1, 0, 127 / 128]),
        ("clean", [-1, 0, 127 / 128]),
        ("pytorch_fid", [-1, 1 / 255, 1]),
    ]:
        scaled = RESIZES[way].scale(levels)
        torch.testing.assert_close(scaled, torch.tensor(expected))
        assert (float(scaled[0]), float(scaled[2])) == pytest.approx(RESIZES[way].range)
    assert len({how.filter for how in RESIZES.values()}) == 3


def test_tensorflow_1_takes_the_corner_where_others_take_the_centre():
    ramp = torch.arange(4.0).view(1, 1, 1, 4).repeat(1, 1, 4, 1)
    corner = resizing.tensorflow1(ramp, (4, 8))[0, 0, 0]
    assert corner.tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]
    assert resizing.half_pixel(ramp, (4, 8))[0, 0, 0, 1] == 0.25


# --- the file ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_weights_of_no_published_file_are_taken_under_another_name(file, weights, tmp_path, caplog):
    save_file(weights, tmp_path / "again.safetensors")
    again = inception(spec_of(3), str(tmp_path / "again.safetensors"), None, "clean")
    digest = sha256(tmp_path / "again.safetensors")
    assert (again.name, again.sha256) == (f"inception-{digest[:8]}", digest)
    assert "none of the published files" in caplog.text
    caplog.clear()
    known = inception(spec_of(3), str(file), sha256(file).upper(), "clean")
    assert not caplog.records
    assert all(map(torch.equal, known.net.parameters(), again.net.parameters()))


@pytest.mark.slow
def test_an_edition_is_known_by_its_whole_sha256(file, monkeypatch, caplog):
    assert [len(known) for known in published.EDITIONS] == [64]
    digest = sha256(file)
    monkeypatch.setattr(published, "EDITIONS", {digest: "mine"})
    assert inception(spec_of(3), str(file), None, "tf").name == "mine"
    assert not caplog.records
    monkeypatch.setattr(published, "EDITIONS", {digest[:8] + 56 * "0": "mine"})
    assert inception(spec_of(3), str(file), None, "tf").name == f"inception-{digest[:8]}"
    assert "none of the published files" in caplog.text


def test_the_record_says_which_layer_and_what_was_done_to_the_images(file):
    gray = inception(spec_of(1), str(file), sha256(file), "clean").record()
    assert gray["channels"] == "1, gray repeated to 3"
    assert (gray["size"], gray["layer"], gray["features"]) == ([299, 299], "pool3", 2048)
    assert gray["filter"] == "Pillow bicubic antialias, clipped"


def test_a_file_that_is_not_what_it_says_is_refused(file, tmp_path):
    named = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    named.write_bytes(b"something else")
    with pytest.raises(DataError, match=r"is altered: by its name sha256 is 6726825d"):
        inception(spec_of(3), str(named), None, "tf")
    with pytest.raises(DataError, match=rf"another edition: sha256 {sha256(file)}, not 0000"):
        inception(spec_of(3), str(file), "0" * 64, "tf")
    with pytest.raises(DataError, match=r"no weights at .*nowhere.pth"):
        inception(spec_of(3), str(tmp_path / "nowhere.pth"), None, "tf")
    with pytest.raises(ValueError, match="path must name a file of weights"):
        inception(spec_of(3), None, None, "tf")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("fc.bias", None, "fc.bias is missing"),
        ("AuxLogits.fc.bias", torch.zeros(1), "AuxLogits.fc.bias has no place in it"),
        ("fc.weight", torch.zeros(1000, 2048), r"fc.weight is \[1000, 2048\], not \[1008, 2048\]"),
        ("Mixed_7c.branch1x1.bn.running_var", torch.full((320,), -1.0), "holds what cannot be"),
        ("Mixed_5b.branch_pool.bn.bias", torch.full((32,), torch.nan), "holds what cannot be"),
    ],
)
def test_weights_of_another_network_are_refused_naming_the_first(weights, key, value, message):
    other = {k: v for k, v in (weights | {key: value}).items() if v is not None}
    with pytest.raises(ValueError, match=message):
        with_weights(other)


def test_so_is_a_file_of_them(weights, tmp_path):
    save_file({"fc.bias": weights["fc.bias"]}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match="no Inception-v3 of the FID edition: Conv2d_1a_3x3"):
        inception(spec_of(3), str(tmp_path / "other.safetensors"), None, "tf")
    torch.save({"fc.bias": weights["fc.bias"], "step": 3}, tmp_path / "other.pt")
    with pytest.raises(DataError, match=r"other\.pt holds no table of tensors: step is int"):
        inception(spec_of(3), str(tmp_path / "other.pt"), None, "tf")


def test_images_of_two_channels_are_refused(file):
    with pytest.raises(ValueError, match="takes images of 3 channels, photos has 2"):
        inception(spec_of(2), str(file), sha256(file), "tf")


class Evil:
    """Leaves a folder behind as soon as it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_file_that_would_run_code_is_refused_and_runs_none(trained, diffuse, tmp_path):
    mark = tmp_path / "it-ran"
    torch.save({"fc.bias": torch.zeros(2), "x": Evil(mark)}, tmp_path / "evil.pth")
    line = "eval n=4 steps=2 encoder=inception encoder.path=evil.pth"
    assert "needs code to be run" in diffuse.error(line, code=3)
    assert not mark.exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert mark.exists()  # it would have
