"""What is scored and what is real, as an encoder sees them."""

import logging
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from diffuse import features
from diffuse.data import ImageSet, unfit
from diffuse.encoders import Encoder, encode
from diffuse.errors import DataError
from diffuse.metrics import Moments, Neighbours, blocks_for, nearest
from diffuse.seeds import generator
from diffuse.values import SCORED

log = logging.getLogger("diffuse.scoring")


@dataclass(frozen=True, eq=False)
class Rows:
    """Images beside their features."""

    images: Tensor  # uint8 [n c h w], at the data's own size
    features: Tensor  # [n d]
    labels: Tensor | None = None  # [n]: the class each was asked for, or has; -1 if it has none
    probabilities: Tensor | None = None  # [n classes], of an encoder that is a classifier

    def __len__(self) -> int:
        return len(self.features)

    @property
    def blocks(self) -> int:
        """Into which a jackknife divides them."""
        return blocks_for(len(self))

    def some(self, rows: Tensor) -> "Rows":
        """Those of these numbers."""
        labels = None if self.labels is None else self.labels[rows]
        probabilities = None if self.probabilities is None else self.probabilities[rows]
        return Rows(self.images[rows], self.features[rows], labels, probabilities)


@dataclass(frozen=True, eq=False)
class Real:
    """What is real: the reference, and images of the training split for the floor."""

    moments: Moments  # of the reference
    encoder: Encoder
    reference: Rows | None = None  # None where only its moments are known
    floor: Rows | None = None  # training images, as many as are scored
    train: ImageSet | None = None
    is_test: bool = True  # is the reference the test split that belongs to `train`?

    def known_floor(self) -> Rows:
        """The floor, for what means nothing without; DataError if there is none."""
        if self.floor is None:
            raise DataError(f"a floor takes {SCORED} training images, there are fewer")
        return self.floor

    @cached_property
    def training(self) -> Tensor:
        """Features of all training images: only what looks for copies wants them."""
        assert self.train is not None
        everything = torch.arange(len(self.train))
        return features.of(self.encoder, self.train, everything, len(everything))

    @cached_property
    def learnt(self) -> ImageSet:
        """The training images, and their mirror images after them where a network sees both."""
        assert self.train is not None
        if not self.train.flip:
            return self.train
        both = [self.train.images, self.train.images.flip(-1)]
        digest = f"{self.train.sha256} and mirrored"
        labels = self.train.labels.repeat(2)
        return replace(self.train, images=torch.cat(both), labels=labels, sha256=digest)

    @cached_property
    def features_learnt(self) -> Tensor:
        """Of each of `learnt`: what could have been copied."""
        many = len(self.training)
        mirrored = torch.arange(many, len(self.learnt))
        if not len(mirrored):
            return self.training
        found = features.of(self.encoder, self.learnt, mirrored, len(mirrored))
        return torch.cat([self.training, found])

    @cached_property
    def nearest_of_test(self) -> Neighbours:
        """What could have been copied that is nearest to each test image."""
        assert self.reference is not None
        return nearest(self.reference.features, self.features_learnt)

    def alike(self, rows: Rows) -> Rows | None:
        """Training images, as many of each class as there are in `rows`, or all there are."""
        if self.floor is None or self.train is None or rows.labels is None:
            return self.floor
        order = shuffled(self.train)
        labels = self.train.labels.cpu()[order]
        each = counts_of(rows.labels).items()
        chosen = torch.cat([(labels == c).nonzero().squeeze(1)[:count] for c, count in each])
        k = int(chosen.max()) + 1
        found = features.of(self.encoder, self.train, order, k)
        return _known(self.encoder, found, self.train, order[:k]).some(chosen)

    @cached_property
    def unseen(self) -> Rows:
        """Test images, as many as are scored: nobody has trained on them."""
        assert self.reference is not None
        assert self.floor is not None
        order = torch.randperm(len(self.reference), generator=generator("unseen"))
        return self.reference.some(order[: len(self.floor)])


def unmeasured(encoder: Encoder, train: ImageSet, test: ImageSet) -> Real:
    """What is real before a feature of it is known: that says what can be measured, and warns."""
    nothing = Moments(0, torch.empty(0), torch.empty(0, 0))
    order = torch.arange(len(test))
    shown = unfit(test.batch(order).cpu(), test.spec)
    rows = Rows(shown, torch.empty(len(test), 0), test.labels.cpu())
    return Real(nothing, encoder, rows, train=train)


class Judge:
    """An encoder with the features of the reference (all test images) and of the training images.

    The reference is never augmented; images are compared at the data's own size. What is known of
    real images is kept in the cache: it is the same to the last bit, and there at once.
    """

    def __init__(self, encoder: Encoder, *, train: ImageSet, test: ImageSet) -> None:
        self.encoder, self.train, self.test = encoder, train, test

    @cached_property
    def reference(self) -> Tensor:
        """Features [n d] of all test images; DataError if they are the same of each."""
        everything = torch.arange(len(self.test))
        found = features.of(self.encoder, self.test, everything, len(everything))
        if len(found) > 1 and bool((found == found[0]).all()):
            raise DataError(
                f"encoder {self.encoder.name} makes the same features of all {len(found):,} test "
                "images: what is all alike in them says nothing"
            )
        return found

    @cached_property
    def real(self) -> Real:
        """The reference without a floor: enough for a quick look."""
        rows = _known(self.encoder, self.reference, self.test, torch.arange(len(self.test)))
        return Real(Moments.of(self.reference), self.encoder, rows, train=self.train)

    def floor(self, n: int) -> Rows:
        """n real training images, or all if there are fewer."""
        order = shuffled(self.train)
        n = min(n, len(order))
        found = features.of(self.encoder, self.train, order, n)
        return _known(self.encoder, found, self.train, order[:n])


def counts_of(labels: Tensor | None) -> dict[int, int]:
    """How many images there are of each class."""
    if labels is None:
        return {}
    values, counts = labels.unique(return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def rows_of(encoder: Encoder, images: Tensor, labels: Tensor | None = None) -> Rows:
    """uint8 images [n c h w] through the encoder."""
    images = images.cpu()
    found = encode(encoder, images)
    return Rows(images, found, labels, _probabilities(encoder, found))


def rows_again(
    encoder: Encoder, images: Tensor, labels: Tensor | None = None
) -> tuple[Rows, float]:
    """The same of images that may be scored again: their features are kept.

    And the seconds of the encoder, whenever that was.
    """
    images = images.cpu()
    found, seconds = features.drawn(encoder, images)
    return Rows(images, found, labels, _probabilities(encoder, found)), seconds


def real(
    judge: Judge, n: int, moments: Moments | None = None, reference: Rows | None = None
) -> Real:
    """What n images are going to be compared with: the test split, and training images as a floor.

    With `moments` of someone else these are the reference, and perhaps its images are known.
    """
    floor: Rows | None = judge.floor(n)
    if len(floor) < SCORED:
        few = f"{judge.train.spec.name} has {len(floor)} training images, it takes {SCORED}"
        log.warning("there is no floor: %s", few)
        floor = None
    if moments is not None:
        return Real(moments, judge.encoder, reference, floor, judge.train, is_test=False)
    return replace(judge.real, floor=floor)


def shuffled(train: ImageSet) -> Tensor:
    """The numbers of the training images, in the order in which they come into a floor."""
    return torch.randperm(len(train), generator=generator("floor"))


def _known(encoder: Encoder, found: Tensor, images: ImageSet, order: Tensor) -> Rows:
    """Real images of these numbers whose features are at hand."""
    shown = unfit(images.batch(order).cpu(), images.spec)
    return Rows(shown, found, images.labels.cpu()[order], _probabilities(encoder, found))


@torch.no_grad()
def _probabilities(encoder: Encoder, features: Tensor) -> Tensor | None:
    """What a classifier makes of its features, None of any other encoder."""
    if encoder.head is None:
        return None
    device = next(encoder.head.parameters()).device
    return encoder.head(features.to(device)).cpu().double().softmax(1)  # MPS has no float64
