"""The UNet of the diffusion papers, from the lessons' and Ho et al.'s to a quick one for CPUs."""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffuse.models.blocks import (
    MODULATIONS,
    Attention,
    Downsample,
    ResBlock,
    Subpixel,
    Upsample,
    sinusoidal,
)

MIDDLES = ("none", "block", "attention")
SKIPS = ("every", "level")
UPSAMPLES = ("nearest", "subpixel")
INITS = ("zero", "torch")


class UNet(nn.Module):
    """F(x, c_noise, label): x [b c h w], c_noise [b], label int64 [b] or None -> [b c h w].

    A conditional network takes the label `classes` (one past the last), or None, as "no class".
    One without `noise_level` takes c_noise and does not look at it.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        classes: int,  # how many the data has; 0 = unlabelled
        width: int,  # channels of the first level
        mults: Sequence[int],  # channels of each level, in widths
        blocks: int | Sequence[int],  # residual blocks of each level on the way down
        groups: int,  # of every GroupNorm
        attention: Sequence[int],  # the levels with self-attention, 0 = the finest
        head_dim: int | None,  # channels of an attention head; null = one head
        middle: str,  # between the two ways: none, block, or attention (block, attention, block)
        dropout: float,
        patch: int,  # space-to-depth by this factor before the first convolution
        upsample: str,  # nearest neighbour, then a convolution, or subpixel: one of 2x2 results
        skips: str,  # what goes across: every block's output (Ho et al.), or one a level
        modulation: str,  # how a block is told noise level and class: scale_shift | add
        conditional: bool,  # embed the class label
        noise_level: bool,  # embed c_noise; false = the network has to see it in the image
        init: str,  # zero = each block starts as the identity (the lessons), torch = its default
    ) -> None:
        super().__init__()
        widths = [width * m for m in mults]
        counts = [blocks] * len(mults) if isinstance(blocks, int) else list(blocks)
        _check_words(middle=(middle, MIDDLES), skips=(skips, SKIPS), init=(init, INITS))
        _check_words(modulation=(modulation, MODULATIONS), upsample=(upsample, UPSAMPLES))
        _check_shapes(size, patch, widths, counts, groups, attention, head_dim)
        if conditional and not classes:
            raise ValueError(
                "conditional is true, but the data set has no labels; model.conditional=false "
                "trains without, dataset.clusters=64 with groups of images that look alike"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")

        c_emb = 4 * width if noise_level or conditional else 0
        self.width, self.patch, self.every = width, patch, skips == "every"
        self.classes = classes if conditional else 0
        self._res = partial(
            ResBlock, c_emb=c_emb, groups=groups, dropout=dropout, modulation=modulation
        )
        self._attention = partial(Attention, groups=groups, head_dim=head_dim)

        self.embed = _two_layers(width, c_emb) if noise_level else None
        self.label = nn.Embedding(classes + 1, c_emb) if conditional else None
        self.stem = nn.Conv2d(channels * patch**2, width, 3, padding=1)
        self.down, crossing = self._way_down(widths, counts, attention)
        self.middle = self._bottom(widths[-1], middle)
        self.up = self._way_up(widths, counts, attention, crossing, upsample)
        self.norm = nn.GroupNorm(groups, widths[0])
        self.head = nn.Conv2d(widths[0], channels * patch**2, 3, padding=1)
        if init == "zero":
            self._zero_init()
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def _way_down(
        self, widths: list[int], counts: list[int], attention: Sequence[int]
    ) -> tuple[nn.ModuleList, list[int]]:
        """The stages, finest first, and the channels of what they send across, in that order."""
        c, stages = widths[0], nn.ModuleList()
        crossing = [c] if self.every else []
        for level, (c_out, count) in enumerate(zip(widths, counts, strict=True)):
            stage = nn.ModuleList()
            for _ in range(count):
                stage.append(self._res(c, c_out))
                c = c_out
                if level in attention:
                    stage.append(self._attention(c))
            crossing += [c] * count if self.every else []
            if level < len(widths) - 1:
                stage.append(Downsample(c))
                crossing.append(c)
            stages.append(stage)
        return stages, crossing

    def _bottom(self, c: int, middle: str) -> nn.ModuleList:
        if middle == "none":
            return nn.ModuleList()
        between = [self._attention(c)] if middle == "attention" else []
        return nn.ModuleList([self._res(c, c), *between, self._res(c, c)])

    def _way_up(
        self,
        widths: list[int],
        counts: list[int],
        attention: Sequence[int],
        crossing: list[int],
        upsample: str,
    ) -> nn.ModuleList:
        c, stages, waiting = widths[-1], nn.ModuleList(), list(crossing)
        for level in reversed(range(len(widths))):
            stage = nn.ModuleList()
            for i in range(counts[level] + self.every):
                joins = self.every or (i == 0 and level < len(widths) - 1)
                stage.append(self._res(c + (waiting.pop() if joins else 0), widths[level]))
                c = widths[level]
                if level in attention:
                    stage.append(self._attention(c))
            if level > 0 and upsample == "subpixel":
                stage.append(Subpixel(c, widths[level - 1]))
                c = widths[level - 1]
            elif level > 0:
                stage.append(Upsample(c))
            stages.append(stage)
        return stages

    def _zero_init(self) -> None:
        """The lessons' `init_ddpm`: every block adds nothing at first, and the output is zero."""
        for module in self.modules():
            if isinstance(module, ResBlock):
                nn.init.zeros_(module.conv2.weight)
            elif isinstance(module, Attention):
                nn.init.zeros_(module.out.weight)
            elif isinstance(module, Downsample):
                nn.init.orthogonal_(module.weight)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # pyright: ignore[reportArgumentType]

    def _told(self, c_noise: Tensor, label: Tensor | None) -> Tensor | None:
        emb = self.embed(sinusoidal(c_noise, self.width)) if self.embed is not None else None
        if self.label is None:
            return emb
        if label is None:
            label = torch.full_like(c_noise, self.classes, dtype=torch.long)
        return self.label(label) if emb is None else emb + self.label(label)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        """x [b c h w], c_noise [b], label int64 [b] or None -> [b c h w]."""
        emb = self._told(c_noise, label)
        x = self.stem(F.pixel_unshuffle(x, self.patch) if self.patch > 1 else x)
        crossing = [x] if self.every else []
        for stage in self.down:
            for layer in stage:  # pyright: ignore[reportGeneralTypeIssues]
                if isinstance(layer, Downsample) and not self.every:
                    crossing.append(x)
                if isinstance(layer, Attention) and self.every:
                    crossing.pop()  # a block's output goes across after its attention
                x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
                if self.every:
                    crossing.append(x)
        for layer in self.middle:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        for stage in self.up:
            for layer in stage:  # pyright: ignore[reportGeneralTypeIssues]
                if isinstance(layer, ResBlock):
                    joins = layer.norm1.num_channels > x.shape[1]
                    x = layer(torch.cat([x, crossing.pop()], dim=1) if joins else x, emb)
                else:
                    x = layer(x)
        x = self.head(F.silu(self.norm(x)))
        return F.pixel_shuffle(x, self.patch) if self.patch > 1 else x


def _two_layers(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(c_in, c_out), nn.SiLU(), nn.Linear(c_out, c_out))


def _check_words(**words: tuple[str, tuple[str, ...]]) -> None:
    for word, (value, allowed) in words.items():
        if value not in allowed:
            raise ValueError(f"{word} must be one of {', '.join(allowed)}, got {value!r}")


def _check_shapes(
    size: tuple[int, int],
    patch: int,
    widths: list[int],
    counts: list[int],
    groups: int,
    attention: Sequence[int],
    head_dim: int | None,
) -> None:
    if not widths or min(widths) < 1 or patch < 1 or groups < 1:
        raise ValueError("width, mults, patch and groups must be at least 1")
    if len(counts) != len(widths) or min(counts) < 1:
        raise ValueError(f"blocks needs one number >= 1 for each of {len(widths)} levels: {counts}")
    for width in widths:
        if width % groups:
            raise ValueError(f"groups = {groups} does not divide the width {width} of a level")
        if head_dim is not None and (head_dim < 1 or width % head_dim):
            raise ValueError(f"head_dim = {head_dim} does not divide the width {width} of a level")
    if widths[0] % 2:
        raise ValueError(f"width must be even, for the sinusoidal embedding, got {widths[0]}")
    if not set(attention) <= set(range(len(widths))):
        raise ValueError(
            f"attention must name levels 0 to {len(widths) - 1}, got {list(attention)}"
        )
    factor = patch * 2 ** (len(widths) - 1)
    if size[0] % factor or size[1] % factor:
        raise ValueError(
            f"mults has {len(widths)} levels, so with patch = {patch} images must be a multiple of "
            f"{factor} high and wide, got {size[0]}x{size[1]}: try dataset.fit=pad"
        )
