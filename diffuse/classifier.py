"""A small residual classifier, quick to train on a CPU; FID compares images by its features.

It knows nothing of files and commands: `train_classifier` is a loop that yields, the caller logs.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from diffuse.errors import DivergedError
from diffuse.hardware import autocast, sent
from diffuse.seeds import generator, seeded

CHECK_EVERY = 20  # steps; looking at a loss waits for the device
BATCH = 500  # images that `accuracy` looks at together


class Block(nn.Module):
    """conv, norm, relu, conv, norm around a skip: He et al. (2016), Fig. 2."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(c_out)
        self.skip = nn.Identity()
        if c_in != c_out or stride != 1:
            pool = nn.AvgPool2d(stride, ceil_mode=True)  # a strided 1x1 would drop pixels unseen
            conv = nn.Conv2d(c_in, c_out, 1, bias=False)
            self.skip = nn.Sequential(pool, conv, nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu_(self.norm1(self.conv1(x)))
        return F.relu_(self.norm2(self.conv2(h)).add_(self.skip(x)))


class Classifier(nn.Module):
    """Images in [-1, 1], float [b c h w] -> features [b dim], which `head` turns into logits.

    Full resolution costs a CPU more time than it adds accuracy, so the stem halves at once.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        width: int,  # of the first stage; each further one has twice the channels, half the side
        blocks: Sequence[int],  # in each stage
    ) -> None:
        super().__init__()
        widths = [width << level for level in range(len(blocks))]
        self.shape = {"channels": channels, "classes": classes, "width": width, "blocks": [*blocks]}
        self.dim = widths[-1]
        self.stem = nn.Sequential(
            nn.Conv2d(channels, widths[0], 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        stages, c_in = [], widths[0]
        for level, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            for index in range(count):
                stages.append(Block(c_in, width, stride=2 if level and not index else 1))
                c_in = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(self.dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """The features: the last stage, averaged over its pixels."""
        return self.stages(self.stem(x)).mean(dim=(2, 3))


@dataclass(frozen=True)
class Step:
    """What the caller of `train_classifier` is told."""

    number: int  # from 1
    loss: Tensor  # []; reading it waits for the device
    lr: float


def centred(images: Tensor) -> Tensor:
    """uint8 [0, 255] -> float32 [-1, 1]: the one range that every encoder here sees."""
    return images.float() / 127.5 - 1


def augment(images: Tensor, crop: int, flip: bool, random: torch.Generator) -> Tensor:
    """Images [b c h w], each shifted by up to `crop` pixels (the edge is filled with 0).

    With `flip` each is mirrored with probability 1/2.
    """
    b, _, h, w = images.shape

    def draw(high: int) -> Tensor:
        return sent(torch.randint(high, (b, 1), generator=random), images.device)

    rows = torch.arange(h, device=images.device) + draw(2 * crop + 1)
    columns = torch.arange(w, device=images.device) + draw(2 * crop + 1)
    if flip:
        columns = torch.where(draw(2) == 1, columns.flip(1), columns)
    padded = F.pad(images, [crop] * 4).permute(0, 2, 3, 1)  # [b h w c]: one gather does it all
    picked = padded[
        torch.arange(b, device=images.device)[:, None, None], rows[:, :, None], columns[:, None, :]
    ]
    return picked.permute(0, 3, 1, 2)


def new_classifier(
    channels: int, classes: int, width: int, blocks: Sequence[int], seed: int
) -> Classifier:
    """Untrained, the same for the same seed; the caller's random numbers on the CPU stay."""
    with seeded(seed, "classifier"):
        net = Classifier(channels, classes, width, blocks)
    return net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def training_steps(n: int, epochs: int, batch: int) -> int:
    """How many steps `train_classifier` takes: what is left over in an epoch is not used."""
    return epochs * max(1, n // batch)


def train_classifier(
    net: Classifier,
    optimizer: torch.optim.Optimizer,  # its lr is the peak of one cycle (Smith, 2018)
    images: Tensor,  # uint8 [n c h w], on the device where training happens
    labels: Tensor,  # int64 [n]
    *,
    epochs: int,
    batch: int,
    crop: int,
    flip: bool,
    seed: int,
    dtype: torch.dtype,  # of the network's arithmetic; the loss is float32
) -> Iterator[Step]:
    """Cross entropy with plain labels: smoothed ones draw each class together (Kornblith et al.,
    2021), and features that have forgotten how images of a class differ make a blind FID.
    """
    _check(images, labels, epochs, batch)
    device = images.device
    total = training_steps(len(images), epochs, batch)
    batch, per_epoch = min(batch, len(images)), total // epochs
    peaks = [group["lr"] for group in optimizer.param_groups]
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peaks, total_steps=total + 1, pct_start=0.2, cycle_momentum=False
    )
    net.train()
    number = 0
    for epoch in range(epochs):
        random = generator(seed, "classifier", epoch)
        order = torch.randperm(len(images), generator=random).to(device)
        for chosen in order[: per_epoch * batch].split(batch):
            x = centred(augment(images[chosen], crop, flip, random))
            with autocast(device, dtype):
                logits = net.head(net(x))
            loss = F.cross_entropy(logits.float(), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
            number += 1
            if number % CHECK_EVERY == 0 or number == total:
                _check_loss(loss.item(), number)
            yield Step(number, loss.detach(), optimizer.param_groups[0]["lr"])
    net.eval()


@torch.no_grad()
def fold(net: Classifier) -> None:
    """Put each normalisation into the convolution before it: its statistics are fixed from here on.

    The features stay the same but for rounding, and come about a fifth faster on a CPU.
    """
    net.eval()
    for module in net.modules():
        for (one, conv), (two, norm) in itertools.pairwise([*module.named_children()]):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, one, fuse_conv_bn_eval(conv, norm))
                setattr(module, two, nn.Identity())


@torch.no_grad()
def round_weights(net: Classifier) -> None:
    """To float16 and back, as a file stores them, so that what is measured is what is shipped."""
    for weight in net.parameters():
        if weight.ndim > 1:
            weight.copy_(weight.half())


@torch.no_grad()
def accuracy(net: Classifier, images: Tensor, labels: Tensor) -> float:
    """The share of images whose highest logit is the label's; float32, nothing augmented."""
    net.eval()
    right = 0
    for some, truth in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        right += int((net.head(net(centred(some))).argmax(1) == truth).sum())
    return right / len(images)


def _check_loss(loss: float, number: int) -> None:
    if not math.isfinite(loss):
        raise DivergedError(f"the loss is {loss} at step {number}: try a lower optimizer.lr")


def _check(images: Tensor, labels: Tensor, epochs: int, batch: int) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or not len(images):
        raise ValueError(f"images must be uint8 [n c h w], got {images.dtype} {[*images.shape]}")
    if len(labels) != len(images) or labels.min() < 0:
        raise ValueError(f"each of the {len(images)} images needs a label >= 0")
    for name, value in (("epochs", epochs), ("batch", batch)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
