"""Sampling speed: what a sampler costs beside its network, and our loop beside diffusers' own.

    python scripts/bench_samplers.py                        # the quick preset at batch 64
    python scripts/bench_samplers.py model=course --device cuda --rounds 5
    python scripts/bench_samplers.py --json

The first table is all that a step costs apart from the backbone and random numbers: sampling.walk()
with preconditioning, clipping and the look-out for NaN around a backbone that answers at once. The
second draws the same images by sampling.images() and by diffusers.DDIMPipeline, around the same
backbone and from the same noise, in float32 as is its default and in our number format.
"""

import argparse
import os
import statistics
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import diffusers
import torch
from bench_quality import final_config
from omegaconf import DictConfig
from torch import Tensor, nn

from diffuse import assembly, hardware, planning, sampling
from diffuse.cli import usage
from diffuse.console import print_json
from diffuse.data import ImageSpec, open_dataset
from diffuse.denoiser import Denoiser
from diffuse.objectives import v
from diffuse.sampling import Plan
from diffuse.schedules import Schedule
from diffuse.seeds import generator
from diffuse.utilisation import seconds

OVERHEAD, RATIO = 0.01, 1.3  # targets: at most, at least
SHORT = "steps=20"  # a walk that is over before other load interferes
# what both can do, with the network of the published numbers
LIKE = ["model=quick", "schedule=linear", "model.init=torch", "model.conditional=false"]


def planned(words: list[str], schedule: Schedule, batch: int) -> Plan:
    """A plan as `diffuse sample` makes it, for a network that knows the schedule's levels."""
    cfg = final_config("sample", ["clip=range", *words])
    return planning.plan(cfg, schedule, schedule.range, (-1.0, 1.0), batch, (0.0, 0.5), v())


class Instant(nn.Module):
    """A backbone whose answer is there already."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.answer = nn.Parameter(0.1 * x, requires_grad=False)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        return self.answer


def walk(denoiser: Denoiser, spec: ImageSpec, plan: Plan) -> int:
    """All the way down; how many calls it took."""
    labels = torch.zeros(plan.batch, dtype=torch.long)
    for *_, calls in sampling.walk(denoiser, spec, plan, range(plan.batch), labels):  # noqa: B007
        pass
    return calls


def overheads(
    denoiser: Denoiser, spec: ImageSpec, schedule: Schedule, args: argparse.Namespace
) -> tuple[float, dict[str, tuple[int, float]]]:
    """Seconds of the network, and for each sampler its calls and the rest of the time of one.

    The best of all rounds; the network is timed in between, so that other load hits both.
    """
    device = next(denoiser.parameters()).device
    noise = torch.randn(args.batch, *spec.shape)
    x, level = noise.to(device), torch.tensor(1.0, dtype=torch.float64)
    instant = Denoiser(Instant(x), denoiser.objective, denoiser.weighting, denoiser.precision)
    walks: dict[str, Callable[[], int]] = {}
    for name in usage.choices("sampler"):
        meta = final_config("sample", [f"sampler={name}"]).sampler.meta
        if "needs" not in meta:  # of another network, whose time would not be the sampler's
            words = [f"sampler={name}", *([] if meta.get("adaptive") else [SHORT])]
            walks[name] = partial(walk, instant, spec, planned(words, schedule, args.batch))
    network, best = [], dict.fromkeys(walks, float("inf"))
    with mock.patch.object(sampling, "Noise", return_value=lambda: noise), torch.no_grad():
        calls = {name: down() for name, down in walks.items()}
        for _ in range(10 * args.rounds):
            for name, down in walks.items():
                best[name] = min(best[name], seconds(down, 1, device) / calls[name])
            network.append(seconds(partial(denoiser, x, level), 1, device))
    return min(network), {name: (calls[name], took) for name, took in best.items()}


class Wrapped(nn.Module):
    """Our network behind the interface of UNet2DModel, in the number format of a pipeline's."""

    def __init__(self, denoiser: Denoiser, spec: ImageSpec, schedule: Schedule) -> None:
        super().__init__()
        self.net, self.precision, self.dtype = denoiser.net, torch.float32, torch.float32
        size = (spec.height, spec.width)
        self.config = SimpleNamespace(sample_size=size, in_channels=spec.channels)
        assert schedule.table is not None
        device = next(denoiser.parameters()).device
        self.register_buffer("told", (schedule.table.log() / 4).float().to(device))

    @property
    def device(self) -> torch.device:
        return self.told.device

    def forward(self, x: Tensor, t: Tensor) -> SimpleNamespace:
        with torch.autocast(x.device.type, self.precision, self.precision is not torch.float32):
            answer = self.net(x, self.told[t].expand(len(x)))
        return SimpleNamespace(sample=answer.to(x.dtype))


def draws(
    cfg: DictConfig,
    denoiser: Denoiser,
    spec: ImageSpec,
    schedule: Schedule,
    args: argparse.Namespace,
) -> dict[str, Callable[[], Tensor]]:
    """Ways to draw a batch of images, uint8 [b c h w]."""
    words = ["sampler=ddim", "grid=uniform", f"steps={args.steps}"]
    plan = planned(words, schedule, args.batch)
    wrapped = Wrapped(denoiser, spec, schedule)
    scheduler = diffusers.DDIMScheduler(
        cfg.schedule.T, cfg.schedule.betamin, cfg.schedule.betamax,
        timestep_spacing="trailing", prediction_type="v_prediction",
    )  # fmt: skip
    pipe = diffusers.DDIMPipeline(wrapped, scheduler)
    pipe.set_progress_bar_config(disable=True)

    def ours() -> Tensor:
        return next(sampling.images(denoiser, spec, plan, args.batch)).images

    def theirs(precision: torch.dtype) -> Tensor:
        wrapped.precision = precision
        noise = [generator(plan.seed, "image", k) for k in range(args.batch)]
        images = pipe(
            args.batch, noise, 0.0, args.steps, use_clipped_model_output=True, output_type="np"
        ).images
        return torch.from_numpy(images * 255).round().byte().permute(0, 3, 1, 2)

    ways = {"diffuse": ours, "diffusers fp32": partial(theirs, torch.float32)}
    if denoiser.precision is not torch.float32:
        ways["diffusers autocast"] = partial(theirs, denoiser.precision)
    return ways


def alternate(
    ways: dict[str, Callable[[], Tensor]], args: argparse.Namespace, device: torch.device
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """A B C A B C ...: images/s of each way in each round, and how far pixels are from ours."""
    images = {name: way().int() for name, way in ways.items()}  # the first walk allocates
    apart = {name: int((images["diffuse"] - other).abs().max()) for name, other in images.items()}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            rates[name].append(args.batch / seconds(way, 1, device))
    return rates, apart


def report(record: dict[str, Any]) -> None:
    print("Sampling: {dataset} {size}, batch {batch}; {machine}".format(**record))
    network = record["network_seconds"] * 1000
    print(f"A call of the network takes {network:.2f} ms ({record['precision']}); beside it")
    line = "{:18} {:>6} {:>10} {:>15}  {}".format
    print(line("sampler", "calls", "ms a call", "of the network", f"target <= {OVERHEAD:.0%}"))
    for name, one in record["samplers"].items():
        share = one["share"]
        verdict = "" if share <= OVERHEAD else "missed"
        took = f"{one['seconds'] * 1000:.3f}"
        print(line(name, one["calls"], took, f"{share:.2%}", verdict).rstrip())
    print(f"\nThe same network, DDIM in {record['steps']} steps")
    line = "{:20} {:>9} {:>12} {:>15} {:>13} {:>13}".format
    print(line("", "images/s", "rounds", "ours is faster", "rounds", "pixels apart"))
    for name, one in record["draws"].items():
        rates, ratios = one["images_per_second"], one["ratios"]
        numbers = (f"{statistics.median(rates):.1f}", f"{min(rates):.1f}-{max(rates):.1f}")
        times = (f"{statistics.median(ratios):.2f} times", f"{min(ratios):.2f}-{max(ratios):.2f}")
        print(line(name, *numbers, *times, one["apart"]))
    print(f"target: >= {RATIO} times diffusers' default")


def measured(cfg: DictConfig, args: argparse.Namespace) -> dict[str, Any]:
    device = hardware.device(cfg.device)
    spec = open_dataset(cfg.dataset, "test").spec
    schedule, _ = assembly.schedule_and_law(cfg)
    denoiser = assembly.denoiser(cfg, spec, device).eval()
    network, samplers = overheads(denoiser, spec, schedule, args)
    rates, apart = alternate(draws(cfg, denoiser, spec, schedule, args), args, device)
    ours = rates["diffuse"]
    return {
        "machine": f"{hardware.describe(device)}, torch {torch.__version__}, "
        f"diffusers {diffusers.__version__}, load {os.getloadavg()[0]:.1f}",
        "dataset": cfg.dataset.name,
        "size": "{1}x{2}".format(*spec.shape),
        "batch": args.batch,
        "steps": args.steps,
        "precision": str(denoiser.precision).removeprefix("torch."),
        "network_seconds": network,
        "samplers": {
            name: {"calls": calls, "seconds": took, "share": took / network}
            for name, (calls, took) in samplers.items()
        },
        "draws": {
            name: {
                "images_per_second": theirs,
                "ratios": [a / b for a, b in zip(ours, theirs, strict=True)],
                "apart": apart[name],
            }
            for name, theirs in rates.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("overrides", nargs="*", help="of diffuse train, e.g. model=course")
    add("--batch", type=int, default=64)
    add("--steps", type=int, default=50, help="of DDIM, for both")
    add("--device", default="auto", help="auto | cpu | cuda | cuda:N | mps")
    add("--rounds", type=int, default=5)
    add("--json", action="store_true")
    args = parser.parse_intermixed_args()
    cfg = final_config("train", [*LIKE, *args.overrides, f"device={args.device}"])
    record = measured(cfg, args)
    print_json(record) if args.json else report(record)


if __name__ == "__main__":
    main()
