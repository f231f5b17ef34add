"""Quality after equal time: the quickstart beside the lessons' recipe on diffusers.

    python scripts/bench_quality.py                             # 4 minutes each, about 13 in all
    python scripts/bench_quality.py --minutes 8 --save samples/
    python scripts/bench_quality.py --only ours train.batch=128

Ours goes through the product: `diffuse train experiment=quickstart`, then `diffuse sample`. Theirs
is UNet2DModel by the lessons' recipe in float32, for as many seconds as ours took in the end, and
DDIMScheduler with its own defaults. One encoder scores both, beside real images.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor, nn

from diffuse import assembly, cli, hardware, runs, scoring
from diffuse.cli import arguments, composing, usage
from diffuse.data import ImageSet, open_dataset, to_range, to_uint8, unfit
from diffuse.data.images import fitted
from diffuse.scoring import Real, Settings, measured, rows_of

Fid = dict[str, Any]  # value, ci95, floor
TICKS = 10_000  # of the one-cycle schedule, which follows the clock and so ends on time


class Rival:
    """UNet2DModel by the lessons' recipe: pixels in +-0.5, betas up to 0.01, eps, AdamW."""

    range = (-0.5, 0.5)
    beta_end = 0.01
    lr = 4e-3  # at the peak of one-cycle

    def __init__(
        self,
        data: ImageSet,
        shape: dict[str, Any],
        batch: int,
        dtype: torch.dtype,
        seed: int,
        layout: torch.memory_format = torch.channels_last,
    ) -> None:
        torch.manual_seed(seed)
        self.images, self.batch, self.dtype, self.layout = padded(data), batch, dtype, layout
        self.device = self.images.device
        self.net = diffusers.UNet2DModel(**shape)
        lessons_init(self.net)
        self.net.to(self.device, memory_format=layout)  # pyright: ignore[reportCallIssue]
        # one-cycle begins at a 25th of its peak; eps is the lessons'
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=self.lr / 25, eps=1e-5)
        self.noising = diffusers.DDPMScheduler(beta_end=self.beta_end)
        self.order = torch.empty(0, dtype=torch.long)

    def step(self) -> None:
        """The loop of diffusers' train_unconditional.py, without a data loader to wait for."""
        x0 = to_range(self._next_images(), self.range)
        noise = torch.randn_like(x0)
        t = torch.randint(len(self.noising.betas), (len(x0),), device=self.device)
        x = self.noising.add_noise(x0, noise, t).contiguous(memory_format=self.layout)
        with torch.autocast(self.device.type, self.dtype, self.dtype is not torch.float32):
            predicted = self.net(x, t).sample
        F.mse_loss(predicted.float(), noise).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _next_images(self) -> Tensor:
        if len(self.order) < self.batch:
            self.order = torch.randperm(len(self.images), device=self.device)
        index, self.order = self.order[: self.batch], self.order[self.batch :]
        return self.images[index]


def padded(data: ImageSet) -> Tensor:
    """The images with zeros around them up to the next multiple of 32."""
    return fitted(unfit(data.images, data.spec), "pad")


def rival_shape(channels: int, width: int, attention: bool = True) -> dict[str, Any]:
    """UNet2DModel's arguments for (w, 2w, 4w, 8w), else its defaults; the lessons' 8 groups."""
    shape = {
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": tuple(width * m for m in (1, 2, 4, 8)),
        "norm_num_groups": 8 if width % 8 == 0 else 4,
    }
    if attention:  # its default: in the middle and at three of four levels
        return shape
    down, up = ("DownBlock2D",) * 4, ("UpBlock2D",) * 4
    return shape | {"down_block_types": down, "up_block_types": up, "add_attention": False}


def lessons_init(net: nn.Module) -> None:
    """Their `init_ddpm`: residual blocks add nothing at first, downsampling is orthogonal."""
    for block in (*net.down_blocks, *net.up_blocks):
        for resnet in block.resnets:
            nn.init.zeros_(resnet.conv2.weight)
        for downsampler in getattr(block, "downsamplers", None) or ():
            nn.init.orthogonal_(downsampler.conv.weight)
    nn.init.zeros_(net.conv_out.weight)


@dataclass
class Result:
    """What came of one recipe."""

    images: Tensor  # uint8 [n c h w] at the data's own size
    train_seconds: float  # all that the clock saw, grids and checkpoints included
    steps: int
    images_seen: int
    images_per_second: float  # of sampling


def ours(args: argparse.Namespace) -> Result:
    """The product itself, in a folder that is deleted."""
    with tempfile.TemporaryDirectory() as folder:
        common = ["name=ours", f"outputs={folder}", f"seed={args.seed}", f"device={args.device}"]
        length = f"train.minutes={args.minutes:g}"
        run("train", "experiment=quickstart", length, *common, *args.overrides)
        images = [f"n={args.n}", "sampler=ddim", f"steps={args.steps}", "guidance=1"]  # their calls
        run("sample", "run=ours", "save=npy", *images, *common)
        trained, sampled = (Path(folder, verb, "ours", "latest") for verb in ("train", "sample"))
        images = torch.from_numpy(np.load(sampled / "images.npy"))
        facts, rate = runs.read(trained), runs.read(sampled)["images_per_second"]
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return Result(images, facts["seconds"], facts["step"], facts["images_seen"], rate)


def run(*words: str) -> None:
    """A command of ours; what it prints goes to stderr, where it does not disturb the table."""
    with contextlib.redirect_stdout(sys.stderr):
        code = cli.main(list(words))
    if code:
        raise SystemExit(code)


def theirs(args: argparse.Namespace, data: ImageSet, seconds: float) -> Result:
    """The first row of the reference's table: (16, 32, 64, 128), attention as by default."""
    rival = Rival(data, rival_shape(data.spec.channels, 16), 128, torch.float32, args.seed)
    print(f"diffusers: training for {seconds:.0f} s", file=sys.stderr, flush=True)
    steps, took = train(rival, seconds)
    print(f"diffusers: {steps} steps, now drawing {args.n}", file=sys.stderr, flush=True)
    started = time.perf_counter()
    images = draw(rival, data, args)
    rate = args.n / (time.perf_counter() - started)
    return Result(images, took, steps, steps * rival.batch, rate)


def train(rival: Rival, seconds: float) -> tuple[int, float]:
    """torch's OneCycleLR by the clock, so that it ends on time; returns steps and seconds."""
    schedule = torch.optim.lr_scheduler.OneCycleLR(rival.optimizer, rival.lr, TICKS)
    steps, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        while schedule.last_epoch < min(TICKS - 1, int(TICKS * elapsed / seconds)):
            schedule.step()
        rival.step()
        if rival.device.type != "cpu":
            torch.accelerator.synchronize(rival.device)  # or the queue would hide the time
        steps += 1
    return steps, elapsed


@torch.inference_mode()
def draw(rival: Rival, data: ImageSet, args: argparse.Namespace) -> Tensor:
    """DDIM with eta 0 as DDIMScheduler does it: its clip of x0 to +-1 is wider than the data."""
    scheduler = diffusers.DDIMScheduler(
        beta_end=rival.beta_end, timestep_spacing=args.spacing, clip_sample_range=args.clip
    )
    scheduler.set_timesteps(args.steps, rival.device)
    rival.net.eval()
    c, h, w = rival.images.shape[1:]
    random = torch.Generator().manual_seed(args.seed)
    batch, images = assembly.sampling_batch(None, rival.device), []
    for first in range(0, args.n, batch):
        x = torch.randn(min(batch, args.n - first), c, h, w, generator=random).to(rival.device)
        for t in scheduler.timesteps:
            x = x.contiguous(memory_format=torch.channels_last)
            x = scheduler.step(rival.net(x, t).sample, t, x).prev_sample
        images.append(to_uint8(x, rival.range).cpu())
    return unfit(torch.cat(images), replace(data.spec, height=h, width=w, fit="pad"))


def final_config(verb: str, words: list[str]) -> DictConfig:
    """The config of a command line, composed as the command itself does."""
    return composing.finished(verb, composing.compose(verb, arguments.parse(verb, words)))


def report(rows: dict[str, tuple[Result, Fid]], test: ImageSet, real: Real, about: str) -> None:
    encoder = f"{real.encoder.name} ({real.encoder.sha256[:8]})"
    print(f"Quality after equal time: {test.spec.name}, encoder {encoder}, {about}")
    line = "{:16} {:>8} {:>7} {:>12} {:>9} {:>18} {:>7}  {}".format
    heads = ("minutes", "steps", "images seen", "images/s", "sampling images/s", "FID", "95%")
    print(line("", *heads))
    for name, (result, fid) in rows.items():
        seen, seconds = result.images_seen, result.train_seconds
        numbers = (f"{seconds / 60:.2f}", f"{result.steps:,}", f"{seen:,}", f"{seen / seconds:.1f}")
        interval = "{:.2f} to {:.2f}".format(*fid["ci95"])
        drawn = (f"{result.images_per_second:.1f}", f"{fid['value']:.2f}", interval)
        print(line(name, *numbers, *drawn))
    floor = next(iter(rows.values()))[1]["floor"]
    print(line(f"{len(real.floor):,} real images", *[""] * 5, f"{floor:.2f}", ""))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("overrides", nargs="*", help="of diffuse train for our recipe, e.g. train.batch=128")
    add("--minutes", type=float, default=4)
    add("--n", type=int, default=1000, help="images drawn from each")
    add("--steps", type=int, default=50, help="of DDIM, for both")
    add("--seed", type=int, default=0)
    add("--device", default="auto", help="auto | cpu | cuda | cuda:N | mps")
    add("--encoder", default="fashion_mnist", help="of conf/encoder, or a classifier's path")
    add("--spacing", default="leading", help="of DDIMScheduler; trailing is the other one")
    add("--clip", type=float, default=1.0, help="of x0 by DDIMScheduler; the data ends at 0.5")
    add("--only", choices=("ours", "diffusers"))
    add("--save", type=Path, metavar="DIR", help="for other judges: uint8 [n h w] as .npy")
    return parser.parse_intermixed_args()


def main() -> None:
    args = options()
    known = args.encoder in usage.choices("encoder")
    encoder = [args.encoder] if known else ["classifier", f"encoder.path={args.encoder}"]
    cfg = final_config("eval", [f"device={args.device}", "encoder=" + encoder[0], *encoder[1:]])
    trained = final_config("train", ["experiment=quickstart", *args.overrides])
    device = hardware.device(cfg.device)
    data, test = (open_dataset(trained.dataset, split) for split in ("train", "test"))
    real = scoring.real(assembly.judge(cfg, train=data, test=test), args.n)
    results: dict[str, Result] = {}
    if args.only != "diffusers":
        results["diffuse"] = ours(args)
    if args.only != "ours":
        seconds = results["diffuse"].train_seconds if results else args.minutes * 60
        results["diffusers"] = theirs(args, data.to(device), seconds)
    for name, result in results.items() if args.save else ():
        args.save.mkdir(parents=True, exist_ok=True)
        np.save(args.save / f"{name}.npy", result.images.permute(0, 2, 3, 1).squeeze(3).numpy())
    drawn = {name: [rows_of(real.encoder, result.images)] for name, result in results.items()}
    fids = {name: measured("fid", rows, real, Settings())["fid"] for name, rows in drawn.items()}
    about = f"n = {args.n:,}, {hardware.describe(device)}, torch {torch.__version__}"
    report({name: (results[name], fids[name]) for name in results}, test, real, about)


if __name__ == "__main__":
    main()
