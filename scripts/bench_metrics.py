"""What numbers cost: Frechet distance, features, intervals; ours beside scipy and torchmetrics.

    python scripts/bench_metrics.py                  # ratios of the best of three, in alternation
    python scripts/bench_metrics.py --only features  # or frechet, intervals
    python scripts/bench_metrics.py --rounds 1 --n 1000

sqrtm is what pytorch-fid and clean-fid call; torchmetrics takes the eigenvalues of the product.
Both extractors of features run the same module, the shipped encoder, on the same uint8 images.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.linalg import sqrtm
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance, _compute_fid

from diffuse.encoders import encode, load_encoder
from diffuse.metrics import Moments, fid_infinity, fid_interval, frechet, nearest, overlap

D = 2048
TARGETS = {"scipy.linalg.sqrtm": 10, "torchmetrics": 3}


def features(seed: int, n: int, d: int, spread: float) -> Tensor:
    """Correlated features whose directions span `spread` in scale, float32 as from a network."""
    random = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=random) / d**0.5
    scales = torch.logspace(0, -np.log10(spread), d)
    return torch.randn(n, d, generator=random) * scales @ mix


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


def best_of(rounds: int, ways: dict[str, Callable[[], object]]) -> tuple[dict, dict]:
    """Seconds and values; in alternation, so that other load hits all of them."""
    best, values = dict.fromkeys(ways, float("inf")), {}
    for _ in range(rounds):
        for name, way in ways.items():
            took, values[name] = timed(way)
            best[name] = min(best[name], took)
    return best, values


def bench_frechet(rounds: int, n: int) -> None:
    seconds, (a, b) = timed(lambda: [Moments.of(features(seed, n, D, 10)) for seed in (0, 1)])
    ways = {"diffuse": frechet, "torchmetrics": by_torchmetrics, "scipy.linalg.sqrtm": by_sqrtm}
    best, values = best_of(rounds, {k: lambda way=way: way(a, b) for k, way in ways.items()})
    print(f"\nFrechet distance, d = {D}, n = {n:,}, float64")
    print(f"{'':24} {'seconds':>8} {'ratio':>6} {'target':>7}  value")
    for name, took in best.items():
        ratio, target = took / best["diffuse"], TARGETS.get(name)
        wanted = f">= {target}" if target else ""
        print(f"{name:24} {took:8.2f} {ratio:6.1f} {wanted:>7}  {values[name]:.9f}")
    print(f"{'both covariances':24} {seconds:8.2f}")


class WithoutChecks(nn.Module):
    """Any module goes into torchmetrics that says how many features it has."""

    def __init__(self, net: nn.Module, dim: int) -> None:
        super().__init__()
        self.net, self.num_features = net, dim

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)


def bench_features(rounds: int, n: int) -> None:
    encoder = load_encoder("fashion_mnist")
    shape = (n, encoder.channels, encoder.height, encoder.width)
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, shape, generator=random, dtype=torch.uint8)
    metric = FrechetInceptionDistance(feature=WithoutChecks(encoder, encoder.dim))

    def ours() -> Tensor:
        return Moments.of(encode(encoder, images)).mean

    def theirs() -> Tensor:
        metric.reset()
        for batch in images.split(256):
            metric.update(batch, real=True)
        return metric.real_features_sum / n

    best, values = best_of(rounds, {"torchmetrics": theirs, "diffuse": ours})
    print(f"\nFeatures and their moments, {encoder.name}, n = {n:,}, float32")
    print(f"{'':24} {'images/s':>8} {'ratio':>6} {'target':>7}")
    for name, took in best.items():
        wanted = ">= 2" if name == "diffuse" else ""
        print(f"{name:24} {n / took:8.0f} {best['torchmetrics'] / took:6.2f} {wanted:>7}")
    gap = (values["diffuse"] - values["torchmetrics"]).abs().max()
    print(f"{'largest difference':24} {gap:8.1e}  of mean features")


def bench_intervals(rounds: int, n: int) -> None:
    a, b = (features(seed, n, 128, 10) for seed in (2, 3))
    ways = {
        "fid_interval": lambda: fid_interval(a, b),
        "fid_infinity": lambda: fid_infinity(a, b),
        "overlap": lambda: overlap(a, b),
        "nearest": lambda: nearest(a, b),
    }
    best, _ = best_of(rounds, ways)
    print(f"\nIntervals and neighbours, d = 128, n = {n:,}")
    print(f"{'':24} {'seconds':>8} {'target':>7}")
    for name, took in best.items():
        wanted = "< 30" if name == "fid_interval" else ""
        print(f"{name:24} {took:8.2f} {wanted:>7}")


def main() -> None:
    parts = {"frechet": bench_frechet, "features": bench_features, "intervals": bench_intervals}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--only", choices=parts)
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads")
    for name, part in parts.items():
        if args.only in (None, name):
            part(args.rounds, args.n)


if __name__ == "__main__":
    main()
