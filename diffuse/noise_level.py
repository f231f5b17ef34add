"""A network that sees how noisy an image is: what a sampler needs if nobody tells it the level.

Lesson 22 of fast.ai's course. It is trained by the same `fit` as a denoiser, and kept as a
checkpoint; `Predictor` is one brought back to life.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from diffuse import checkpoints
from diffuse.data import ImageSet, ImageSpec, to_range
from diffuse.denoiser import Denoiser
from diffuse.errors import DataError, reason
from diffuse.hardware import autocast, sent
from diffuse.models.blocks import Downsample, ResBlock
from diffuse.noise_laws import Law, uniform
from diffuse.schedules import Schedule, alpha_bar
from diffuse.seeds import generator, seed_of, seeded
from diffuse.training import Recipe, Step, Training, fit

STAGES = 3  # each has twice the channels and half the side of the one before
GROUPS = 8  # of every GroupNorm
EMA = 0.99
HELD_OUT = 2048  # noisy test images in a held-out loss


class Network(nn.Module):
    """Images [b c h w] -> one number each [b]: residual blocks, and a mean over the pixels."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        if width < GROUPS or width % GROUPS:
            raise ValueError(f"width must be a multiple of {GROUPS}, got {width}")
        widths = [width << stage for stage in range(STAGES)]
        stages: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1)]
        stages += [ResBlock(width, width, 0, GROUPS, 0.0, "add")]
        for c_in, c_out in pairwise(widths):
            stages += [Downsample(c_in), ResBlock(c_in, c_out, 0, GROUPS, 0.0, "add")]
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(widths[-1], 1)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        return self.head(F.silu(self.stages(x)).mean(dim=(2, 3)))[:, 0]


class Regressor(nn.Module):
    """logit(alpha_bar) = -2 log sigma of y = x / sqrt(1 + sigma^2), the state that networks see.

    The logit, because alpha_bar itself hardly changes where there is little noise or little else.
    """

    def __init__(self, net: Network, precision: torch.dtype) -> None:
        super().__init__()
        self.net = net
        self.precision = precision

    def forward(self, y: Tensor) -> Tensor:
        """y [b c h w] -> logits [b]; only the network runs in low precision."""
        with autocast(y.device, self.precision):
            return self.net(y).float()

    def loss(self, x0: Tensor, sigma: Tensor, eps: Tensor, label: Tensor | None = None) -> Tensor:
        """The squared error of the logit of each image: [b]. Labels are for denoisers."""
        wanted = (*_variance_preserving(sigma), logit(sigma))
        signal, noise, target = (sent(c.to(x0.dtype), x0.device) for c in wanted)
        y = signal[:, None, None, None] * x0 + noise[:, None, None, None] * eps
        return (self(y) - target).square()


def _variance_preserving(sigma: Tensor) -> tuple[Tensor, Tensor]:
    """What multiplies x0 and eps in x / sqrt(1 + sigma^2)."""
    signal = (1 + sigma**2).rsqrt()
    return signal, sigma * signal


def logit(sigma: Tensor) -> Tensor:
    """log(alpha_bar / (1 - alpha_bar)) of a level."""
    return -2 * sigma.log()


def new_regressor(channels: int, width: int, seed: int, precision: torch.dtype) -> Regressor:
    """Untrained, the same for the same seed; the caller's numbers on the CPU are left alone."""
    with seeded(seed, "noise level"):
        return Regressor(Network(channels, width), precision)


def even(schedule: Schedule) -> Law:
    """alpha_bar ~ U over the levels of the schedule: lesson 22, which has all of (0, 1)."""
    low, high = alpha_bar(torch.tensor(schedule.range, dtype=torch.float64)).flip(0).tolist()

    def draw(n: int, random: Generator) -> Tensor:
        share = low + (high - low) * torch.rand(n, generator=random, dtype=torch.float64)
        return (1 / share - 1).clamp(min=0).sqrt().clamp(*schedule.range)

    return draw


def visited(schedule: Schedule) -> Law:
    """t ~ U(0, 1): the levels of a sampler on a uniform grid."""
    return uniform(schedule, stratified=False)


def covering(schedule: Schedule) -> Law:
    """Half of each: `even` alone has next to nothing at the ends, where a sampler begins and ends.

    On the cosine 1 in 1,000 of its levels is in the first or the last hundredth of t.
    """
    laws = even(schedule), visited(schedule)

    def draw(n: int, random: Generator) -> Tensor:
        one, other = (law(n, random) for law in laws)
        return torch.where(torch.arange(n) % 2 == 0, one, other)

    return draw


def train(
    regressor: Regressor,
    optimizer: torch.optim.Optimizer,  # its learning rates are the peaks of one cycle
    images: ImageSet,
    law: Law,
    *,
    steps: int,
    batch: int,
    range: tuple[float, float],  # of the pixels
    seed: int,
) -> Iterator[Step]:
    """Up to `steps`, and then the averaged weights. DivergedError if a gradient is not finite."""
    recipe = Recipe(
        steps=steps, batch=batch, lr_schedule="onecycle", warmup=0, clip_grad=1.0,
        label_dropout=0.0, shuffle=True, range=range, seed=seed_of(seed, "noise level"),
    )  # fmt: skip
    peaks = [group["lr"] for group in optimizer.param_groups]
    # of a denoiser, `fit` asks for its net, its precision and its loss only
    training = Training.new(cast(Denoiser, regressor), optimizer, EMA)
    work = fit(training, images, law, recipe, peaks)
    while True:
        with torch.random.fork_rng(devices=[]):  # `fit` seeds torch's own for the dropout
            step = next(work, None)
        if step is None:
            break
        yield step
    regressor.net.load_state_dict(training.ema.weights)
    regressor.eval()


@torch.no_grad()
def held_out(
    regressor: Regressor, test: ImageSet, law: Law, range: Sequence[float], seed: int
) -> tuple[float, float]:
    """The loss on 2,048 noisy test images, the same every time; that of always saying 0.5."""
    random = generator(seed, "noise level", "held out")
    sigma = law(HELD_OUT, random)
    total = 0.0
    for part in torch.arange(HELD_OUT).split(128):
        x0 = to_range(test.batch(part % len(test)), range)
        eps = torch.randn(x0.shape, generator=random).to(x0.device)
        total += regressor.loss(x0, sigma[part], eps).sum().item()
    return total / HELD_OUT, logit(sigma).square().mean().item()


@dataclass(frozen=True)
class Predictor:
    """A trained regressor, and what it was trained on."""

    folder: Path
    regressor: Regressor
    spec: ImageSpec
    range: tuple[float, float]
    levels: tuple[float, float]  # nothing outside them is ever predicted
    sha256: str  # of the weights' file

    @torch.no_grad()
    def __call__(self, y: Tensor) -> Tensor:
        """y = x / sqrt(1 + sigma^2) [b c h w] -> sigma [b], float64 on the CPU."""
        return (self.regressor(y).cpu().double() / -2).exp().clamp(*self.levels)

    def record(self) -> dict[str, str]:
        """Which one, to the byte."""
        return {"run": str(self.folder), "sha256": self.sha256}

    def check(self, spec: ImageSpec, range: Sequence[float], sigmas: Tensor) -> None:
        """ValueError if it has not seen such images, or not at these levels [n + 1]."""
        ours = (self.spec.name, *self.spec.shape, *self.range)
        theirs = (spec.name, *spec.shape, *range)
        if ours != theirs:
            raise ValueError(
                f"{self.folder} was trained on {_images(*ours)}, the network on {_images(*theirs)}"
            )
        low, high = sigmas[-2].item(), sigmas[0].item()
        if low < self.levels[0] * (1 - 1e-6) or high > self.levels[1] * (1 + 1e-6):
            known, asked = (f"sigma from {a:.3g} to {b:.3g}" for a, b in (self.levels, (low, high)))
            raise ValueError(
                f"{self.folder} knows {known}, the sampler visits {asked}; train one with the "
                "schedule of the run"
            )


def _images(name: str, c: int, h: int, w: int, low: float, high: float) -> str:
    return f"{name} {c}x{h}x{w} in [{low:g}, {high:g}]"


def save(
    folder: Path,  # of a run
    step: int,
    regressor: Regressor,
    spec: ImageSpec,
    range: Sequence[float],
    levels: Sequence[float],
    shape: Mapping[str, int],  # channels and width of the network
) -> str:
    """Write the weights as a checkpoint; returns the sha256 of their file."""
    state = {"spec": asdict(spec), "range": [*range], "levels": [*levels], "network": {**shape}}
    weights = {"regressor": regressor.net.state_dict()}
    path = checkpoints.save(folder / "checkpoints", step, weights, state)
    return checkpoints.sha256(path, "regressor")


def load(folder: Path, device: torch.device) -> Predictor:
    """Read what `save` wrote; a missing, truncated or altered file is a DataError."""
    steps = checkpoints.steps(folder / "checkpoints")
    if not steps:
        raise DataError(f"{folder} has no checkpoint: its training did not get to the end")
    path = checkpoints.at(folder / "checkpoints", steps[-1])
    checkpoints.verify(path)
    state = checkpoints.load_state(path)
    try:
        net = Network(**state["network"])
        net.load_state_dict(checkpoints.load_tensors(path, "regressor"))
        spec = ImageSpec.read(state["spec"])
        (low, high), (least, most) = state["range"], state["levels"]
    except (KeyError, TypeError, ValueError, RuntimeError, OSError) as e:
        raise DataError(f"{path} is no noise level regressor of this version: {reason(e)}") from e
    regressor = Regressor(net, torch.float32).to(device).eval()
    digest = checkpoints.sha256(path, "regressor")
    return Predictor(folder, regressor, spec, (low, high), (least, most), digest)
