"""Scores: better images score better, and real images are what they are compared with."""

from dataclasses import replace

import pytest
import torch

from diffuse.encoders import pixels
from diffuse.evaluation import Judge


@pytest.fixture
def judge(images):
    train = replace(images, images=images.images.flip(0).contiguous())
    return Judge(pixels(images.spec, 4), images, train)


def score(judge, images):
    return judge.score(images, subsets=4, subset_size=16)


def test_the_reference_itself_has_distance_zero_and_noise_has_not(judge, images):
    same = score(judge, images.images)
    far = score(judge, images.images // 4)
    assert same.fid == pytest.approx(0, abs=1e-6)
    assert far.fid > 1
    assert far.kid > same.kid
    assert (same.n, same.floor_n) == (32, 32)


def test_the_floor_is_that_of_as_many_real_images_and_does_not_depend_on_what_is_scored(
    judge, images
):
    one, two = score(judge, images.images[:10]), score(judge, images.images[:10] // 2)
    assert (one.fid_floor, one.kid_floor, one.floor_n) == (two.fid_floor, two.kid_floor, 10)
    assert one.fid_floor > 0
    whole = score(judge, images.images)
    assert whole.fid_floor == pytest.approx(0, abs=1e-6)


def test_more_images_than_there_are_real_ones_are_compared_with_all_of_those(judge, images):
    assert score(judge, images.images.repeat(2, 1, 1, 1)).floor_n == 32


def test_scoring_twice_gives_the_same_numbers_whatever_the_common_seed(judge, images):
    torch.manual_seed(1)
    one = score(judge, images.images[:20])
    torch.manual_seed(2)
    assert score(judge, images.images[:20]) == one


def test_a_record_holds_each_number_beside_its_floor(judge, images):
    scores = score(judge, images.images[:20])
    record = scores.record()
    assert record["fid"]["value"] == scores.fid
    assert record["fid"]["floor"] == scores.fid_floor
    low, high = record["fid"]["ci95"]
    assert low <= scores.fid <= high
    low, high = record["kid"].pop("ci95")
    assert low < scores.kid < high
    assert record["kid"] == {
        "value": scores.kid, "sd": scores.kid_sd, "floor": scores.kid_floor
    }  # fmt: skip


def test_padding_is_cut_off_before_images_are_compared(images):
    padded = torch.nn.functional.pad(images.images, [12] * 4)
    spec = replace(images.spec, height=32, width=32, fit="pad")
    wide = replace(images, images=padded, spec=spec)
    judge = Judge(pixels(spec, 4), wide, wide)
    assert score(judge, images.images).fid == pytest.approx(0, abs=1e-6)
