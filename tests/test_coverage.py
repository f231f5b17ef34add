"""The intervals of a record on real images: how many hold the mean over splits of Fashion-MNIST."""

from collections import defaultdict
from dataclasses import replace
from statistics import fmean, stdev

import pytest
import torch

from diffuse.data import open_dataset
from diffuse.encoders import load_encoder
from diffuse.metrics import Moments, fid, fid_estimate
from diffuse.scoring import GROUPS, Real, Settings, measured, rows_of
from diffuse.seeds import generator

FASHION = {"name": "fashion_mnist", "root": None, "fit": "none"}
POOL, KNOWN, REFERENCE = 15_000, 5_000, 2_000  # images to split, "trained on", compared with
SIZES = {"infinity": 1000}  # of a split, where it is not 500
SPLITS = {"per_class": 10}  # where not all: it takes seconds for each
OVER_MORE = ("gap", "closer")  # intervals over samples of the real images, too
SETTINGS = Settings(kid_subsets=20, kid_subset_size=250)


@pytest.fixture(scope="module")
def pool():
    """Images that nobody learnt from, in an order of chance, and what they are compared with."""
    encoder = load_encoder("fashion_mnist")
    train, test = (open_dataset(FASHION, split) for split in ("train", "test"))
    order = torch.randperm(len(train), generator=generator("coverage"))
    known = order[POOL : POOL + KNOWN]
    learnt = replace(
        train, images=train.images[known], labels=train.labels[known], sha256="of test_coverage.py"
    )
    reference = rows_of(encoder, test.images[:REFERENCE], test.labels[:REFERENCE])
    real = Real(Moments.of(reference.features), encoder, reference, train=learnt)
    return rows_of(encoder, train.images[order[:POOL]], train.labels[order[:POOL]]), real


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_intervals_hold_the_mean_nine_times_of_ten_or_more_and_are_not_much_wider(group, pool):
    rows, real = pool
    found = defaultdict(list)
    splits = torch.arange(POOL).split(SIZES.get(group, 500))
    for split in splits[: SPLITS.get(group)]:
        for name, score in measured(group, [rows.some(split)], real, SETTINGS).items():
            found[name].append(score)
    assert found
    for name, scores in found.items():
        mean = fmean(score["value"] for score in scores)
        held = [score["ci95"][0] <= mean <= score["ci95"][1] for score in scores]
        assert fmean(held) >= 0.9, name
        assert all(score["ci95"][0] < score["ci95"][1] for score in scores), name
        reach = fmean(score["ci95"][1] - score["ci95"][0] for score in scores) / 2
        scatter = 1.96 * stdev(score["value"] for score in scores)
        assert name in OVER_MORE or reach <= 2.5 * scatter, name


@pytest.mark.slow
def test_of_images_that_are_not_like_the_reference_they_hold_it_and_are_no_wider(pool):
    rows, real = pool
    reference = real.reference.features
    line = torch.exp(-(torch.arange(-2.0, 3.0) ** 2) / (2 * 0.7**2))
    kernel = line.outer(line)[None, None] / line.sum() ** 2
    images = rows.images[: POOL // 2].float()
    blurred = torch.nn.functional.conv2d(images, kernel, padding=2)
    tables = rows_of(real.encoder, blurred.round().to(torch.uint8)).features.split(500)
    intervals = [fid_estimate(table, Moments.of(reference)) for table in tables]
    values = [fid(table, reference) for table in tables]
    assert fmean(i.low <= fmean(values) <= i.high for i in intervals) >= 0.9
    reach = fmean(i.high - i.low for i in intervals) / 2
    assert reach <= 1.8 * 1.96 * stdev(values)
