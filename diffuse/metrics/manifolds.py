"""Precision and recall, density and coverage: two tables seen through their nearest neighbours."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from diffuse.metrics.intervals import BLOCKS, Estimate, around, blocks_of, of_share, wilson
from diffuse.metrics.neighbours import nearest_others, squared_distances
from diffuse.metrics.tables import as_pair, as_table

TIE = 2**-46  # of both squared lengths: what rounding may do to two equal distances


class Overlap(NamedTuple):
    precision: Estimate  # share of generated rows that look real
    recall: Estimate  # share of real rows that the generator could have drawn
    density: Estimate  # how many real neighbourhoods hold a generated row, beside the k expected
    coverage: Estimate  # share of real rows with a generated one in their neighbourhood


def overlap(a: Tensor, b: Tensor, k: int = 5, blocks: int = BLOCKS, seed: int = 0) -> Overlap:
    """How generated rows a [n d] and real rows b [m d] overlap, all four in one pass.

    A row's ball reaches to its k-th neighbour in its own table. Precision and recall are the shares
    in any ball of the other table: Kynkaanniemi et al. (2019), Eq. 1 and 2. Density is the mean
    number of real balls around a generated row over k, not counting those on whose edge it lies, so
    1 for real rows themselves; coverage is the share of real balls with any generated row in it:
    Naeem et al. (2020), as in their code. All depend on n and m, so compare at equal ones only.

    The intervals are over samples a of this size; the reference b is fixed. Those of recall and
    coverage are 1.2 to 1.8 times too wide: a jackknife is (Efron & Stein, 1981), where rows count
    for what others are not there. Near 0 or 1 they are at least Wilson's.

    A feature that spans a million times the distances between neighbours drowns them in rounding.
    """
    fake, real = as_pair(as_table(a), as_table(b))
    parts = blocks_of(len(fake), blocks, seed)
    fake = fake[torch.cat(parts)]  # each block is now a slice
    sizes = [len(part) for part in parts]
    if k > min(len(fake) - max(sizes), len(real)) - 1:
        most = min(len(fake) - max(sizes), len(real)) - 1
        raise ValueError(f"k must be in [1, {most}], the neighbours a row has, got {k}")
    radii = nearest_others(real, k).distances[:, -1].square()
    counts = _count(fake, real, radii, _balls(fake, k, sizes), sizes)
    precision = wilson(float(counts.inside.double().mean()), len(fake))
    return Overlap(
        precision=precision,
        recall=of_share(counts.recalled[0], counts.recalled[1:], len(real), k),
        density=_density(counts.holding.double() / k, sizes, precision),
        coverage=of_share(counts.covered[0], counts.covered[1:], len(real), k),
    )


def _density(held: Tensor, sizes: list[int], precision: Estimate) -> Estimate:
    """The mean over rows; it is no surer than what share of them is in any ball at all."""
    value = float(held.mean())
    found = around(value, _means_without(held, sizes), least=0)
    each = value / precision.value if precision.value else 1.0  # of those that are in one
    low, high = each * precision.low, each * precision.high
    if found.low <= low and high <= found.high:
        return found
    return Estimate(value, min(found.low, low), max(found.high, high))


@dataclass
class _Counts:
    inside: Tensor  # bool [n]: is a generated row in any real ball?
    holding: Tensor  # int64 [n]: real balls around each, without those on whose edge it lies
    recalled: list[float]  # the share of real rows, at first of all, then without each block
    covered: list[float]


def _count(fake: Tensor, real: Tensor, radii: Tensor, balls: Tensor, sizes: list[int]) -> _Counts:
    blocks = len(sizes)
    inside, holding = torch.zeros(len(fake), dtype=torch.bool), torch.zeros(len(fake)).long()
    recalled, covered = torch.zeros(2, blocks + 1, dtype=torch.int64)
    ours, theirs = (TIE * (t - fake.median(0).values).square().sum(1) for t in (real, fake))
    largest = balls.amax(0)
    for start, squares in squared_distances(real, fake):
        part = slice(start, start + len(squares))
        reach, tie = radii[part, None], ours[part, None] + theirs
        holding += (squares + tie < reach).sum(0)
        nearest = squares - tie
        within = nearest <= reach
        inside |= within.any(0)
        covered += _held(within, sizes)
        recalled[0] += _held(nearest <= balls[0], sizes)[0]
        open_rows = nearest[(nearest <= largest).any(1)]  # the others are in no ball at all
        for block, (first, last) in enumerate(_ends(sizes)):
            hit = open_rows <= balls[1 + block]
            hit[:, first:last] = False
            recalled[1 + block] += hit.any(1).sum()
    recalled, covered = recalled.double() / len(real), covered.double() / len(real)
    return _Counts(inside, holding, recalled.tolist(), covered.tolist())


def _balls(fake: Tensor, k: int, sizes: list[int]) -> Tensor:
    """Squared distances [1 + blocks n] to the k-th neighbour: in all, then without each block."""
    found = []
    for start, squares in squared_distances(fake, fake):
        rows = torch.arange(len(squares))
        squares[rows, start + rows] = torch.inf
        nearest = [part.topk(min(k, part.shape[1]), largest=False).values.sort().values
                   for part in squares.split(sizes, 1)]  # fmt: skip
        block = torch.cat([torch.full((near.shape[1],), i) for i, near in enumerate(nearest)])
        distances, order = torch.cat(nearest, 1).sort()
        block = block[order]
        kth = [distances[:, k - 1]]
        for i in range(len(sizes)):
            rank = (block != i).cumsum(1)
            place = (rank == k).to(torch.uint8).argmax(1, keepdim=True)
            kth.append(distances.gather(1, place).squeeze(1))
        found.append(torch.stack(kth))
    return torch.cat(found, 1)


def _held(within: Tensor, sizes: list[int]) -> Tensor:
    """How many rows of `within` [p n] hold any column: of all, then without each block."""
    any_of = torch.stack([part.any(1) for part in within.split(sizes, 1)], 1)
    number = any_of.sum(1, keepdim=True)
    return torch.cat([(number > 0).sum(0), (number > any_of).sum(0)])


def _means_without(values: Tensor, sizes: list[int]) -> list[float]:
    total, n = values.sum(), len(values)
    sums = [part.sum() for part in values.split(sizes)]
    return [float((total - some) / (n - size)) for some, size in zip(sums, sizes, strict=True)]


def _ends(sizes: list[int]) -> Iterator[tuple[int, int]]:
    last = 0
    for size in sizes:
        first, last = last, last + size
        yield first, last
