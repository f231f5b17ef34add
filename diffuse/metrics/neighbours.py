"""Nearest neighbours of the rows of a table, by brute force in pieces that fit into the cache."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from diffuse.metrics.tables import as_pair, as_table

PIECE = 2**21  # distances at a time: 16 MiB


class Neighbours(NamedTuple):
    """The nearest first."""

    numbers: Tensor  # int64 [n k], rows of the other table
    distances: Tensor  # float64 [n k], Euclidean


def nearest(rows: Tensor, among: Tensor, k: int = 1) -> Neighbours:
    """The k nearest rows of `among` [m d] to each of `rows` [n d]."""
    x, y = as_pair(as_table(rows), as_table(among))
    _check(k, len(y))
    found = [squares.topk(k, largest=False).indices for _, squares in squared_distances(x, y)]
    return _exact(x, y, torch.cat(found))


def nearest_others(table: Tensor, k: int = 1, of: Tensor | None = None) -> Neighbours:
    """The k nearest other rows of the same table, to all of its rows or to those of number `of`.

    A row that occurs twice has its twin at distance 0.
    """
    y = as_table(table)
    _check(k, len(y) - 1)
    numbers = torch.arange(len(y)) if of is None else of
    found = []
    for start, squares in squared_distances(y[numbers], y):
        own = numbers[start : start + len(squares)]
        squares[torch.arange(len(own)), own] = torch.inf
        found.append(squares.topk(k, largest=False).indices)
    return _exact(y[numbers], y, torch.cat(found))


def squared_distances(x: Tensor, y: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The number of a first row of x, and squared distances [p m] of p rows from there to all y.

    |x|^2 - 2 x.y + |y|^2 is off by about 1e-15 of the squared lengths: around the median, which no
    single row moves, those of most rows are not much larger than distances.
    """
    middle = y.median(0).values
    x, y = x - middle, y - middle
    lengths = y.square().sum(1)
    step = max(1, PIECE // len(y))
    for start in range(0, len(x), step):
        rows = x[start : start + step]
        squares = torch.addmm(lengths, rows, y.T, alpha=-2)
        yield start, squares.add_(rows.square().sum(1, keepdim=True)).clamp_(min=0)


def _exact(x: Tensor, y: Tensor, index: Tensor) -> Neighbours:
    """Distances without cancellation, so that a copy is at distance 0."""
    columns = [(x - y[column]).square().sum(1).sqrt() for column in index.T]
    distance, order = torch.stack(columns, 1).sort(stable=True)
    return Neighbours(index.gather(1, order), distance)


def _check(k: int, most: int) -> None:
    if not 1 <= k <= most:
        raise ValueError(f"k must be in [1, {most}], the rows there are to be near to, got {k}")
