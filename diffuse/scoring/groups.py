"""The measures, in groups that are computed together; which there are and what each needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from diffuse.metrics import (
    Estimate,
    agreement,
    authenticity,
    bias_curve,
    blocks_for,
    closeness,
    enough,
    fid_by_class,
    fid_estimate,
    fid_gap,
    fid_infinity,
    inception_score,
    kid,
    kid_interval,
    nearest,
    overlap,
    pixel_statistics,
    sliced_wasserstein,
)
from diffuse.scoring.joining import joined, mean
from diffuse.scoring.lookalikes import closest
from diffuse.scoring.rows import Real, Rows, counts_of
from diffuse.values import SCORED

Scores = dict[str, dict[str, Any]]  # name -> value, ci95, and what else there is to say


@dataclass(frozen=True)
class Settings:
    """What a measure can be told."""

    kid_subsets: int = 50
    kid_subset_size: int = 500
    neighbours: int = 5
    draw: int = 0  # the number of the draw that is scored: KID's subsets are other ones for each

    def record(self, groups: Sequence[str], most: int) -> dict[str, Any]:
        """What the numbers of these groups depend on; no subset is larger than `most` images."""
        kid = {"subsets": self.kid_subsets, "size": min(self.kid_subset_size, most)}
        known = {"kid": kid, "prdc": {"k": self.neighbours}}
        return {group: known[group] for group in groups if group in known}


def _fid(rows: Rows, real: Real, settings: Settings) -> Scores:
    return {"fid": fid_estimate(rows.features, real.moments, rows.blocks).record()}


def _kid(rows: Rows, real: Real, settings: Settings) -> Scores:
    assert real.reference is not None
    reference, subsets = real.reference.features, settings.kid_subsets
    size = min(settings.kid_subset_size, len(rows), len(reference))
    found = kid(rows.features, reference, subsets, size, settings.draw)
    ends = kid_interval(rows.features, reference, found, subsets, rows.blocks)
    return {"kid": {"value": found.value, "sd": found.sd, "ci95": [*ends]}}


def _prdc(rows: Rows, real: Real, settings: Settings) -> Scores:
    assert real.reference is not None
    found = overlap(rows.features, real.reference.features, settings.neighbours, rows.blocks)
    return {name: estimate.record() for name, estimate in found._asdict().items()}


def _pixels(rows: Rows, real: Real, settings: Settings) -> Scores:
    assert real.reference is not None
    found = pixel_statistics(rows.images, rows.blocks)
    distance = sliced_wasserstein(rows.images, real.reference.images, blocks=rows.blocks)
    each = {f"pixel_{name}": estimate.record() for name, estimate in found._asdict().items()}
    return {"sliced": distance.record()} | each


def _infinity(rows: Rows, real: Real, settings: Settings) -> Scores:
    found = fid_infinity(rows.features, real.moments)
    more = {"slope": found.slope, "points": [list(point) for point in found.points]}
    more |= {"parabola": found.parabola}
    return {"fid_infinity": {"value": found.value, "ci95": [found.low, found.high], **more}}


def _inception(rows: Rows, real: Real, settings: Settings) -> Scores:
    assert rows.probabilities is not None
    found = inception_score(rows.probabilities, min(10, len(rows)), rows.blocks)
    without = getattr(real.encoder.head, "bias", None) is None
    more = {"mean": found.mean, "sd": found.sd, "logits": f"with{'out' * without} bias"}
    more |= {"jackknife": [*found.left_out]}
    return {"inception_score": {"value": found.value, "ci95": [found.low, found.high], **more}}


def _agreement(rows: Rows, real: Real, settings: Settings) -> Scores:
    assert rows.probabilities is not None
    assert rows.labels is not None
    found = agreement(rows.probabilities.argmax(1), rows.labels).record()
    return {"agreement": found | {"counts": [*counts_of(rows.labels).values()]}}


def _per_class(rows: Rows, real: Real, settings: Settings) -> Scores:
    assert rows.labels is not None
    assert real.reference is not None
    kinds = real.reference
    assert kinds.labels is not None
    found = fid_by_class(rows.features, rows.labels, kinds.features, kinds.labels)
    each = [Estimate(*estimate).record() for estimate in found.classes]  # only the mean is compared
    counts = [*counts_of(rows.labels).values()]
    return {"per_class": found.mean.record() | {"classes": each, "counts": counts}}


def _gap(rows: Rows, real: Real, settings: Settings) -> Scores:
    assert real.reference is not None
    found = fid_gap(rows.features, real.training, real.reference.features, rows.blocks)
    more = {"train": found.train.value, "test": found.test.value, "m": found.m}
    more |= {"real_reach": found.reach}
    return {
        "fid_train": found.train.record(),
        "fid_test": found.test.record(),
        "gap": {"value": found.value, "ci95": [*found.interval], **more},
    }


def _memorisation(rows: Rows, real: Real, settings: Settings) -> Scores:
    assert real.reference is not None
    test, train = real.reference.features, real.features_learnt
    known = nearest(rows.features, train)
    close = closeness(rows.features, test, train, known=known, known_test=real.nearest_of_test)
    more = {"median": close.median, "median_test": close.median_test, "threshold": close.threshold}
    more |= {"real_reach": close.reach}
    mirrored = len(train) > len(real.training)
    copies = authenticity(rows.features, train, known, mirrored).record()
    return {
        "authenticity": copies | {"closest": closest(known, len(real.training))},
        "closer": close.share.record() | more,
    }


@dataclass(frozen=True)
class Group:
    """Measures that are computed together."""

    scores: Callable[[Rows, Real, Settings], Scores]
    needs: tuple[str, ...] = ()
    floor: Callable[[Real, Rows], Rows | None] = lambda real, rows: real.floor  # for these rows


GROUPS: dict[str, Group] = {
    "fid": Group(_fid),
    "kid": Group(_kid, ("reference",)),
    "prdc": Group(_prdc, ("reference", "neighbours")),
    "infinity": Group(_infinity, ("many",)),
    "inception": Group(_inception, ("classifier",)),
    "agreement": Group(_agreement, ("classes", "same classes")),
    "per_class": Group(
        _per_class,
        ("reference", "classes", "of each class", "real of each class"),
        lambda real, rows: real.alike(rows),
    ),
    "gap": Group(_gap, ("reference", "test split", "train", "two blocks")),
    # test images: training images would be the copies
    "memorisation": Group(
        _memorisation,
        ("reference", "test split", "train"),
        lambda real, rows: real.floor and real.unseen,
    ),
    "pixels": Group(_pixels, ("reference",)),
}
WHY_NOT = {
    "reference": "the reference is known by its mean and covariance only",
    "test split": "the reference is not the test split of the data",
    "neighbours": "there are too few images to have that many neighbours",
    "many": "it takes at least {enough} images",
    "classifier": "the encoder is no classifier",
    "classes": "the images are not of several classes that were asked for",
    "same classes": "the encoder is no classifier of these classes",
    "of each class": "it takes at least 4 images of each class",
    "real of each class": "the reference has fewer than 2 images of a class, or they are not known",
    "train": "there are no training images, or one, to look for copies in",
    "two blocks": "it takes at least 4 training images and 4 of the reference",
}


def impossible(
    group: str,
    n: int,  # images
    labels: Tensor | None,  # [n], what they are asked for; None if they are not
    real: Real,
    settings: Settings,
) -> str:
    """Why a group cannot be computed for so many images; "" if it can. None has to be there yet."""
    counts = counts_of(labels)
    known = None if real.train is None else real.train.spec.classes
    of_real = counts_of(real.reference.labels if real.reference else None)
    without_a_block = n - -(-n // blocks_for(n))
    there = {
        "reference": real.reference is not None,
        "test split": real.is_test,
        "neighbours": min(without_a_block, len(real.reference or ())) > settings.neighbours,
        "many": n >= enough(real.encoder.dim),
        "classifier": real.encoder.head is not None,
        "classes": len(counts) > 1 and -1 not in counts,
        "same classes": real.encoder.head is not None and real.encoder.classes == known,
        "of each class": known is not None
        and len(counts) == len(known)
        and min(counts.values(), default=0) >= 4,
        "real of each class": known is not None
        and len(of_real) == len(known)
        and min(of_real.values(), default=0) >= 2,
        "train": len(real.train or ()) > 1,
        "two blocks": min(len(real.train or ()), len(real.reference or ())) >= 4,
    }
    missing = [need for need in GROUPS[group].needs if not there[need]]
    return WHY_NOT[missing[0]].format(enough=enough(real.encoder.dim)) if missing else ""


def measured(group: str, draws: Sequence[Rows], real: Real, settings: Settings) -> Scores:
    """The numbers of a group; of several draws (one for each seed) the means of theirs.

    The same subsets of the reference in every draw would be an error that all of them share, and
    that no interval over seeds knows of. So draw k has its own, which are the same in every record.
    """
    about = GROUPS[group]
    each = [about.scores(rows, real, replace(settings, draw=k)) for k, rows in enumerate(draws)]
    floor = _floor(group, draws[0], real, settings)
    return {
        name: joined(name, [one[name] for one in each]) | floor.get(name, {}) for name in each[0]
    }


def _floor(group: str, drawn: Rows, real: Real, settings: Settings) -> Scores:
    """What as many real images score, where there are enough of them."""
    rows = GROUPS[group].floor(real, drawn)
    if rows is None or len(rows) < SCORED:
        return {}
    if impossible(group, len(rows), rows.labels, real, settings):
        return {}
    found = GROUPS[group].scores(rows, real, settings)
    also = ("classes", "counts")
    return {
        name: {"floor": score["value"], "floor_ci95": score["ci95"], "floor_n": len(rows)}
        | {f"floor_{key}": score[key] for key in also if key in score}
        for name, score in found.items()
    }


def sizes(n: int) -> list[int]:
    """256, 512, ... n: how many of n images have a place on the curve; none of 256 or fewer."""
    return [*(2**k for k in range(8, 24) if 2**k < n), n] if n > 256 else []


def curve(draws: Sequence[Rows], real: Real) -> list[list[float]]:
    """FID of so many of the rows: n, mean and deviation; of several draws their means."""
    if not (places := sizes(len(draws[0]))):
        return []
    curves = [bias_curve(rows.features, real.moments, places) for rows in draws]
    return mean([[list(point) for point in one] for one in curves])
