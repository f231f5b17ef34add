"""Whether a generator copies: its rows beside the rows it learned from, and rows it never saw."""

import math
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from diffuse.metrics.gaussian import frechets
from diffuse.metrics.intervals import (
    BLOCKS,
    Estimate,
    Interval,
    Jackknifed,
    around,
    blocks_of,
    reach_of,
    wilson,
)
from diffuse.metrics.neighbours import Neighbours, nearest, nearest_others
from diffuse.metrics.tables import Moments, as_pair, as_table
from diffuse.seeds import generator


class Closeness(NamedTuple):
    """Distances to the nearest training row: of generated rows, beside those of test rows."""

    share: Estimate  # of generated rows below the threshold; `quantile` if nothing is memorised
    threshold: float  # the quantile of the test rows' distances
    median: float  # of the generated rows' distances
    median_test: float
    reach: float  # the part of the interval that is due to the test rows


class Gap(NamedTuple):
    """The FID against training and against test rows, as many of each, and the difference."""

    train: Jackknifed
    test: Jackknifed
    value: float  # train - test: clearly below 0, the generator prefers what it has seen
    interval: Interval
    m: int  # rows of each reference
    reach: float  # the part of the interval that is due to the references


def authenticity(
    generated: Tensor,
    train: Tensor,
    known: Neighbours | None = None,  # nearest(generated, train), if it is at hand
    mirrored: bool = False,  # is the second half of `train` the first one's mirror images?
) -> Estimate:
    """The share of rows that are no copies: authenticity of Alaa et al. (2022).

    A row is one if the training row nearest to it is no further than that one's nearest other
    training row; its own mirror image is no other. Fresh rows from the training distribution need
    not all pass (0.4 of them in 2 dimensions, 0.8 in 32), so what it says of a generator lies
    beside what `authenticity(test, train)` says.
    """
    found = known or nearest(generated, train)
    source, back = found.numbers[:, 0].unique(return_inverse=True)
    around_it = nearest_others(train, 2 if mirrored else 1, source)
    if mirrored:
        twin = around_it.numbers[:, :1] == (source[:, None] + len(train) // 2) % len(train)
        distances = around_it.distances.gather(1, twin.long()).squeeze(1)
    else:
        distances = around_it.distances[:, 0]
    others = distances[back]
    return wilson(float((found.distances[:, 0] > others).double().mean()), len(others))


def closeness(
    generated: Tensor,
    test: Tensor,
    train: Tensor,
    quantile: float = 0.05,
    known: Neighbours | None = None,  # nearest(generated, train), if it is at hand
    known_test: Neighbours | None = None,  # nearest(test, train)
) -> Closeness:
    """The share of rows closer to a training row than all but `quantile` of the test rows are.

    A row that is a training row counts, whatever the test rows are: of data that repeats itself,
    fresh rows have more than `quantile` of these, too.
    A test of two samples of distances to one training set, as in Meehan et al. (2020). The share is
    G(F^-1(q)), of n generated distances ~ G and m of test rows ~ F; the interval covers it over
    both samples. Its variance is share (1 - share) / n + (g / f)^2 q (1 - q) / m, with densities at
    the threshold (Hsieh & Turnbull, 1996) that are alike where nothing is memorised. None is
    assumed: with d = 1.96 sqrt(q (1 - q) / m), the threshold lies between the test rows' quantiles
    at q - d and q + d. How far the shares below these two are from the share adds up in quadrature
    with Wilson's interval over the n. With q = 0.05, fewer than 73 test rows have no quantile at
    q - d: their smallest distance stands for it, and the interval is too narrow.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"quantile must be in (0, 1), got {quantile}")
    found = (known or nearest(generated, train)).distances[:, 0]
    unseen = (known_test or nearest(test, train)).distances[:, 0]
    d = NormalDist().inv_cdf(0.975) * math.sqrt(quantile * (1 - quantile) / len(unseen))
    places = [max(0.0, quantile - d), quantile, min(1.0, quantile + d)]
    thresholds = unseen.quantile(unseen.new_tensor(places))
    close = (found[:, None] < thresholds) | (found[:, None] == 0)
    fewest, share, most = close.double().mean(0).tolist()
    own = wilson(share, len(found))
    low = share - math.hypot(share - own.low, share - fewest)
    high = share + math.hypot(own.high - share, most - share)
    estimate = Estimate(share, max(0.0, low), min(1.0, high))
    medians = float(found.median()), float(unseen.median())
    return Closeness(estimate, float(thresholds[1]), *medians, (most - fewest) / 2)


def fid_gap(
    generated: Tensor, train: Tensor, test: Tensor, blocks: int = BLOCKS, seed: int = 0
) -> Gap:
    """FID(generated, train) - FID(generated, test), with references of equal size.

    FID has a bias of about 1/m in the reference, too, so the larger of the two is cut down to the
    size of the smaller. The interval is over samples of all three tables: delete-a-block jackknives
    (Kuensch, 1989) of each, whose variances add up. Those of the two FIDs are over the generated
    rows alone, as of any FID.
    """
    x = as_table(generated)
    m = min(len(train), len(test))
    references = [_cut(as_pair(x, as_table(rows))[1], m, seed) for rows in (train, test)]
    whole = Moments.of(x)
    moments = [Moments.of(rows) for rows in references]
    left_out = [whole - Moments.of(x[rows]) for rows in blocks_of(len(x), blocks, seed)]
    (of_train, *trains), (of_test, *tests) = (frechets([whole, *left_out], b) for b in moments)
    own, reaches = reach_of([a - b for a, b in zip(trains, tests, strict=True)]), []
    parts = blocks_of(m, min(blocks, m // 2), seed)
    for rows, all_of_them in zip(references, moments, strict=True):
        some = [all_of_them - Moments.of(rows[part]) for part in parts]
        reaches.append(reach_of(frechets(some, whole)))  # it is symmetric
    gap, reach = of_train - of_test, math.hypot(own, *reaches)
    ends = Interval(gap - reach, gap + reach)
    fids = around(of_train, trains, least=0), around(of_test, tests, least=0)
    return Gap(*fids, gap, ends, m, math.hypot(*reaches))


def _cut(table: Tensor, m: int, seed: int) -> Tensor:
    return table[torch.randperm(len(table), generator=generator(seed, "gap"))[:m]]
