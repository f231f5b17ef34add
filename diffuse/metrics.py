"""How far apart two tables of features are: numbers only, float64 on the CPU, no images.

A table is [n d], one row per image. Every function refuses NaN and infinity with a ValueError.
"""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from scipy.linalg.lapack import dsygst  # pyright: ignore[reportAttributeAccessIssue]
from scipy.special import stdtrit
from torch import Tensor

from diffuse.seeds import generator


@dataclass(frozen=True)
class Moments:
    """Count, mean [d] and scatter [d d] (the sum of squares around the mean) of a table.

    `a + b` are the moments of both tables together and `a - b` those of the rows of a that are not
    in b (Chan, Golub & LeVeque, 1983), so that tables can be summed up in batches of any size.
    """

    n: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Moments":
        table = _table(features)
        mean = table.mean(0)
        return cls(len(table), mean, _gram(table - mean))

    @classmethod
    def known(cls, n: int, mean: Tensor, covariance: Tensor) -> "Moments":
        """From statistics that someone else computed from n samples."""
        d = mean.numel()
        if mean.shape != (d,) or covariance.shape != (d, d):
            shapes = f"{[*mean.shape]} and {[*covariance.shape]}"
            raise ValueError(f"mean and covariance must be [d] and [d d], got {shapes}")
        _refuse_nonfinite(mean, "mean")
        _refuse_nonfinite(covariance, "covariance")
        return cls(n, mean.double().cpu(), covariance.double().cpu() * (n - 1))

    @property
    def covariance(self) -> Tensor:
        """Unbiased [d d]."""
        if self.n < 2:
            raise ValueError(f"a covariance needs at least 2 samples, got {self.n}")
        return self.scatter / (self.n - 1)

    def __add__(self, other: "Moments") -> "Moments":
        n = self.n + other.n
        gap = other.mean - self.mean
        between = torch.outer(gap, gap) * (self.n * other.n / n)
        return Moments(n, self.mean + gap * (other.n / n), self.scatter + other.scatter + between)

    def __sub__(self, part: "Moments") -> "Moments":
        n = self.n - part.n
        if n < 1:
            raise ValueError(f"cannot take {part.n} samples out of {self.n}")
        gap = part.mean - self.mean
        between = torch.outer(gap, gap) * (self.n * part.n / n)
        return Moments(n, self.mean - gap * (part.n / n), self.scatter - part.scatter - between)


def frechet(a: Moments, b: Moments) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)): Dowson & Landau (1982), Eq. 4."""
    return _frechet(a, b, _factor(b.covariance))


def fid(a: Tensor, b: Tensor) -> float:
    """The Frechet distance of two tables [n d] and [m d]: Heusel et al. (2017), Eq. 6.

    It is biased upwards by about 1/n, more so the larger d, so compare at equal n only.
    """
    return frechet(Moments.of(a), Moments.of(b))


class Interval(NamedTuple):
    low: float
    high: float


def fid_interval(a: Tensor, b: Tensor, blocks: int = 20, seed: int = 0) -> Interval:
    """A 95% interval for E[fid(a, b)] over samples a of this size; the reference b is fixed.

    Delete-a-block jackknife (Kuensch, 1989) with Student's t. A percentile bootstrap is wrong here:
    a resampled table has fewer distinct rows, hence more bias, and its draws sit far above the FID.
    Where a and b come from one distribution it is too wide by about the square root of 2.
    """
    table, reference = _table(a), Moments.of(b)
    whole, factor = Moments.of(table), _factor(reference.covariance)
    left_out = (Moments.of(table[rows]) for rows in _blocks(len(table), blocks, seed))
    reach = _reach([_frechet(whole - part, reference, factor) for part in left_out])
    value = _frechet(whole, reference, factor)
    return Interval(max(0.0, value - reach), value + reach)


class Kid(NamedTuple):
    value: float  # the mean over subsets
    sd: float  # between subsets, not the error of the mean


def kid(a: Tensor, b: Tensor, subsets: int = 100, size: int | None = None, seed: int = 0) -> Kid:
    """Unbiased MMD^2 with kernel (x.y / d + 1)^3 over random subsets: Binkowski et al. (2018), 3.

    `size` defaults to 1,000 or the smaller table. Subsets are drawn without replacement.
    """
    x, y = _pair(_table(a), _table(b))
    most = min(len(x), len(y))
    size = min(1000, most) if size is None else size
    if subsets < 1:
        raise ValueError(f"subsets must be at least 1, got {subsets}")
    if not 2 <= size <= most:
        raise ValueError(f"size must be in [2, {most}], the smaller table's length, got {size}")
    random = generator(seed, "kid")
    draws = torch.stack(
        [_mmd(_subset(x, size, random), _subset(y, size, random)) for _ in range(subsets)]
    )
    return Kid(float(draws.mean()), float(draws.std(correction=0)))


def kid_interval(
    a: Tensor,
    b: Tensor,
    measured: Kid,  # kid(a, b, subsets)
    subsets: int,
    blocks: int = 20,
    seed: int = 0,
) -> Interval:
    """A 95% interval for E[kid(a, b)] over samples a of this size; the reference b is fixed.

    The subsets scatter around the MMD^2 of the whole tables, that around its mean: the variance of
    the first is sd^2 / subsets, of the second a delete-a-block jackknife's. KID may be negative.
    """
    x, y = _pair(_table(a), _table(b))
    parts = [x[rows] for rows in _blocks(len(x), blocks, seed)]
    across = torch.stack([_kernel(part, y).sum() for part in parts])
    within = x.new_zeros(blocks, blocks)
    for i, j in itertools.combinations_with_replacement(range(blocks), 2):
        kernel = _kernel(parts[i], parts[j])
        within[i, j] = within[j, i] = kernel.sum() - (kernel.trace() if i == j else 0)
    n = len(x) - torch.tensor([len(part) for part in parts])
    left = within.sum() - 2 * within.sum(0) + within.diagonal()
    draws = left / (n * (n - 1)) - 2 * (across.sum() - across) / (n * len(y))
    reach = math.hypot(_reach(draws.tolist()), 1.96 * measured.sd / math.sqrt(subsets))
    return Interval(measured.value - reach, measured.value + reach)


def _blocks(n: int, blocks: int, seed: int) -> tuple[Tensor, ...]:
    """The rows of each block. The division is random: samples may come sorted by class."""
    if not 2 <= blocks <= n // 2:
        raise ValueError(f"blocks must be in [2, n / 2 = {n // 2}], got {blocks}")
    return torch.randperm(n, generator=generator(seed, "jackknife")).tensor_split(blocks)


def _reach(draws: Sequence[float]) -> float:
    """Half of a 95% interval, from the statistic with each block left out."""
    blocks = len(draws)
    deviation = math.sqrt((blocks - 1) * statistics.pvariance(draws))
    return float(stdtrit(blocks - 1, 0.975)) * deviation


def _subset(table: Tensor, size: int, random: torch.Generator) -> Tensor:
    return table[torch.randperm(len(table), generator=random)[:size]]


def _mmd(x: Tensor, y: Tensor) -> Tensor:
    """Gretton et al. (2012), Eq. 3, for as many x as y: diagonals are left out of xx and yy."""
    n = len(x)
    xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    within = (xx.sum() - xx.trace() + yy.sum() - yy.trace()) / (n * (n - 1))
    return within - 2 * xy.mean()


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    base = (x @ y.T).div_(x.shape[1]).add_(1)
    return base.square().mul_(base)


def _frechet(a: Moments, b: Moments, factor: Tensor) -> float:
    """`factor` is b's, so that it is computed once where b stays the same."""
    _pair(a.mean[None], b.mean[None])
    root = _root_trace(a.covariance, factor)
    spread = a.covariance.trace() + b.covariance.trace()
    return max(0.0, float((a.mean - b.mean).square().sum() + spread - 2 * root))


def _factor(covariance: Tensor) -> Tensor:
    """F [d r] with F F' = covariance: Cholesky's at full rank, else scaled eigenvectors."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    pivots = factor.diagonal()
    if not failed and pivots.min() > 1e-7 * pivots.max():  # smaller ones are rounding errors
        return factor
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    return vectors[:, kept] * values[kept].sqrt()


def _root_trace(covariance: Tensor, factor: Tensor) -> Tensor:
    """tr (S F F')^(1/2), the sum of the singular values of S^(1/2) F.

    The eigenvalues of F'SF are their squares, at a third of the cost. Squaring drowns the smallest
    in rounding errors, so this way is taken only where those cannot matter.
    """
    if factor.shape[0] == factor.shape[1]:
        # LAPACK's F'SF for a triangular F: a third of the time of two products
        squared, _ = dsygst(covariance.numpy(), factor.numpy(), itype=2, lower=1)
        squares = torch.linalg.eigvalsh(torch.from_numpy(squared), UPLO="L")
        noise = squares[-1] * torch.finfo(squares.dtype).eps * len(squares) ** 0.5
        roots = squares.clamp(min=noise).sqrt()
        if (noise / roots).sum() < 1e-9 * roots.sum():
            return roots.sum()
    return torch.linalg.svdvals(_factor(covariance).T @ factor).sum()


def _gram(x: Tensor) -> Tensor:
    """x'x by numpy, which notices that both sides are the same and does half of the work."""
    rows = x.numpy()
    return torch.from_numpy(rows.T @ rows)


def _table(features: Tensor) -> Tensor:
    if features.ndim != 2 or not len(features) or not features.shape[1]:
        raise ValueError(f"features must be a table [n d], got shape {[*features.shape]}")
    _refuse_nonfinite(features, "features")
    return features.detach().cpu().double()


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.shape[1] != b.shape[1]:
        widths = f"{a.shape[1]} and {b.shape[1]}"
        raise ValueError(f"both tables must come from one encoder, got {widths} features")
    return a, b


def _refuse_nonfinite(values: Tensor, what: str) -> None:
    bad = ~values.isfinite()
    if bad.any():
        where = bad.nonzero()[0].tolist()
        raise ValueError(f"{what} must be finite, got {float(values[tuple(where)])} at {where}")
