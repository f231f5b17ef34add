"""What a classifier says of generated images, and how each class compares with its own kind."""

import math
import statistics
from typing import NamedTuple

import torch
from torch import Tensor

from diffuse.metrics.gaussian import fid_estimate
from diffuse.metrics.intervals import BLOCKS, Estimate, Jackknifed, around, blocks_of, wilson
from diffuse.metrics.tables import Moments, as_pair, as_table
from diffuse.seeds import generator


class InceptionScore(NamedTuple):
    """Of the whole table, with its interval; mean and sd over splits are what papers print."""

    value: float
    low: float
    high: float
    mean: float
    sd: float
    left_out: tuple[float, ...] = ()  # the value with each block left out


class ByClass(NamedTuple):
    """One FID a class, in the order of the classes, and their mean."""

    classes: tuple[Jackknifed, ...]
    mean: Jackknifed


def inception_score(
    probabilities: Tensor,  # [n classes], rows that sum to 1
    splits: int = 10,
    blocks: int = BLOCKS,
    seed: int = 0,
) -> InceptionScore:
    """exp(E KL(p(y|x) || p(y))), in [1, classes]: Salimans et al. (2016), Section 4.

    The value is of all rows at once, which has less bias than the mean over splits. Which rows are
    in which split is random, so that samples may come sorted by class.
    """
    table = _probabilities(probabilities)
    n, classes = table.shape
    if not 1 <= splits <= n:
        raise ValueError(f"splits must be in [1, n = {n}], got {splits}")
    sums, terms = table.sum(0), torch.special.entr(table).sum(1)
    value = _score(sums, terms.sum(), n)
    left_out = [
        _score(sums - table[rows].sum(0), terms.sum() - terms[rows].sum(), n - len(rows))
        for rows in blocks_of(n, blocks, seed)
    ]
    order = torch.randperm(n, generator=generator(seed, "splits"))
    of_splits = [
        _score(table[rows].sum(0), terms[rows].sum(), len(rows))
        for rows in order.tensor_split(splits)
    ]
    estimate = around(value, left_out, 1, classes)
    mean, sd = statistics.fmean(of_splits), statistics.pstdev(of_splits)
    return InceptionScore(*estimate, mean, sd, estimate.left_out)


def agreement(predicted: Tensor, asked: Tensor) -> Estimate:
    """The share of images whose predicted class [n] is the one they were asked for [n].

    The classification accuracy score of Ravuri & Vinyals (2019) turned around: a classifier of real
    images sees generated ones. Wilson's interval covers the share over samples of this size.
    """
    if predicted.shape != asked.shape or predicted.ndim != 1 or not len(asked):
        shapes = f"{[*predicted.shape]} and {[*asked.shape]}"
        raise ValueError(f"predicted and asked classes must both be [n], got {shapes}")
    return wilson(float((predicted.cpu() == asked.cpu()).double().mean()), len(asked))


def fid_by_class(
    a: Tensor,
    asked: Tensor,  # [n], the class that each row of a was asked for
    b: Tensor,
    labels: Tensor,  # [m], the class that each row of b has
) -> ByClass:
    """The FID within each class that `labels` has, and their mean: Miyato & Koyama (2018), "intra".

    A class has few rows, so its FID has more bias than that of all of them together: compare it at
    equal counts only. Rows of different classes are independent, so their variances add up.
    """
    x, y = as_pair(as_table(a), as_table(b))
    for rows, marks, name in ((x, asked, "asked"), (y, labels, "labels")):
        if marks.shape != (len(rows),):
            raise ValueError(f"{name} must be [{len(rows)}], a class a row, got {[*marks.shape]}")
    asked, labels = asked.cpu(), labels.cpu()
    unknown = sorted(set(asked.tolist()) - set(labels.tolist()))
    if unknown:
        raise ValueError(f"asked has class {unknown[0]}, of which the reference has no image")
    estimates = []
    for c in labels.unique().tolist():
        n, m = int((asked == c).sum()), int((labels == c).sum())
        if n < 4 or m < 2:
            raise ValueError(f"class {c} needs 4 images and 2 of the reference, got {n} and {m}")
        reference = Moments.of(y[labels == c])
        estimates.append(fid_estimate(x[asked == c], reference, min(BLOCKS, n // 2)))
    return ByClass(tuple(estimates), _mean(estimates))


def _mean(estimates: list[Jackknifed]) -> Jackknifed:
    """Where all classes have as many blocks, a block of each is left out at once, too."""
    mean = statistics.fmean(e.value for e in estimates)
    reach = math.hypot(*(e.high - e.value for e in estimates)) / len(estimates)
    tables = [e.left_out for e in estimates]
    alike = len({*map(len, tables)}) == 1
    left_out = map(statistics.fmean, zip(*tables, strict=True)) if alike else ()
    return Jackknifed.of([mean, max(0.0, mean - reach), mean + reach], left_out)


def _score(sums: Tensor, entropies: Tensor, n: int) -> float:
    """KL summed up is the entropy of the mean less the mean of the entropies: 0 to log(classes)."""
    divergence = float(torch.special.entr(sums.clamp(min=0) / n).sum() - entropies / n)
    return min(math.exp(max(0.0, divergence)), float(len(sums)))  # whatever rounding does


def _probabilities(probabilities: Tensor) -> Tensor:
    table = as_table(probabilities)
    wrong = (table < 0).any(1) | ((table.sum(1) - 1).abs() > 1e-3)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(f"row {row} is no distribution: it sums to {float(table[row].sum()):.6g}")
    return table / table.sum(1, keepdim=True)
