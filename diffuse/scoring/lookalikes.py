"""The images that come closest to a training image, each with the training images nearest to it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffuse.data import ImageSet, unfit
from diffuse.encoders import encode
from diffuse.metrics import Neighbours, nearest
from diffuse.scoring.rows import Real

CLOSEST = 10  # images that are shown
NEIGHBOURS = 3  # of each, in either space
PIECE = 2**25  # bytes of training pixels at a time, in float64


@dataclass(frozen=True)
class Lookalikes:
    """Images beside training images: `features` and `pixels` are their nearest ones, [n k]."""

    numbers: list[int]  # of the images, the closest first
    images: Tensor  # uint8 [n c h w]
    features: Neighbours  # Euclidean, between features
    pixels: Neighbours  # root mean square of the differences, in grey levels
    train: ImageSet  # with mirror images, where a network sees them, too

    def shown(self, found: Neighbours) -> Tensor:
        """The training images of a table of neighbours: uint8 [n k c h w]."""
        rows = found.numbers.flatten()
        pixels = unfit(self.train.batch(rows).cpu(), self.train.spec)
        return pixels.view(*found.numbers.shape, *pixels.shape[1:])


def closest(known: Neighbours, many: int) -> list[list[float]]:
    """[number, that of its nearest of `many` training images, distance] of the closest images."""
    first = known.distances[:, 0].sort(stable=True).indices[:CLOSEST]
    table = zip(first, known.numbers[first, 0], known.distances[first, 0], strict=True)
    return [[int(row), int(near) % many, float(distance)] for row, near, distance in table]


def lookalikes(images: Tensor, numbers: Sequence[int], real: Real) -> Lookalikes:
    """Of uint8 images [n c h w] those of these numbers."""
    assert real.train is not None
    k = min(NEIGHBOURS, len(real.train))
    some = images[torch.tensor(numbers)].cpu()
    in_features = nearest(encode(real.encoder, some), real.features_learnt, k)
    in_pixels = nearest_pixels(some, real.learnt, k)
    return Lookalikes(list(numbers), some, in_features, in_pixels, real.learnt)


def nearest_pixels(images: Tensor, train: ImageSet, k: int) -> Neighbours:
    """The k training images whose pixels are nearest, at the data's own size; a copy is at 0."""
    rows = images.flatten(1).double()
    distances, numbers = torch.empty(len(rows), 0).double(), torch.empty(len(rows), 0).long()
    step = max(1, PIECE // (8 * rows.shape[1]))
    for some in torch.arange(len(train)).split(step):
        pixels = unfit(train.batch(some).cpu(), train.spec).flatten(1).double()
        far = torch.cdist(rows, pixels, compute_mode="donot_use_mm_for_euclid_dist")
        distances = torch.cat([distances, far / rows.shape[1] ** 0.5], 1)
        numbers = torch.cat([numbers, some.expand(len(rows), -1)], 1)
        distances, order = distances.sort(dim=1, stable=True)
        distances, numbers = distances[:, :k], numbers.gather(1, order)[:, :k]
    return Neighbours(numbers, distances)
