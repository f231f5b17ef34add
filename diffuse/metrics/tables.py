"""Tables of features, [n d] in float64 on the CPU: checked, summed up, cut into blocks."""

from dataclasses import dataclass

import torch
from torch import Tensor


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
        table = as_table(features)
        mean = table.mean(0)
        centred = table - mean
        return cls(len(table), mean, centred.T @ centred)

    @classmethod
    def known(cls, n: int, mean: Tensor, covariance: Tensor) -> "Moments":
        """From statistics that someone else computed from n samples."""
        d = mean.numel()
        if mean.shape != (d,) or covariance.shape != (d, d):
            shapes = f"{[*mean.shape]} and {[*covariance.shape]}"
            raise ValueError(f"mean and covariance must be [d] and [d d], got {shapes}")
        refuse_nonfinite(mean, "mean")
        refuse_nonfinite(covariance, "covariance")
        return cls(n, mean.cpu().double(), covariance.cpu().double() * (n - 1))

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


def as_table(features: Tensor) -> Tensor:
    """Features [n d] as float64 on the CPU; ValueError if there are none or one is not finite."""
    if features.ndim != 2 or not len(features) or not features.shape[1]:
        raise ValueError(f"features must be a table [n d], got shape {[*features.shape]}")
    refuse_nonfinite(features, "features")
    return features.detach().cpu().double()


def as_pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both [n d] and [m d] as they are; ValueError if their numbers of features differ."""
    if a.shape[1] != b.shape[1]:
        widths = f"{a.shape[1]} and {b.shape[1]}"
        raise ValueError(f"both tables must come from one encoder, got {widths} features")
    return a, b


def refuse_nonfinite(values: Tensor, what: str) -> None:
    """ValueError that names the first value that is not finite, and where it is."""
    bad = ~values.isfinite()
    if bad.any():
        where = bad.nonzero()[0].tolist()
        raise ValueError(f"{what} must be finite, got {float(values[tuple(where)])} at {where}")
