"""Every number of a record beside the same number of real images."""

from dataclasses import replace

import pytest
import torch
from scored import POSSIBLE, SETTINGS

from diffuse.classifier import centred, new_classifier
from diffuse.encoders import Encoder, pixels
from diffuse.measures import MEASURES
from diffuse.metrics import fid, kid
from diffuse.scoring import (
    GROUPS,
    Judge,
    impossible,
    measured,
    real,
    rows_of,
)


@pytest.mark.parametrize("group", POSSIBLE)
def test_every_number_has_an_interval_around_it_and_a_floor(group, judge, drawn):
    found = measured(group, [drawn(0)], real(judge, 24), SETTINGS)
    assert found
    for name, score in found.items():
        low, high = score["ci95"]
        assert low <= score["value"] <= high, name
        low, high = score["floor_ci95"]
        assert low <= score["floor"] <= high, name
        assert name in MEASURES


def test_the_numbers_are_those_of_the_metrics(judge, drawn):
    rows, truth = drawn(0), real(judge, 24)
    found = measured("fid", [rows], truth, SETTINGS) | measured("kid", [rows], truth, SETTINGS)
    assert found["fid"]["value"] == pytest.approx(fid(rows.features, judge.reference))
    assert found["kid"]["value"] == kid(rows.features, judge.reference, 4, 16).value


def test_the_floor_is_the_number_of_real_training_images(judge, drawn):
    truth = real(judge, 24)
    assert truth.floor is not None
    of_real = rows_of(judge.encoder, truth.floor.images, truth.floor.labels)
    for group in ("fid", "kid", "prdc"):
        floors = measured(group, [drawn(0)], truth, SETTINGS)
        for name, score in measured(group, [of_real], truth, SETTINGS).items():
            assert floors[name]["floor"] == score["value"], name
            assert floors[name]["floor_ci95"] == score["ci95"], name


def test_of_copies_the_floor_is_what_images_nobody_trained_on_have(judge, drawn):
    truth = real(judge, 32)
    found = measured("memorisation", [drawn(0)], truth, SETTINGS)
    assert found["closer"]["floor"] == pytest.approx(0.05, abs=0.02)  # the quantile, by definition
    assert truth.floor is not None
    copies = measured("memorisation", [truth.floor], truth, SETTINGS)
    assert copies["authenticity"]["value"] == 0
    assert copies["closer"]["value"] == 1
    assert found["authenticity"]["floor"] > 0


def test_an_extrapolation_takes_more_images_of_more_features(judge):
    inception = Encoder(torch.nn.Identity(), "wide", "sha", (1, 8, 8), 2048)
    wide = replace(real(judge, 24), encoder=inception)
    assert "at least 10240 images" in impossible("infinity", 2048, None, wide, SETTINGS)
    assert not impossible("infinity", 10240, None, wide, SETTINGS)
    assert not impossible("infinity", 1000, None, real(judge, 24), SETTINGS)


WHY = {
    ("infinity", 24): "at least 1000 images",
    ("inception", 24): "no classifier",
    ("agreement", 24): "no classifier",
    ("per_class", 8): "4 images of each class",
    ("prdc", 4): "too few images",
}


@pytest.mark.parametrize(("case", "words"), WHY.items())
def test_what_cannot_be_computed_says_why(case, words, judge):
    group, n = case
    assert words in impossible(group, n, torch.arange(n) % 3, real(judge, n), SETTINGS)


def test_a_small_test_split_leaves_out_what_it_is_too_small_for(judge, drawn, images):
    seven = replace(images, images=images.images[:7], labels=images.labels[:7])
    truth = real(Judge(judge.encoder, train=judge.train, test=seven), 24)
    both = measured("gap", [drawn(0)], truth, SETTINGS)
    found = both["gap"]
    assert found["value"] == both["fid_train"]["value"] - both["fid_test"]["value"]
    for name in ("fid_train", "fid_test"):
        low, high = both[name]["ci95"]
        assert low < both[name]["value"] < high
        assert both[name].keys() >= {"jackknife", "floor", "floor_ci95"}
    assert found["m"] == 7
    labels = torch.arange(24) % 3
    assert not impossible("per_class", 24, labels, truth, SETTINGS)
    for n, group, words in ((5, "per_class", "fewer than 2 images"), (3, "gap", "4 of the ref")):
        few = replace(truth, reference=truth.reference.some(torch.arange(n)))
        assert words in impossible(group, 24, labels, few, SETTINGS)


def test_the_floor_of_classes_has_as_many_images_of_each_or_all_there_are(judge, drawn):
    rows = drawn(0)
    uneven = replace(rows, labels=torch.tensor([0] * 5 + [1] * 4 + [2] * 15))
    truth = real(judge, 24)
    score = measured("per_class", [uneven], truth, SETTINGS)["per_class"]
    assert score["counts"] == [5, 4, 15]
    assert score["floor_counts"] == [5, 4, 13]  # there are 13 of the last
    assert score["floor_n"] == 22
    labels = truth.alike(uneven).labels
    assert [int((labels == c).sum()) for c in range(3)] == [5, 4, 13]


def test_without_classes_nothing_about_classes_can_be_said(judge):
    truth = real(judge, 24)
    assert "not of several classes" in impossible("per_class", 24, None, truth, SETTINGS)
    one = torch.zeros(24, dtype=torch.int64)
    assert impossible("per_class", 24, one, truth, SETTINGS)


def test_the_reference_itself_has_distance_zero_and_noise_has_not(judge, images):
    def distances(pixels):
        truth, rows = real(judge, len(pixels)), [rows_of(judge.encoder, pixels)]
        return [measured(g, rows, truth, SETTINGS)[g]["value"] for g in ("fid", "kid")]

    same, far = distances(images.images), distances(images.images // 4)
    assert same[0] == pytest.approx(0, abs=1e-6)
    assert far[0] > 1
    assert far[1] > same[1]


def test_the_floor_is_of_as_many_real_images_whatever_is_scored(judge, drawn, images):
    def floor(n, rows=None):
        return measured("fid", [rows or drawn(0)], real(judge, n), SETTINGS)["fid"]["floor"]

    assert floor(10) == floor(10, drawn(1)) > floor(40)
    assert [len(real(judge, n).floor) for n in (10, 40, 64)] == [10, 40, 40]  # there are no more


def test_numbers_do_not_depend_on_the_common_seed(judge, drawn):
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        truth = real(judge, 24)
        found.append([measured(group, [drawn(0)], truth, SETTINGS) for group in POSSIBLE])
    assert found[0] == found[1]


def test_padding_is_cut_off_before_images_are_compared(images):
    padded = torch.nn.functional.pad(images.images, [12] * 4)
    spec = replace(images.spec, height=32, width=32, fit="pad")
    wide = replace(images, images=padded, spec=spec)
    judge = Judge(pixels(spec, 4), train=wide, test=wide)
    rows, truth = [rows_of(judge.encoder, images.images)], real(judge, 32)
    assert measured("fid", rows, truth, SETTINGS)["fid"]["value"] == pytest.approx(0, abs=1e-6)
    assert truth.floor is not None
    assert truth.floor.images.shape == (32, 1, 8, 8)


def test_of_our_classifier_the_probabilities_are_those_it_was_trained_with(images):
    """Inception's are without bias, as published; `test_encoders_inception` has the proof."""
    net = new_classifier(channels=1, classes=3, width=8, blocks=(1, 1), seed=0).eval()
    torch.nn.init.normal_(net.head.bias)
    encoder = Encoder(net, "small", "sha", (1, 8, 8), net.dim, net.head, images.spec.classes)
    rows = rows_of(encoder, images.images)
    with torch.no_grad():
        expected = net.head(net(centred(images.images.float()))).softmax(1)
    assert rows.probabilities is not None
    torch.testing.assert_close(rows.probabilities.float(), expected)
    judge = Judge(encoder, train=images, test=images)
    found = measured("inception", [rows], real(judge, 32), SETTINGS)
    assert found["inception_score"]["logits"] == "with bias"


def test_moments_of_someone_else_are_enough_for_fid_and_for_nothing_else(judge, drawn):
    whole = real(judge, 24)
    known = real(judge, 24, whole.moments)
    possible = [g for g in GROUPS if not impossible(g, 24, torch.arange(24) % 3, known, SETTINGS)]
    assert possible == ["fid"]
    same = measured("fid", [drawn(0)], known, SETTINGS)
    assert same == measured("fid", [drawn(0)], whole, SETTINGS)
