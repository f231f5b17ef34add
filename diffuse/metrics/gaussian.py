"""The Frechet distance of two tables of features, and how sure it is."""

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor

from diffuse.metrics.intervals import BLOCKS, Jackknifed, around, blocks_of
from diffuse.metrics.tables import Moments, as_pair


def frechet(a: Moments, b: Moments) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)): Dowson & Landau (1982), Eq. 4."""
    return _frechet(a, b, _factor(b.covariance))


def fid(a: Tensor, b: Tensor) -> float:
    """The Frechet distance of two tables [n d] and [m d]: Heusel et al. (2017), Eq. 6.

    It is biased upwards by about 1/n, more so the larger d, so compare at equal n only.
    """
    return frechet(Moments.of(a), Moments.of(b))


def fid_estimate(
    table: Tensor, reference: Moments, blocks: int = BLOCKS, seed: int = 0
) -> Jackknifed:
    """The FID and a 95% interval for its mean over tables of this size; the reference is fixed.

    Delete-a-block jackknife (Kuensch, 1989) with Student's t. A percentile bootstrap is wrong here:
    a resampled table has fewer distinct rows, hence more bias, and its draws sit far above the FID.
    Where both are of one distribution it is too wide by about the square root of 2.
    """
    value, *left_out = jackknifed(table, reference, blocks, seed)
    return around(value, left_out, least=0)


def jackknifed(
    table: Tensor, reference: Moments, blocks: int = BLOCKS, seed: int = 0
) -> list[float]:
    """The FID of all rows, then with each block of them left out."""
    whole = Moments.of(table)
    rest = (whole - Moments.of(table[rows]) for rows in blocks_of(len(table), blocks, seed))
    return frechets(itertools.chain([whole], rest), reference)  # one at a time


def frechets(tables: Iterable[Moments], reference: Moments) -> list[float]:
    """The Frechet distance of each to one reference, which is decomposed only once."""
    factor = _factor(reference.covariance)
    return [_frechet(moments, reference, factor) for moments in tables]


def _frechet(a: Moments, b: Moments, factor: Tensor) -> float:
    """`factor` is b's, so that it is computed once where b stays the same."""
    as_pair(a.mean[None], b.mean[None])
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
    half = len(factor) // 2
    if factor.shape[0] == factor.shape[1] and not factor[:half, half:].any():
        squares = torch.linalg.eigvalsh(_lower_of_product(covariance, factor), UPLO="L")
        noise = squares[-1] * torch.finfo(squares.dtype).eps * len(squares) ** 0.5
        roots = squares.clamp(min=noise).sqrt()
        if (noise / roots).sum() < 1e-9 * roots.sum():
            return roots.sum()
    return torch.linalg.svdvals(_factor(covariance).T @ factor).sum()


def _lower_of_product(covariance: Tensor, factor: Tensor) -> Tensor:
    """The lower triangle of F'SF for a lower triangular F, at 9/16 of the cost of two products.

    The quarter of F that is zero is left out, and so is the upper quarter of what is symmetric.
    LAPACK's dsygst is no faster, and SciPy's has threads that get in the way of torch's.
    """
    half = len(factor) // 2
    left, corner = factor[:, :half], factor[half:, half:]
    product, across = torch.zeros_like(covariance), covariance @ left
    product[:half, :half] = left.T @ across
    product[half:, :half] = corner.T @ across[half:]
    product[half:, half:] = corner.T @ (covariance[half:, half:] @ corner)
    return product
