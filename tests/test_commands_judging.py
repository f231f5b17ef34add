"""What every evaluation says of its numbers, and of what it needs for them."""

import numpy as np
import pytest
import torch

from diffuse import assembly
from diffuse.classifier import new_classifier
from diffuse.data import open_dataset
from diffuse.encoders import Encoder
from diffuse.errors import DataError
from diffuse.scoring import rows_of

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


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("n=256", "the curve of FID by n, and 1,000 for its end at infinite n"),
        ("n=600 reference=stats.npz", "known by its mean and covariance only"),
    ],
)
def test_without_a_curve_infinity_is_refused(words, why, theirs, diffuse, tmp_path):
    np.savez(tmp_path / "stats.npz", mu=np.zeros(64), sigma=np.eye(64))
    message = diffuse.error(f"{CURVE} metrics=[fid,infinity] {words}")
    assert message == f"metrics: no infinity here: {message.partition('here: ')[2]}"
    assert why in message


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
