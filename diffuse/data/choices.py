"""The choices that every data set offers, and the one door through which data is opened."""

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

import diffuse.data
from diffuse.config import build
from diffuse.data import clusters
from diffuse.data.images import FITS, ImageSet, ImageSpec, Raw, fitted, sha256_of
from diffuse.errors import ConfigError, DataError, nearest

log = logging.getLogger("diffuse.data")
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Choices:
    """The keys that all of `conf/dataset/` share."""

    fit: str = "none"  # pad | resize to the next multiple of 32 | none
    classes: Sequence[int | str] | None = None  # only these, renumbered in this order
    subset: int | None = None  # the first so many of a seeded permutation of the training images
    clusters: int | None = None  # of images that look alike, in place of the classes
    flip: bool = False  # may the trainer mirror images left to right?

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise ValueError(f"unknown fit {self.fit!r}; {nearest(self.fit, FITS)}")
        if not isinstance(self.flip, bool):
            raise ValueError(f"flip must be true or false, got {self.flip!r}")
        for key, least in (("subset", 1), ("clusters", 2)):
            value = getattr(self, key)
            if value is not None and (type(value) is not int or value < least):
                raise ValueError(f"{key} must be null or an integer >= {least}, got {value!r}")
        if self.classes is None:
            return
        if isinstance(self.classes, str) or not isinstance(self.classes, Sequence):
            raise ValueError(f"classes must be null or a list, got {self.classes!r}")
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes must be different and at least one, got {self.classes!r}")


def open_dataset(node: Mapping[str, Any], split: str) -> ImageSet:
    """Read one split of the data set that a `conf/dataset/` node describes.

    Raises ConfigError for a key or value that does not fit, before any file is looked at if
    possible, and DataError for data that is missing, truncated or altered.
    """
    choices, call = _read(node)
    if split not in SPLITS:
        raise ConfigError(f"dataset: unknown split {split!r}; {nearest(split, SPLITS)}")
    raw = _raw(call, split)
    train = _raw(call, "train") if choices.clusters and split != "train" else raw
    try:
        images = view(raw, split, choices, train)
    except ValueError as error:
        raise ConfigError(f"dataset: {error}") from error
    shape = "x".join(map(str, images.spec.shape))
    log.info("%s %s: %d images %s from %s", raw.name, split, len(images), shape, raw.source)
    return images


def open_splits(node: Mapping[str, Any]) -> tuple[ImageSet, ImageSet]:
    """The training and the test split; DataError if their images are not alike."""
    train, test = open_dataset(node, "train"), open_dataset(node, "test")
    shapes = [f"{s.channels}x{s.native_height}x{s.native_width}" for s in (train.spec, test.spec)]
    if shapes[0] != shapes[1]:
        raise DataError(
            f"{train.spec.name}: training images are {shapes[0]}, test images {shapes[1]}; "
            "dataset.size= makes them alike"
        )
    return train, test


def check_dataset(node: Mapping[str, Any]) -> None:
    """Everything that `open_dataset` can refuse without looking at a file."""
    _read(node)


def view(raw: Raw, split: str, choices: Choices, train: Raw | None = None) -> ImageSet:
    """Apply the common choices; `subset` and `flip` are for training, the test split is whole.

    `clusters` are those of `train` (None: `raw` itself) at its native size. The sha256 is that of
    the labels that the data has: images are the same whoever clusters them.
    """
    images, labels, classes = _chosen(raw, split, choices)
    known = labels
    if choices.clusters:
        alone = train in (None, raw)
        seen = images if alone else _chosen(train, "train", choices)[0]
        labels = clusters.clusters(seen, choices.clusters, None if alone else images)
        classes = clusters.names(choices.clusters)
    native_height, native_width = images.shape[-2:]
    images = fitted(images, choices.fit)
    _, channels, height, width = images.shape
    size = (height, width, native_height, native_width)
    spec = ImageSpec(raw.name, channels, *size, choices.fit, classes)
    flip = choices.flip and split == "train"
    return ImageSet(spec, images, labels, sha256_of(images, known), raw.source, flip)


def _raw(call: dict[str, Any], split: str) -> Raw:
    raw = build("dataset", call, split)
    if not isinstance(raw, Raw):
        raise ConfigError(f"dataset: {call['name']} must return diffuse.data.Raw, got {type(raw)}")
    return raw


def _chosen(raw: Raw, split: str, choices: Choices) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """The images of the wanted classes, so many of them for training; their labels; the classes."""
    images, labels, classes = _only(raw, choices.classes)
    if split == "train" and choices.subset is not None:
        if choices.subset > len(images):
            raise ValueError(f"subset must be at most {len(images)}, got {choices.subset}")
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        images, labels = images[order[: choices.subset]], labels[order[: choices.subset]]
    return images, labels, classes


def _only(raw: Raw, wanted: Sequence[int | str] | None) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """The images of the wanted classes, labels renumbered in the order in which they are wanted."""
    labels = torch.full((len(raw.images),), -1) if raw.labels is None else raw.labels
    if wanted is None:
        return raw.images, labels, raw.classes
    if not raw.classes:
        raise ValueError(f"classes: {raw.name} has no labels, so no classes can be chosen")
    old = [_index(word, raw.classes) for word in wanted]
    if len(set(old)) < len(old):
        raise ValueError(f"classes must be different, got {list(wanted)}")
    new = torch.full((len(raw.classes),), -1)
    new[old] = torch.arange(len(old))
    labels = new[labels]
    kept = labels >= 0
    if not kept.any():
        raise ValueError(f"classes: {raw.name} has no image of {list(wanted)}")
    return raw.images[kept], labels[kept], tuple(raw.classes[i] for i in old)


def _index(word: int | str, classes: tuple[str, ...]) -> int:
    if str(word) in classes:  # names may be numbers
        return classes.index(str(word))
    if type(word) is int and 0 <= word < len(classes):
        return word
    if type(word) is int:
        raise ValueError(f"classes must be in 0..{len(classes) - 1}, got {word}")
    raise ValueError(f"classes: unknown class {word!r}; {nearest(str(word), classes)}")


def _read(node: Mapping[str, Any]) -> tuple[Choices, dict[str, Any]]:
    """Split a node into the common choices and the call of one function of this room."""
    common = [field.name for field in fields(Choices)]
    call = {str(key): value for key, value in node.items() if key not in common}
    name = call.get("name")
    ours = _functions()
    if isinstance(name, str) and ":" not in name:
        if name not in ours:
            raise ConfigError(f"dataset: unknown name {name!r}; {nearest(name, ours)}")
        takes = [key for key in inspect.signature(ours[name]).parameters if key != "split"]
        for key in call.keys() - {*takes, "name", "meta"}:
            hint = nearest(key, [*takes, *common]).replace("choices:", "it takes")
            raise ConfigError(f"dataset: {name} got an unexpected argument {key!r}; {hint}")
    try:
        return Choices(**{key: _plain(node[key]) for key in common if key in node}), call
    except ValueError as error:
        raise ConfigError(f"dataset: {error}") from error


def _plain(value: Any) -> Any:
    """A list of the config tree as a list of Python."""
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _functions() -> dict[str, Callable[..., Raw]]:
    """The data sets of this room: its public functions whose first parameter is `split`."""
    things = {name: getattr(diffuse.data, name) for name in diffuse.data.__all__}
    functions = {name: thing for name, thing in things.items() if inspect.isfunction(thing)}
    return {
        name: function
        for name, function in functions.items()
        if next(iter(inspect.signature(function).parameters), "") == "split"
    }
