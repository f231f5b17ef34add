"""The Frechet distance of 2048-d statistics: ours beside scipy.linalg.sqrtm and torchmetrics.

    python scripts/bench_metrics.py            # ratios of the best of three, in alternation
    python scripts/bench_metrics.py --rounds 1

sqrtm is what pytorch-fid and clean-fid call; torchmetrics takes the eigenvalues of the product.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.linalg import sqrtm
from torch import Tensor
from torchmetrics.image.fid import _compute_fid

from diffuse.metrics import Moments, fid_interval, frechet

N, D = 10_000, 2048
TARGETS = {"scipy.linalg.sqrtm": 10, "torchmetrics": 3}


def features(seed: int, d: int, spread: float) -> Tensor:
    """Correlated features whose directions span `spread` in scale, float32 as from a network."""
    random = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=random) / d**0.5
    scales = torch.logspace(0, -np.log10(spread), d)
    return torch.randn(N, d, generator=random) * scales @ mix


def by_sqrtm(a: Moments, b: Moments) -> float:
    s, t = a.covariance.numpy(), b.covariance.numpy()
    gap = (a.mean - b.mean).numpy()
    return float(gap @ gap + np.trace(s + t) - 2 * np.trace(np.asarray(sqrtm(s @ t)).real))


def by_torchmetrics(a: Moments, b: Moments) -> float:
    return float(_compute_fid(a.mean, a.covariance, b.mean, b.covariance))


def timed(call: Callable[[], object]) -> tuple[float, object]:
    started = time.perf_counter()
    value = call()
    return time.perf_counter() - started, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    seconds, (a, b) = timed(lambda: [Moments.of(features(seed, D, 10)) for seed in (0, 1)])
    ways = {"diffuse": frechet, "torchmetrics": by_torchmetrics, "scipy.linalg.sqrtm": by_sqrtm}
    best, values = dict.fromkeys(ways, float("inf")), {}
    for _ in range(rounds):  # in alternation, so that other load hits all of them
        for name, way in ways.items():
            took, values[name] = timed(lambda way=way: way(a, b))
            best[name] = min(best[name], took)
    print(f"Frechet distance, d = {D}, n = {N:,}, {torch.get_num_threads()} threads, float64")
    print(f"{'':20} {'seconds':>8} {'ratio':>6} {'target':>7}  value")
    for name, took in best.items():
        ratio, target = took / best["diffuse"], TARGETS.get(name)
        wanted = f">= {target}" if target else ""
        print(f"{name:20} {took:8.2f} {ratio:6.1f} {wanted:>7}  {values[name]:.9f}")
    print(f"{'both covariances':20} {seconds:8.2f}")
    few = [features(seed, 128, 10) for seed in (2, 3)]
    took, _ = timed(lambda: fid_interval(*few))
    print(f"{'interval at d = 128':20} {took:8.2f}         < 30")


if __name__ == "__main__":
    main()
