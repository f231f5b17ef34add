"""What every evaluation says of its numbers, and of what it needs for them."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from diffuse import assembly
from diffuse.classifier import new_classifier
from diffuse.commands.evaluating import judging
from diffuse.data import open_dataset
from diffuse.encoders import Encoder, encode, pixels
from diffuse.errors import DataError
from diffuse.metrics import Moments
from diffuse.scoring import Real, rows_of

CURVE = "eval device=cpu encoder=pixels dataset=digits images=theirs.npy"


@pytest.fixture
def theirs(tmp_path):
    """1,100 real digits as an .npy."""
    images = open_dataset({"name": "digits"}, "train").images[:1100, 0].numpy()
    np.save(tmp_path / "theirs.npy", images)


def test_with_too_few_images_for_infinity_the_curve_is_there_and_the_number_that_it_takes(
    theirs, diffuse
):
    record = diffuse.json(f"{CURVE} metrics=[fid,infinity] n=600")
    assert [point[0] for point in record["curves"]["fid"]] == [256, 512, 600]
    assert record["curves"]["fid"][-1][1] == pytest.approx(record["fid"]["value"])
    assert "fid_infinity" not in record["metrics"]
    [said] = [line for line in diffuse.err.splitlines() if "infinite n" in line]
    assert said == "warning: FID at infinite n needs 1,000 images: only the curve by n is shown"
    enough = diffuse.json(f"{CURVE} metrics=[fid,infinity] n=1000")
    assert "fid_infinity" in enough["metrics"]
    assert "infinite n" not in diffuse.err


def test_without_a_curve_infinity_is_refused(theirs, diffuse):
    message = diffuse.error(f"{CURVE} metrics=[fid,infinity] n=256")
    assert message.startswith("metrics: no infinity here: ")
    assert "the curve of FID by n, and 1,000 for its end at infinite n" in message


def test_infinity_takes_no_more_of_a_reference_than_its_mean_and_covariance(
    theirs, diffuse, tmp_path
):
    real = open_dataset({"name": "digits"}, "test")
    moments = Moments.of(encode(pixels(real.spec, 8), real.images))
    stats = {"mu": moments.mean.numpy(), "sigma": moments.covariance.numpy(), "n": moments.n}
    np.savez(tmp_path / "stats.npz", **stats)
    line = f"{CURVE} metrics=[fid,infinity]"
    split, known = (diffuse.json(f"{line} {more}") for more in ("", "reference=stats.npz"))
    ours, theirs = (record["metrics"]["fid_infinity"] for record in (split, known))
    assert theirs["value"] == pytest.approx(ours["value"])
    assert theirs["ci95"] == pytest.approx(ours["ci95"])
    assert known["curves"]["fid"] == [pytest.approx(point) for point in split["curves"]["fid"]]


@pytest.mark.parametrize(
    "line", ["eval", "pareto samplers=[ddim] nfe=[1]", "plot fid_trajectory steps=1"]
)
def test_where_the_data_is_now_can_be_said_to_eval_and_no_other_command_claims_it(
    line, trained, diffuse, monkeypatch
):
    def missing(dataset):
        raise DataError("photos is missing")

    monkeypatch.setattr(assembly, "real_sets", missing)
    where = "dataset= says where the data of outputs/train/tiny/v001 is now"
    message = diffuse.error(f"{line} n=4 device=cpu encoder=pixels", 3)
    assert message == f"photos is missing; in diffuse eval, {where}"


class OnMps(torch.Tensor):
    """A tensor on a device that has no float64."""

    def double(self):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


class Head(torch.nn.Linear):
    def forward(self, input):
        return super().forward(input).as_subclass(OnMps)


def test_the_probabilities_of_a_classifier_need_no_float64_on_its_device(images):
    net = new_classifier(channels=1, classes=3, width=8, blocks=(1, 1), seed=0).eval()
    head = Head(net.dim, 3)
    encoder = Encoder(net, "small", "sha", (1, 8, 8), net.dim, head, images.spec.classes)
    rows = rows_of(encoder, images.images)
    assert rows.probabilities is not None
    assert rows.probabilities.dtype == torch.float64
    torch.testing.assert_close(rows.probabilities.sum(1), torch.ones(32, dtype=torch.float64))


class Odd(nn.Module):
    """Features that grow with `scale`, and are fewer of many images."""

    def __init__(self, scale=1.0, many=16):
        super().__init__()
        self.scale, self.many = scale, many

    def forward(self, x):
        return self.scale * x.flatten(1)[:, : 16 if len(x) <= 4 else self.many]


def test_features_that_are_other_ones_than_a_trial_gave_are_refused():
    encoder = Encoder(Odd(many=8), "odd", "0" * 64, (1, 8, 8), 16)
    with pytest.raises(DataError, match=r"encoder odd: features must be \[b 16\], got \[9, 8\]"):
        encode(encoder, torch.zeros(9, 1, 8, 8).byte())


def test_features_too_large_to_compute_with_are_refused_in_one_line():
    """The third power of their products is in KID, and the square of that in its interval."""
    encoder = Encoder(Odd(scale=1e30), "odd", "0" * 64, (1, 8, 8), 16)
    images = torch.arange(60 * 64).reshape(60, 1, 8, 8).remainder(251).byte()
    rows = rows_of(encoder, images)
    cfg = OmegaConf.create(
        {"metrics": ["kid"], "kid_subsets": 3, "kid_subset_size": 20, "neighbours": 3}
    )
    real = Real(Moments.of(rows.features), encoder, rows)
    with pytest.raises(DataError, match="encoder odd: its features are too large to compute with"):
        judging.scored(cfg, ["fid", "kid"], [(images, None)], real)
