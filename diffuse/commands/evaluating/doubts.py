"""What is to be said of numbers that can be computed and mean little: a line each."""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from diffuse import scoring
from diffuse.commands.evaluating.references import Pictured
from diffuse.data import ImageSet
from diffuse.encoders import Encoder
from diffuse.foreign import Statistics
from diffuse.restored import Trained
from diffuse.scoring import Real
from diffuse.scoring.rows import counts_of

log = logging.getLogger(__name__)

FEW = 4  # images for each feature: up to here the FID is mostly bias
ENOUGH = 10  # the bias is then about a tenth of what it is at one
UNEVEN = 0.05  # of the images would have to be of another class


def few(n: int, features: int, train: ImageSet | None = None) -> list[str]:
    """What there is to say of so many images for so many features, and of so few for a floor."""
    found = []
    if n < FEW * features:
        how = "less than" if n < features else "few images for"
        found.append(
            f"n={n} is {how} the {features} features of the encoder: much of the FID is bias, "
            f"compare it at this n only; n={ENOUGH * features} would do"
        )
    if train and len(train) < n:
        there = f"{len(train):,} training images, all there are"
        found.append(f"the floor is of {there}: of {n:,} it would be lower")
    return found


def of_features(encoder: Encoder, reference: int | None, train: ImageSet | None) -> list[str]:
    """What there is to say of features of these real images: how many the reference are, if known,
    and whether the encoder has learnt from them.
    """
    found = []
    if reference is not None and reference < encoder.dim:
        found.append(
            f"the reference is {reference} images, less than the {encoder.dim} features of the "
            "encoder: the FID is mostly bias; an encoder of fewer features would do"
        )
    if train and encoder.data and not encoder.at_home:
        found.append(
            f"the encoder {encoder.name} was trained on other images than {train.spec.name}, "
            f"whose sha256 is {train.sha256[:8]} here"
        )
    return found


def of_numbers(
    encoder: Encoder,
    n: int,
    images: Tensor,
    real: Real,
    known: Statistics | None,
    classes: Tensor | None = None,  # of the images, where each is judged for itself
) -> list[str]:
    """Of numbers that can be computed and mean little; they are said, and kept in the record."""
    found = few(n, encoder.dim, real.train)
    if classes is not None and (least := int(classes.unique(return_counts=True)[1].min())) < (
        FEW * encoder.dim
    ):
        found.append(
            f"a class has {least} images, few for the {encoder.dim} features of the encoder: much "
            f"of its FID is bias, as in its floor; {ENOUGH * encoder.dim} of each class would do"
        )
    if classes is not None and real.train and n <= len(real.train):  # else it is said of all
        found += _lacking(counts_of(classes), real.train)
    of_what = (None, len(real.train or ()))  # it may be these very images
    if real.train and known and not isinstance(known, Pictured) and known.n in of_what:
        found.append(
            f"if {known.source} is of the training images, the floor is too low: it is of some of "
            "these, and so are its images"
        )
    found += of_features(encoder, known.n if known else len(real.reference or ()), real.train)
    reference = real.reference.images if real.reference else None
    if reference is not None and (mistake := scoring.mistaken_range(images, reference)):
        found.append(
            f"the images are as bright as real ones whose range was mistaken: {mistake}; a FID of "
            "such images says nothing of the model"
        )
    for line in found:
        log.warning("%s", line)
    read = known.doubts if isinstance(known, Pictured) else ()
    return [*found, *read, *encoder.doubts]  # those were said when they were opened


def _lacking(asked: Mapping[int, int], train: ImageSet) -> list[str]:
    """Of the floor of a class that has fewer training images than are scored of it, but 4."""
    there, names = counts_of(train.labels.cpu()), train.spec.classes
    short = [c for c, number in asked.items() if there.get(c, 0) < number]
    if not short or min(there.get(c, 0) for c in asked) < 4:  # then there is no such floor
        return []
    c, more = short[0], f"; so it is with {len(short) - 1} more" if len(short) > 1 else ""
    return [
        f"the floor of class {names[c]} is of {there[c]:,} training images, all there are: "
        f"of {asked[c]:,} it would be lower{more}"
    ]


def of_classes(
    trained: Trained, test: ImageSet, label: int | None, known: Statistics | None = None
) -> list[str]:
    """Of images whose classes are not those of what is real, as far as they were chosen.

    Nobody knows the classes of a `known` reference, which somebody else made.
    """
    if not trained.conditional:
        return []
    found, names = [], trained.spec.classes
    if label is not None:
        others = "the floor is" if known else "reference and floor are"
        found.append(
            f"all images are of one class ({names[label]}), {others} of all classes: "
            "compare the FID with those of the same class only"
        )
    elif known is None and trained.of_classes:
        shares = torch.bincount(test.labels.cpu(), minlength=len(names)) / len(test)
        if (shares - 1 / len(names)).abs().sum() / 2 > UNEVEN:
            most = int(shares.argmax())
            found.append(
                f"images are drawn of every class alike, but {shares[most]:.0%} of the test images "
                f"are {names[most]}: part of the FID is that; per_class compares like with like"
            )
    for line in found:
        log.warning("%s", line)
    return found
