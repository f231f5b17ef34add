"""The ways in which evaluators resize: each gives other pixels, so each has a name in the record.

All take float images [b c h w] with levels 0..255 and round nothing.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]  # height, width
Resize = Callable[[Tensor, Size], Tensor]


def antialiased(x: Tensor, size: Size) -> Tensor:
    """Bilinear, over as many pixels as become one."""
    return F.interpolate(x, size, mode="bilinear", antialias=True)


def half_pixel(x: Tensor, size: Size) -> Tensor:
    """Bilinear between the centres of pixels, without antialias: pytorch-fid's."""
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def bicubic(x: Tensor, size: Size) -> Tensor:
    """Pillow's bicubic on floats, clipped: clean-fid's (Parmar et al., 2022, Sec. 3)."""
    return F.interpolate(x, size, mode="bicubic", antialias=True).clamp(0, 255)


def tensorflow1(x: Tensor, size: Size) -> Tensor:
    """TensorFlow 1's bilinear: pixel i is taken from i * in / out, by corners.

    No antialias either. It is what Heusel et al. (2017) and torch-fidelity feed Inception.
    """
    for axis, length in ((3, size[1]), (2, size[0])):
        there = x.shape[axis]
        scale = torch.tensor(there / length, dtype=torch.float32, device=x.device)
        place = torch.arange(length, dtype=torch.float32, device=x.device) * scale
        low = place.long().clamp(max=there - 1)
        weight = (place - low).view(-1, *[1] * (3 - axis))
        one, other = x.index_select(axis, low), x.index_select(axis, (low + 1).clamp(max=there - 1))
        x = one + (other - one) * weight
    return x
