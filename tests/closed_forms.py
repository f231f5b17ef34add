"""Problems whose denoiser, marginals and trajectories are known, without a network."""

from pathlib import Path

import torch
import yaml

CONF = Path(__file__).parents[1] / "conf"


def nodes(group):
    """The yamls of a group by name, as `config.build` takes them."""
    found = {}
    for path in sorted((CONF / group).glob("*.yaml")):
        found[path.stem] = yaml.safe_load(path.read_text())
        found[path.stem].pop("defaults", None)  # Hydra's, which other yamls it goes with
    return found


def column(sigma):
    """One level, or one for each image, beside images [b d]."""
    return sigma[:, None] if sigma.ndim else sigma


class Gaussian:
    """Data N(mean, diag(std^2)): x stays as many deviations from the mean as it began."""

    mean = torch.tensor([0.3, -0.2, 0.1, 0.0, 0.5], dtype=torch.float64)
    std = torch.tensor([0.25, 0.5, 0.8, 1.0, 1.7], dtype=torch.float64)

    def denoise(self, x, sigma):
        """E[x0 | x], x [5] or [b 5]."""
        sigma = column(sigma)
        return (self.std**2 * x + sigma**2 * self.mean) / (self.std**2 + sigma**2)

    def state(self, sigma, deviations=2.0):
        """Where the probability-flow ODE is at a level."""
        return self.mean + deviations * (self.std**2 + sigma**2).sqrt()


class Mixture:
    """Data in one dimension: two Gaussians of one width, the left one with a share of 0.3."""

    means = torch.tensor([-1.0, 0.8], dtype=torch.float64)
    shares = torch.tensor([0.3, 0.7], dtype=torch.float64)
    std = 0.2

    def _posterior(self, x, sigma):
        variance = self.std**2 + (sigma**2).view(-1, *[1] * x.ndim)
        gap = x[..., None] - self.means
        return torch.softmax(self.shares.log() - gap**2 / (2 * variance), dim=-1)

    def denoise(self, x, sigma):
        shared = (sigma**2).view(-1, *[1] * x.ndim)
        each = (self.std**2 * x[..., None] + shared * self.means) / (self.std**2 + shared)
        return (self._posterior(x, sigma) * each).sum(-1)

    def cdf(self, x, sigma=0.0):
        """The share of noised data below x."""
        z = (x[..., None] - self.means) / (self.std**2 + sigma**2) ** 0.5
        return (self.shares * torch.special.ndtr(z)).sum(-1)


class Points:
    """A finite data set [n d], all of it equally likely: the ideal denoiser is a softmax."""

    def __init__(self, points):
        self.points = points

    def denoise(self, x, sigma):
        sigma = column(sigma)
        distance = torch.cdist(x, self.points) ** 2
        return torch.softmax(-distance / (2 * sigma**2), dim=1) @ self.points
