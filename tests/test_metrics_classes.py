"""Numbers that know of classes: score, agreement and FID by class."""

import numpy as np
import pytest
import torch
from jackknives import jackknife

from diffuse.metrics import (
    agreement,
    fid,
    fid_by_class,
    fid_estimate,
    inception_score,
    reach_of,
)
from diffuse.metrics.tables import Moments


def normal(seed, *shape):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=random, dtype=torch.float64)


def by_definition(p):
    """exp of the mean of sum_y p(y|x) log(p(y|x) / p(y)), with 0 log 0 = 0."""
    p = p.numpy()
    q = p.mean(0)
    terms = np.where(p > 0, p * (np.log(np.where(p > 0, p, 1)) - np.log(np.where(q > 0, q, 1))), 0)
    return np.exp(terms.sum(1).mean())


def test_the_score_is_the_definition_where_some_probabilities_are_nothing():
    p = torch.softmax(normal(0, 300, 7) * 4, 1)
    p[:50] = torch.eye(7, dtype=torch.float64)[torch.arange(50) % 7]
    assert inception_score(p).value == pytest.approx(by_definition(p), rel=1e-12)


def test_sure_and_even_is_as_many_as_classes_and_unsure_or_one_sided_is_1():
    sure = torch.eye(10, dtype=torch.float64)[torch.arange(400) % 10]
    assert inception_score(sure).value == pytest.approx(10, rel=1e-12)
    assert inception_score(torch.full((400, 10), 0.1)).value == pytest.approx(1, rel=1e-12)
    assert inception_score(sure[:1].expand(400, 10)).value == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("n", [300, 301, 47])
def test_the_score_of_one_image_many_times_is_1_and_its_interval_no_wider(n):
    for row in torch.softmax(normal(0, 50, 7) * 4, 1):
        found = inception_score(row.expand(n, 7), splits=2)
        assert 1 <= found.low <= found.value <= found.high < 1 + 1e-9


@pytest.mark.slow  # its import takes seconds
def test_one_split_is_torch_fidelitys_score():
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = normal(0, 300, 7) * 3
    theirs = isc_features_to_metric(logits, splits=1)["inception_score_mean"]
    found = inception_score(torch.softmax(logits, 1), splits=1)
    assert found.value == pytest.approx(theirs, rel=1e-6)
    assert (found.mean, found.sd) == (pytest.approx(theirs, rel=1e-6), 0)


def test_splits_scatter_and_sit_below_the_whole_for_they_are_smaller():
    p = torch.softmax(normal(0, 1000, 10) * 3, 1).sort(0).values  # in an order, as by class
    p = p / p.sum(1, keepdim=True)
    found = inception_score(p, splits=10)
    assert found.sd > 0
    assert found.mean < found.value
    assert inception_score(p, splits=10) == found
    assert inception_score(p, splits=10, seed=1).value == found.value


def test_the_interval_of_the_score_is_the_generic_jackknifes():
    p = torch.softmax(normal(0, 200, 5) * 3, 1)
    slow = jackknife(lambda kept: by_definition(p[kept]), 200, blocks=10, seed=4)
    assert inception_score(p, blocks=10, seed=4)[:3] == pytest.approx(slow, rel=1e-9)


def test_the_interval_of_the_score_covers_its_mean_19_times_of_20():
    found = [inception_score(torch.softmax(normal(i, 500, 6) * 3, 1)) for i in range(200)]
    mean = np.mean([e.value for e in found])
    assert 0.9 <= np.mean([e.low <= mean <= e.high for e in found]) <= 0.99


def test_agreement_is_the_share_that_is_what_was_asked_for():
    asked = torch.arange(100) % 10
    predicted = asked.clone()
    predicted[:20] = (predicted[:20] + 1) % 10
    value, low, high = agreement(predicted, asked)
    assert value == 0.8
    assert 0.70 < low < 0.72
    assert 0.86 < high < 0.88


CLASSES = torch.arange(360) % 3
CENTRES = 4 * torch.eye(3, 6, dtype=torch.float64)[CLASSES]


def test_fid_by_class_is_the_fid_within_each_class():
    a, b = normal(0, 360, 6) * 1.3 + CENTRES, normal(1, 360, 6) + CENTRES
    found = fid_by_class(a, CLASSES, b, CLASSES)
    for c, estimate in enumerate(found.classes):
        mine, theirs = a[c == CLASSES], b[c == CLASSES]
        assert estimate.value == pytest.approx(fid(mine, theirs), rel=1e-12)
        assert estimate == fid_estimate(mine, Moments.of(theirs))
    assert found.mean.value == pytest.approx(np.mean([e.value for e in found.classes]), rel=1e-12)


def test_a_block_of_each_class_is_left_out_at_once_where_they_have_as_many():
    a, b = normal(0, 360, 6) + CENTRES, normal(1, 360, 6) + CENTRES
    found = fid_by_class(a, CLASSES, b, CLASSES)
    tables = [estimate.left_out for estimate in found.classes]
    assert found.mean.left_out == pytest.approx(np.mean(tables, 0), rel=1e-12)
    reach = found.mean.high - found.mean.value  # the other way to see it: variances add up
    assert 0.5 < reach_of(found.mean.left_out) / reach < 2
    few = torch.cat([torch.arange(3).repeat(5), torch.full((345,), 2)])  # 2 blocks, 2 and 20
    assert fid_by_class(a, few, b, CLASSES).mean.left_out == ()


def test_fid_by_class_sees_that_classes_were_swapped_where_fid_does_not():
    a, b = normal(0, 360, 6) + CENTRES, normal(1, 360, 6) + CENTRES
    right, wrong = (fid_by_class(a, asked, b, CLASSES) for asked in (CLASSES, (CLASSES + 1) % 3))
    assert wrong.mean.value > 20 * right.mean.value
    assert wrong.mean.low > right.mean.high


@pytest.mark.slow
def test_the_interval_of_the_mean_over_classes_covers_19_times_of_20():
    b = normal(1, 360, 6) + CENTRES
    found = [
        fid_by_class(normal(2 + i, 360, 6) * 1.5 + CENTRES, CLASSES, b, CLASSES).mean
        for i in range(200)
    ]
    mean = np.mean([e.value for e in found])
    assert 0.9 <= np.mean([e.low <= mean <= e.high for e in found]) <= 0.995


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: inception_score(a), "row 0 is no distribution: it sums to"),
        (lambda a: inception_score(torch.full((9, 4), 0.3)), "row 0 is no .* sums to 1.2"),
        (lambda a: inception_score(torch.full((40, 4), 0.25), splits=41), "splits must be in .*41"),
        (lambda a: agreement(CLASSES, CLASSES[:5]), r"must both be \[n\], got \[360\] and \[5\]"),
        (lambda a: agreement(CLASSES[:0], CLASSES[:0]), r"must both be \[n\], got \[0\]"),
        (lambda a: fid_by_class(a, CLASSES[:9], a, CLASSES), r"asked must be \[360\].*got \[9\]"),
        (lambda a: fid_by_class(a, CLASSES + 1, a, CLASSES), "asked has class 3, of which the"),
        (lambda a: fid_by_class(a, CLASSES * 0, a, CLASSES), "class 1 needs 4 images .* got 0"),
    ],
)
def test_what_has_no_classes_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(normal(0, 360, 4))
    assert "\n" not in str(caught.value)
