"""Every number of a record beside the same number of real images."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffuse.classifier import centred, new_classifier
from diffuse.encoders import Encoder, pixels
from diffuse.measures import MEASURES
from diffuse.metrics import fid, kid, over_seeds, reach_of
from diffuse.scoring import (
    GROUPS,
    Judge,
    Rows,
    Settings,
    curve,
    impossible,
    measured,
    real,
    rows_of,
)

SETTINGS = Settings(kid_subsets=4, kid_subset_size=16, neighbours=3)
POSSIBLE = ["fid", "kid", "prdc", "per_class", "gap", "memorisation", "pixels"]


@pytest.fixture
def judge(images):
    random = torch.Generator().manual_seed(1)
    others = torch.randint(0, 256, (40, 1, 8, 8), generator=random, dtype=torch.uint8)
    train = replace(images, images=others, labels=torch.arange(40) % 3, sha256="train")
    return Judge(pixels(images.spec, 4), train=train, test=images)


@pytest.fixture
def drawn(judge):
    def draw(seed, n=24):
        random = torch.Generator().manual_seed(100 + seed)
        grey = torch.randint(60, 200, (n, 1, 8, 8), generator=random, dtype=torch.uint8)
        return rows_of(judge.encoder, grey, torch.arange(n) % 3)

    return draw


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


def test_several_seeds_are_a_mean_with_students_interval_and_each_of_them(judge, drawn):
    truth, draws = real(judge, 24), [drawn(seed) for seed in range(3)]
    [each] = zip(
        *(measured("fid", [rows], truth, SETTINGS).values() for rows in draws), strict=True
    )
    joined = measured("fid", draws, truth, SETTINGS)["fid"]
    values = [score["value"] for score in each]
    expected = over_seeds(values)
    assert joined["per_seed"] == values
    assert joined["per_seed_ci95"] == [score["ci95"] for score in each]
    assert joined["value"] == expected.mean
    assert joined["ci95"] == [max(0, expected.low), expected.high]
    assert joined["floor"] == each[0]["floor"]


def test_what_a_jackknife_left_out_is_kept_of_one_seed_for_what_it_is_the_interval_of(judge, drawn):
    truth = real(judge, 24)
    found = {k: v for g in POSSIBLE for k, v in measured(g, [drawn(0)], truth, SETTINGS).items()}
    kept = {name for name, score in found.items() if "jackknife" in score}
    assert kept >= {"fid", "per_class", "sliced", "pixel_mean", "pixel_sd"}
    assert not kept & {"kid", "precision", "gap", "authenticity", "closer"}
    for name in kept - {"per_class"}:
        reach = reach_of(found[name]["jackknife"])
        assert found[name]["ci95"][1] == pytest.approx(found[name]["value"] + reach), name
    draws = [drawn(seed) for seed in range(2)]
    for group in POSSIBLE:
        for score in measured(group, draws, truth, SETTINGS).values():
            assert "jackknife" not in score


@pytest.mark.parametrize(("group", "name"), [("gap", "gap"), ("memorisation", "closer")])
def test_what_no_seed_changes_stays_in_the_interval_over_seeds(group, name, judge, drawn):
    found = measured(group, [drawn(seed) for seed in range(3)], real(judge, 24), SETTINGS)[name]
    over = over_seeds(found["per_seed"])
    reach = math.hypot(over.high - over.mean, found["real_reach"])
    assert found["real_reach"] > 0
    assert found["ci95"][1] == pytest.approx(min(MEASURES[name].most, over.mean + reach))
    assert found["ci95"][0] == pytest.approx(max(MEASURES[name].least, over.mean - reach))


def test_seeds_that_happen_to_agree_are_not_taken_for_certainty(judge, drawn):
    same = [drawn(0)] * 3
    for score in measured("prdc", same, real(judge, 24), SETTINGS).values():
        assert score["ci95"] == pytest.approx(score["per_seed_ci95"][0])


def test_what_a_number_of_several_seeds_says_of_itself_agrees_with_it(judge, drawn):
    truth, draws = real(judge, 24), [drawn(seed) for seed in range(3)]
    found = {k: v for g in POSSIBLE for k, v in measured(g, draws, truth, SETTINGS).items()}
    gap, of_classes = found["gap"], found["per_class"]["classes"]
    assert gap["train"] - gap["test"] == pytest.approx(gap["value"])
    mean = sum(one["value"] for one in of_classes) / len(of_classes)
    assert mean == pytest.approx(found["per_class"]["value"])
    assert [len(one["per_seed"]) for one in of_classes] == [3, 3, 3]
    sds = [kid(r.features, judge.reference, 4, 16, seed=k).sd for k, r in enumerate(draws)]
    assert found["kid"]["sd"] == pytest.approx(sum(sds) / 3)
    medians = [measured("memorisation", [d], truth, SETTINGS)["closer"]["median"] for d in draws]
    assert found["closer"]["median"] == pytest.approx(sum(medians) / 3)
    assert found["authenticity"]["closest_of"] == "the first seed"


def test_each_draw_has_subsets_of_its_own_for_kid_and_the_first_those_of_a_single_one(judge, drawn):
    truth, same = real(judge, 24), [drawn(0)] * 3
    found = measured("kid", same, truth, SETTINGS)["kid"]
    values = [kid(same[0].features, judge.reference, 4, 16, seed=k).value for k in range(3)]
    assert found["per_seed"] == values
    assert len(set(values)) == 3
    single = measured("kid", same[:1], truth, SETTINGS)["kid"]
    assert single["value"] == values[0]
    assert [single[key] for key in ("floor", "floor_ci95")] == [found["floor"], found["floor_ci95"]]


@pytest.mark.slow
def test_the_interval_of_kid_over_seeds_covers_the_distance_to_the_reference(judge):
    """Rows x ~ N(s, 1) [d], so E[k(x, y)] = u^3 + 3 u |y|^2 / d^2 with u = 1 + s sum(y) / d."""
    d, s, settings = 8, 0.25, Settings(kid_subsets=10, kid_subset_size=50)
    random = torch.Generator().manual_seed(0)

    def table(n, mean=0.0):
        features = torch.randn(n, d, generator=random, dtype=torch.float64) + mean
        return Rows(torch.empty(n, 1, 8, 8, dtype=torch.uint8), features)

    def distance(y):
        u = 1 + s * y.sum(1) / d
        to_y = (u**3 + 3 * u * y.square().sum(1) / d**2).mean()
        kernel, v = (y @ y.T / d + 1) ** 3, 1 + s**2
        of_y = (kernel.sum() - kernel.trace()) / (len(y) * (len(y) - 1))
        of_x = v**3 + 3 * v * s**2 / d + 3 * v**2 / d + 6 * s**2 / d**2
        return float(of_x + of_y - 2 * to_y)

    held, with_the_same_subsets = [], []
    for _ in range(100):
        reference, draws = table(400), [table(600, s) for _ in range(5)]
        truth = replace(judge.real, reference=reference)
        low, high = measured("kid", draws, truth, settings)["kid"]["ci95"]
        held.append(low <= distance(reference.features) <= high)
        same = over_seeds([kid(x.features, reference.features, 10, 50).value for x in draws])
        with_the_same_subsets.append(same.low <= distance(reference.features) <= same.high)
    assert 0.9 <= np.mean(held) <= 0.99
    assert np.mean(with_the_same_subsets) < 0.88  # the control: an error that all seeds share


@pytest.mark.parametrize("group", [group for group in POSSIBLE if group != "kid"])
def test_the_order_of_the_seeds_changes_nothing_but_their_own_numbers(group, judge, drawn):
    def found(seeds):
        scores = measured(group, [drawn(seed) for seed in seeds], real(judge, 24), SETTINGS)
        return _without(scores, {"per_seed", "per_seed_ci95", "closest"})

    assert found([0, 1, 2]) == found([2, 0, 1])


def _without(node, keys):
    if isinstance(node, list):
        return [_without(one, keys) for one in node]
    if not isinstance(node, dict):
        return node
    return {key: _without(value, keys) for key, value in node.items() if key not in keys}


@pytest.mark.slow
def test_of_several_seeds_the_line_and_the_curve_go_through_the_mean_fid(judge, images):
    def rows(seed):
        random = torch.Generator().manual_seed(seed)
        grey = torch.randint(60, 200, (1000, 1, 8, 8), generator=random, dtype=torch.uint8)
        return rows_of(judge.encoder, grey)

    draws, truth = [rows(seed) for seed in range(3)], real(judge, 24)
    mean = measured("fid", draws, truth, SETTINGS)["fid"]["value"]
    found = measured("infinity", draws, truth, SETTINGS)["fid_infinity"]
    assert found["points"][0][:2] == pytest.approx([1000, mean])
    n, fids, _ = zip(*found["points"], strict=True)
    slope, value = np.polyfit([1 / k for k in n], fids, 1)
    assert (found["value"], found["slope"]) == pytest.approx((value, slope), rel=1e-6)
    assert found["ci95"][0] <= found["parabola"] <= found["ci95"][1]
    assert curve(draws, truth)[-1] == pytest.approx([1000, mean, 0])
    assert curve(draws, truth)[0] == pytest.approx(curve(draws[::-1], truth)[0])


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
    found = measured("gap", [drawn(0)], truth, SETTINGS)["gap"]
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
