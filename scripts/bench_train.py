"""Training speed: our UNet beside diffusers' UNet2DModel at equal forward FLOPs, in alternation.

    python scripts/bench_train.py                               # the quick preset against float32
    python scripts/bench_train.py --diffusers-precision bf16    # the fairest pair
    python scripts/bench_train.py model=ddpm --device cuda --diffusers-precision bf16

Ours trains as `diffuse train` does (fit() with its EMA and clipping, precision=auto, compiled on a
GPU). Theirs is the same network where they have it (course, ddpm), else one of equal FLOPs. Both
get the same images, padded to 32x32 because UNet2DModel halves them three times; its loop (in
bench_quality.py) neither averages weights nor clips gradients, and waits for no data loader.
Utilisation takes a training step for three forwards, and the fastest convolution of this run for
the peak.
"""

import argparse
import math
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from bench_quality import Rival, final_config, padded, rival_shape
from omegaconf import DictConfig, OmegaConf
from torch import nn

from diffuse import assembly, conditions, hardware
from diffuse.console import print_json
from diffuse.data import ImageSet, open_dataset
from diffuse.rehearsal import repeats
from diffuse.training import Recipe, Training, fit
from diffuse.utilisation import convolution_peak, forward_flops, seconds, utilisation

TARGET = {"cpu": 4, "cuda": 2}  # times diffusers' images/s
NEAR = 0.10  # largest difference between the forward FLOPs


def same_shape(model: DictConfig, channels: int) -> dict[str, Any] | None:
    """UNet2DModel's arguments for our network, where it has the same one."""
    ours = {key: model.get(key) for key in ("patch", "skips", "middle", "modulation")}
    if list(ours.values()) != [1, "every", "attention", "add"]:
        return None
    told = [level in model.attention for level in range(len(model.mults))]
    return {
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": [model.width * m for m in model.mults],
        "layers_per_block": model.blocks,
        "norm_num_groups": model.groups,
        "attention_head_dim": model.head_dim,
        "dropout": model.dropout,
        "down_block_types": ["AttnDownBlock2D" if a else "DownBlock2D" for a in told],
        "up_block_types": ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(told)],
    }


def nearest_shape(image: Sequence[int], flops: float, batch: int) -> dict[str, Any]:
    """The UNet2DModel within NEAR of `flops`: with its usual attention if there is such a one."""
    best = min(_candidates(image, flops, batch), key=lambda candidate: candidate[0])
    (too_far, *_), shape = best
    if too_far:
        raise SystemExit(f"no UNet2DModel is within {NEAR:.0%} of {flops / 1e9:.3f} GFLOP an image")
    return shape


def _candidates(
    image: Sequence[int], flops: float, batch: int
) -> Iterator[tuple[tuple[bool, bool, bool, float], dict[str, Any]]]:
    for attention in (True, False):
        for width in range(4, 260, 4):
            shape = rival_shape(image[0], width, attention)
            with torch.device("meta"):
                net = diffusers.UNet2DModel(**shape)
            ratio = forward_flops(net, image, batch) / flops
            yield (abs(ratio - 1) > NEAR, not attention, width % 8 != 0, abs(ratio - 1)), shape
            if ratio > 1 + NEAR:
                break


def our_steps(cfg: DictConfig, data: ImageSet, training: Training) -> Iterator[object]:
    """A training without an end, otherwise as the config says."""
    _, law = assembly.schedule_and_law(cfg)
    words = {k: v for k, v in cfg.train.items() if k in Recipe.__dataclass_fields__}
    words |= {"steps": 10**9, "range": tuple(cfg.range), "seed": cfg.seed}
    peaks = [group["lr"] for group in training.optimizer.param_groups]
    return fit(training, data, law, Recipe(**words), peaks)


@dataclass
class Contender:
    """One of the two, and its images/s in each round."""

    step: Callable[[], object]
    net: nn.Module
    arguments: Any  # of the network
    image: tuple[int, ...]
    batch: int
    dtype: torch.dtype
    switches: Callable[[], AbstractContextManager[None]]  # of torch, while it trains
    rates: list[float] = field(default_factory=list)

    def record(self, peak: float) -> dict[str, Any]:
        flops = forward_flops(self.net, self.image, self.batch)
        rate = statistics.median(self.rates)
        return {
            "network": self.arguments,
            "parameters": sum(p.numel() for p in self.net.parameters()),
            "precision": str(self.dtype).removeprefix("torch."),
            "image": list(self.image),
            "forward_flops_per_image": flops,
            "images_per_second": rate,
            "rounds": self.rates,
            "utilisation": utilisation(self.net, self.image, rate, peak),
        }


def contenders(
    cfg: DictConfig, device: torch.device, dtype: torch.dtype, layout: torch.memory_format
) -> list[Contender]:
    """Both networks on the same images, ready to take a step."""
    data, batch = open_dataset(cfg.dataset, "train").to(device), cfg.train.batch
    assembly.settle(cfg, device)
    denoiser = assembly.denoiser(cfg, data.spec, device)
    training = Training.new(denoiser, assembly.optimizer(cfg, denoiser.net), cfg.train.ema)
    with conditions.repeatable():
        training.strict = device.type == "cuda" and repeats(denoiser, data.spec.shape, device)
        assembly.compiled(cfg, denoiser, data.spec, device, 1, training.strict, lambda: math.inf)
    steps = our_steps(cfg, data, training)
    image = tuple(padded(data).shape[1:])
    shape = same_shape(cfg.model, image[0])
    if shape is None:
        shape = nearest_shape(image, forward_flops(denoiser.net, data.spec.shape, batch), batch)
    rival = Rival(data, shape, batch, dtype, cfg.seed, layout)
    ours = OmegaConf.to_container(cfg.model)
    spec, form = data.spec, denoiser.precision
    switches = conditions.repeatable  # as `diffuse train` sets them; theirs are torch's own
    return [
        Contender(lambda: next(steps), denoiser.net, ours, spec.shape, batch, form, switches),
        Contender(rival.step, rival.net, shape, image, batch, dtype, nullcontext),
    ]


def alternate(both: list[Contender], rounds: int, turn: float, device: torch.device) -> None:
    """A B A B ...: a turn is as many steps as take about `turn` seconds, two or more."""
    steps = []
    for one in both:
        with one.switches():
            seconds(one.step, 3, device)  # the first ones allocate and choose algorithms
            steps.append(max(2, round(2 * turn / seconds(one.step, 2, device))))
    for _ in range(rounds):
        for one, times in zip(both, steps, strict=True):
            with one.switches():
                one.rates.append(times * one.batch / seconds(one.step, times, device))


def report(record: dict[str, Any]) -> None:
    what = "Training speed: {dataset}, batch {batch}, {optimizer}, compiled: {compiled}; {machine}"
    print(what.format(**record))
    line = "{:10} {:>9} {:>6} {:>11} {:>14} {:>9} {:>14} {:>8}".format
    heads = ("precision", "image", "parameters", "GFLOP forward", "images/s", "rounds", "of peak")
    print(line("", *heads))
    flops = record["diffuse"]["forward_flops_per_image"]
    for name in ("diffuse", "diffusers"):
        one = record[name]
        low, high = min(one["rounds"]), max(one["rounds"])
        numbers = (f"{one['parameters']:,}", f"{one['forward_flops_per_image'] / 1e9:.4f}")
        rates = (f"{one['images_per_second']:.1f}", f"{low:.1f}-{high:.1f}")
        size = "{1}x{2}".format(*one["image"])
        print(line(name, one["precision"], size, *numbers, *rates, f"{one['utilisation']:.1%}"))
    shape, ratios = one["network"], record["ratios"]
    attention = "without" if "add_attention" in shape else "with"
    print(f"UNet2DModel {shape['block_out_channels']} {attention} attention, ", end="")
    print(f"{one['forward_flops_per_image'] / flops - 1:+.1%} forward FLOPs")
    print(f"peak {record['peak'] / 1e12:.3f} TFLOP/s: 3x3 convolution, {record['peak_at']}")
    print(f"{record['ratio']:.2f} times diffusers' images/s", end="")
    print(f" (rounds {min(ratios):.2f} to {max(ratios):.2f})", end="")
    print(f", target >= {record['target']}" if record["target"] else "", end="")
    print(f"; {record['flops_ratio']:.2f} times its FLOP/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="of diffuse train, e.g. model.width=64")
    parser.add_argument("--diffusers-precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--diffusers-layout", choices=("channels_last", "contiguous_format"))
    parser.add_argument("--device", default="auto", help="auto | cpu | cuda | cuda:N | mps")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a turn, about")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_intermixed_args()
    given = {word.partition("=")[0] for word in args.overrides}
    words = [*args.overrides, f"device={args.device}"]
    words += [] if "model" in given else ["model=quick"]
    words += [] if "optimizer" in given else ["optimizer=adamw"]  # as theirs
    words += [] if "dataset.fit" in given else ["dataset.fit=pad"]  # the same input
    cfg = final_config("train", words)
    device = hardware.device(cfg.device)
    # on a GPU its norms take the default layout only, so that it is the faster one there
    usual = "channels_last" if device.type == "cpu" else "contiguous_format"
    layout = getattr(torch, args.diffusers_layout or usual)
    both = contenders(cfg, device, hardware.PRECISIONS[args.diffusers_precision], layout)
    before = convolution_peak(device)
    alternate(both, args.rounds, args.seconds, device)
    peak, peak_at = max(before, convolution_peak(device))  # other load only lowers it
    ours, theirs = (one.record(peak) for one in both)
    ratio = ours["images_per_second"] / theirs["images_per_second"]
    record = {
        "machine": f"{hardware.describe(device)}, torch {torch.__version__}, "
        f"diffusers {diffusers.__version__}, load {os.getloadavg()[0]:.1f}",
        "dataset": cfg.dataset.name,
        "compiled": cfg.compile,
        "batch": cfg.train.batch,
        "optimizer": cfg.optimizer.name,
        "diffuse": ours,
        "diffusers": theirs,
        "ratio": ratio,
        "ratios": [a / b for a, b in zip(ours["rounds"], theirs["rounds"], strict=True)],
        "flops_ratio": ours["utilisation"] / theirs["utilisation"],
        "target": TARGET.get(device.type),
        "peak": peak,
        "peak_at": peak_at,
    }
    print_json(record) if args.json else report(record)


if __name__ == "__main__":
    main()
