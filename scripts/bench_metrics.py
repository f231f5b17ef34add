"""What numbers cost: Frechet distance, features, intervals; ours beside scipy and torchmetrics.

    python scripts/bench_metrics.py                  # ratios of the best of three, in alternation
    python scripts/bench_metrics.py --only features  # or frechet, intervals
    python scripts/bench_metrics.py --rounds 1 --n 1000

sqrtm is what pytorch-fid and clean-fid call; torchmetrics takes the eigenvalues of the product.
Features are those of the same module, the shipped classifier, which torchmetrics gets as any module
is written, and of Inception-v3 with the same random weights in either's network; both get the same
uint8 images.
"""

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from scipy.linalg import sqrtm
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance, _compute_fid

from diffuse.classifier import Classifier, centred
from diffuse.data import ImageSpec
from diffuse.encoders import Encoder, about_encoder, encode, inception, load_encoder
from diffuse.encoders.inception import FEATURES, LOGITS, Inception
from diffuse.encoders.trained import ASSETS
from diffuse.metrics import Moments, fid_estimate, fid_infinity, frechet, nearest, overlap

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


class AsWritten(nn.Module):
    """The module without what an `Encoder` makes of it; torchmetrics asks for `num_features`."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.net = Classifier(**about_encoder(file)["network"])
        self.net.load_state_dict({key: value.float() for key, value in load_file(file).items()})
        self.num_features = self.net.dim

    def forward(self, images: Tensor) -> Tensor:
        return self.net(centred(images))


def random_weights() -> dict[str, Tensor]:
    """A file of Inception-v3 as it is published, without what it has learnt."""
    found: dict[str, Tensor] = {"fc.weight": torch.randn(LOGITS, FEATURES) / 50}
    found["fc.bias"] = torch.zeros(LOGITS)
    for name, layer in Inception().named_modules():
        if isinstance(layer, nn.Conv2d):
            name = name.removeprefix("stem.").removeprefix("blocks.")
            fan = layer.weight[0].numel()
            found[f"{name}.conv.weight"] = torch.randn_like(layer.weight) * (2 / fan) ** 0.5
            for word, value in (
                ("bias", 0),
                ("running_mean", 0),
                ("weight", 1),
                ("running_var", 1),
            ):
                found[f"{name}.bn.{word}"] = torch.full([layer.out_channels], value)
            found[f"{name}.bn.num_batches_tracked"] = torch.tensor(0)
    return found


def same_module() -> tuple[Encoder, FrechetInceptionDistance]:
    """The shipped classifier, for both."""
    as_written = AsWritten(ASSETS / "fashion_mnist.safetensors").eval()
    return load_encoder("fashion_mnist"), FrechetInceptionDistance(feature=as_written)


def inceptions() -> tuple[Encoder, FrechetInceptionDistance]:
    """The same weights in our network and in torchmetrics' own."""
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/weights.pth"
        torch.manual_seed(0)
        torch.save(random_weights(), file)
        spec = ImageSpec("photos", 3, 32, 32, 32, 32, "none", ())
        sha256 = hashlib.sha256(Path(file).read_bytes()).hexdigest()
        ours = inception(spec, file, sha256, "tf")
        return ours, FrechetInceptionDistance(feature_extractor_weights_path=file, antialias=False)


def bench_features(rounds: int, n: int) -> None:
    print("\nFeatures and their moments, float32; the target is 2 times torchmetrics' images/s")
    print(f"{'':24} {'n':>6} {'torchmetrics':>12} {'diffuse':>8} {'ratio':>6}  difference")
    for make, number, side in ((same_module, n, 28), (inceptions, min(n, 128), 32)):
        encoder, metric = make()
        shape = (number, encoder.channels, side, side)
        random = torch.Generator().manual_seed(0)
        images = torch.randint(256, shape, generator=random, dtype=torch.uint8)
        ways = {"ours": partial(ours, encoder, images), "theirs": partial(theirs, metric, images)}
        best, values = best_of(rounds, ways)
        gap = (values["ours"] - values["theirs"]).abs().max() / values["theirs"].abs().max()
        rates = f"{number / best['theirs']:12.1f} {number / best['ours']:8.1f}"
        ratio = best["theirs"] / best["ours"]
        print(f"{encoder.name:24} {number:6,} {rates} {ratio:6.2f}  {gap:.1e}")


def ours(encoder: Encoder, images: Tensor) -> Tensor:
    return Moments.of(encode(encoder, images)).mean


def theirs(metric: FrechetInceptionDistance, images: Tensor) -> Tensor:
    metric.reset()
    for batch in images.split(64):
        metric.update(batch, real=True)
    return metric.real_features_sum / len(images)


def bench_intervals(rounds: int, n: int) -> None:
    a, b = (features(seed, n, 128, 10) for seed in (2, 3))
    ways = {
        "fid_estimate": lambda: fid_estimate(a, Moments.of(b)),
        "fid_infinity": lambda: fid_infinity(a, b),
        "overlap": lambda: overlap(a, b),
        "nearest": lambda: nearest(a, b),
    }
    best, _ = best_of(rounds, ways)
    print(f"\nIntervals and neighbours, d = 128, n = {n:,}")
    print(f"{'':24} {'seconds':>8} {'target':>7}")
    for name, took in best.items():
        wanted = "< 30" if name == "fid_estimate" else ""
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
