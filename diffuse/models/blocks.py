"""The pieces of a UNet: images [b c h w], channels_last; `emb` [b e] is what a block is told."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MODULATIONS = ("scale_shift", "add")


def sinusoidal(c_noise: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Vaswani et al. (2017), section 3.5: c_noise [b] -> [b dim].

    c_noise = log(sigma) / 4 spans about 3, DDPM's timestep spanned 1,000; hence the factor.
    """
    exponents = torch.linspace(0, 1, dim // 2, device=c_noise.device, dtype=torch.float32)
    angles = 1000 * c_noise.float()[:, None] * torch.exp(-math.log(max_period) * exponents)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class ResBlock(nn.Module):
    """Norm, SiLU, convolution, twice, with the input added to the result; `emb` enters between.

    "add" is Ho et al. (2020); "scale_shift" is Dhariwal & Nichol (2021), section 4.3. A block of
    c_emb = 0 is told nothing: emb is None.
    """

    def __init__(
        self, c_in: int, c_out: int, c_emb: int, groups: int, dropout: float, modulation: str
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.emb = None
        if c_emb:
            self.emb = nn.Linear(c_emb, c_out * (2 if modulation == "scale_shift" else 1))
        self.norm2 = nn.GroupNorm(groups, c_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        self.modulation = modulation

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        h = self._told(self.conv1(F.silu(self.norm1(x))), emb)
        return self.skip(x) + self.conv2(self.dropout(F.silu(h)))

    def _told(self, h: Tensor, emb: Tensor | None) -> Tensor:
        if self.emb is None or emb is None:
            return self.norm2(h)
        modulation = self.emb(F.silu(emb))[:, :, None, None]
        if self.modulation == "scale_shift":
            scale, shift = modulation.chunk(2, dim=1)
            return torch.addcmul(shift, self.norm2(h), 1 + scale)
        return self.norm2(h + modulation)


class Attention(nn.Module):
    """Self-attention over the pixels, around which the input passes unchanged."""

    def __init__(self, channels: int, groups: int, head_dim: int | None) -> None:
        super().__init__()
        self.heads = channels // (head_dim or channels)
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)  # on a CPU much faster than nn.Linear
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).view(b, 3, self.heads, c // self.heads, h * w)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(mixed.transpose(-1, -2).reshape(b, c, h, w))


class Downsample(nn.Conv2d):
    """Halves height and width by a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2, padding=1)


class Upsample(nn.Conv2d):
    """Doubles height and width: nearest neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(Doubled.apply(input))


class Subpixel(nn.Conv2d):
    """Doubles height and width: a convolution whose channels become 2x2 pixels (Shi et al., 2016).

    It sees what `Upsample` sees, but computes at a quarter of the pixels, and what it sends on has
    the channels of the finer level already.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, 4 * c_out, 3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        shuffled = F.pixel_shuffle(super().forward(input), 2)
        return shuffled.contiguous(memory_format=torch.channels_last)  # on a GPU it is not


class Doubled(torch.autograd.Function):
    """Every pixel four times. Backward they are added up, which torch's compiler would scatter."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return F.interpolate(x, scale_factor=2.0, mode="nearest")

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return 4 * F.avg_pool2d(gradient, 2)
