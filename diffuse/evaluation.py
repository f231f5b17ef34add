"""Evaluation: images in, numbers out, with the same number of real images beside each."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffuse.data import ImageSet, unfit
from diffuse.encoders import Encoder, encode
from diffuse.metrics import fid, fid_interval, kid, kid_interval
from diffuse.seeds import generator


@dataclass(frozen=True)
class Scores:
    """FID and KID of n images against the reference, and of n real training images: the floor."""

    n: int
    fid: float
    fid_ci95: tuple[float, float]  # of E[FID at n], over the images drawn
    fid_floor: float
    kid: float
    kid_sd: float  # over subsets
    kid_ci95: tuple[float, float]  # of E[KID]: KID has no bias
    kid_floor: float
    floor_n: int  # less than n only where the training split is smaller

    def record(self) -> dict:
        """As it stands in record.json."""
        return {
            "n": self.n,
            "fid": {"value": self.fid, "ci95": list(self.fid_ci95), "floor": self.fid_floor},
            "kid": {
                "value": self.kid,
                "sd": self.kid_sd,
                "ci95": list(self.kid_ci95),
                "floor": self.kid_floor,
            },
            "floor_n": self.floor_n,
        }


class Judge:
    """An encoder with the features of the reference (all test images) and of the training images.

    The reference is never augmented; images are compared at the data's own size.
    """

    def __init__(self, encoder: Encoder, test: ImageSet, train: ImageSet) -> None:
        self.encoder, self.test, self.train = encoder, test, train
        self.reference = encode(encoder, unfit(test.images, test.spec))

    def score(self, images: Tensor, subsets: int, subset_size: int) -> Scores:
        """Score uint8 images [n c h w] at the data's own size."""
        n = len(images)
        features = encode(self.encoder, images)
        order = torch.randperm(len(self.train), generator=generator("floor"))[:n]
        real = encode(self.encoder, unfit(self.train.batch(order).cpu(), self.train.spec))
        size = min(subset_size, n, len(self.reference))
        distance = kid(features, self.reference, subsets, size)
        blocks = min(20, n // 2)
        interval = fid_interval(features, self.reference, blocks)
        kid_range = kid_interval(features, self.reference, distance, subsets, blocks)
        return Scores(
            n=n,
            fid=fid(features, self.reference),
            fid_ci95=(interval.low, interval.high),
            fid_floor=fid(real, self.reference),
            kid=distance.value,
            kid_sd=distance.sd,
            kid_ci95=(kid_range.low, kid_range.high),
            kid_floor=kid(real, self.reference, subsets, min(size, len(real))).value,
            floor_n=len(real),
        )
