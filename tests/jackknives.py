"""The jackknife of any statistic by definition, beside which the fast ones must agree."""

import torch

from diffuse.metrics.intervals import around, blocks_of


def jackknife(statistic, n, blocks=20, seed=0):
    """Delete-a-block, with Student's t; `statistic` takes the numbers of the rows that are kept."""
    draws = []
    for part in blocks_of(n, blocks, seed):
        kept = torch.ones(n, dtype=torch.bool)
        kept[part] = False
        draws.append(statistic(kept.nonzero().squeeze(1)))
    return around(statistic(torch.arange(n)), draws)
