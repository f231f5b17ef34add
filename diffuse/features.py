"""Features of images, real or drawn: computed once for each encoder, and kept in the cache."""

import contextlib
import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffuse import conditions, sealed
from diffuse.data import ImageSet, unfit
from diffuse.data.sources import cache
from diffuse.encoders import Encoder, encode
from diffuse.encoders.encoder import PATIENCE
from diffuse.errors import NoSpaceError

log = logging.getLogger(__name__)

BATCH = 256  # images the encoder sees at once; what is kept are whole batches
PART = 8 * BATCH  # images of which the features are one file: what a kill costs at most
MOST_BYTES = 2**30  # in each of the two folders; what was longest of no use goes first
# The files and folders of ours that features depend on: a change of any has them computed anew.
SOURCES = ("classifier.py", "conditions.py", "data/images.py", "encoders", "features.py")


@conditions.repeatable()
def of(encoder: Encoder, images: ImageSet, order: Tensor, n: int) -> Tensor:
    """Features [n dim] of the first n images of a set in an order, at the data's own size.

    They are the same to the last bit whether they are computed or read, by a training or an
    evaluation, and do not depend on n.
    They are kept part by part, so that a command that was killed goes on where it was.
    An encoder that has learned nothing is as quick as a file: its features are not kept. Nor are
    those of code from outside: what it reads and imports cannot be seen.
    """
    if not _is_kept(encoder):
        return _encoded(encoder, images, order[:n])
    folder, key = cache() / "features", _key(encoder, images, order)
    parts: list[Tensor] = []
    new, writable, said = False, True, time.monotonic()
    for start in range(0, n, PART):
        stem, rows = f"{key}-{start // PART}", order[start : start + PART]
        part = (sealed.find(folder, stem) or {}).get("features", torch.empty(0, encoder.dim))
        if len(part) < min(n - start, len(rows)):
            done, whole = len(part) // BATCH * BATCH, -(-(n - start) // BATCH) * BATCH
            part = torch.cat([part[:done], _encoded(encoder, images, rows[done:whole])])
            new, writable = True, writable and _keep(folder, stem, {"features": part})
        parts.append(part)
        if time.monotonic() - said > PATIENCE and start + PART < n:
            log.info("features of %s: %d of %d images", images.spec.name, start + PART, n)
            said = time.monotonic()
    if new and writable:
        _purge(folder, (key,))
    return torch.cat(parts)[:n]


@conditions.repeatable()
def drawn(encoder: Encoder, images: Tensor) -> tuple[Tensor, float]:
    """Features [n dim] of uint8 images [n c h w] of no data set, and the seconds that they took.

    They are kept under the sha256 of the images themselves, whoever has drawn them, as those of
    real images are: so the seconds are those of the encoder, whenever that was.
    """
    if not _is_kept(encoder):
        return _timed(encoder, images)
    folder, made = cache() / "drawn", _made_by(encoder)
    found: dict[str, dict[str, Tensor]] = {}
    new, writable = False, True
    for k, part in enumerate(images.split(PART)):
        stem = f"{conditions.key({'images': sealed.digest({'images': part}), **made})}-{k}"
        known = sealed.find(folder, stem)
        if known is None:
            table, took = _timed(encoder, part, range(k * PART, len(images)))
            known = {"features": table, "seconds": torch.tensor(took, dtype=torch.float64)}
            new, writable = True, writable and _keep(folder, stem, known)
        found[stem] = known
    if new and writable:
        _purge(folder, tuple(found))
    features = torch.cat([part["features"] for part in found.values()])
    return features, sum(part["seconds"].item() for part in found.values())


def _timed(
    encoder: Encoder, images: Tensor, numbers: Sequence[int] | None = None
) -> tuple[Tensor, float]:
    started = time.monotonic()
    return encode(encoder, images, BATCH, numbers), time.monotonic() - started


def _is_kept(encoder: Encoder) -> bool:
    """Has it learnt something, and is all code in it ours or torch's?"""
    learnt = next(encoder.parameters(), None) is not None
    return (
        learnt
        and encoder.options is None
        and not any(conditions.source(type(module)) is not None for module in encoder.modules())
    )


def _encoded(encoder: Encoder, images: ImageSet, rows: Tensor) -> Tensor:
    return encode(encoder, unfit(images.batch(rows).cpu(), images.spec), BATCH, rows.tolist())


def _key(encoder: Encoder, images: ImageSet, order: Tensor) -> str:
    """Everything that the features depend on, as a sha256."""
    spec = images.spec
    return conditions.key({
        "images": images.sha256,
        "size": [*spec.shape, spec.native_height, spec.native_width, spec.fit],
        "order": hashlib.sha256(order.numpy().tobytes()).hexdigest(),
        **_made_by(encoder),
    })  # fmt: skip


def _made_by(encoder: Encoder) -> dict[str, Any]:
    """What features depend on besides the images."""
    return {
        "encoder": encoder.record(),
        "weights": sealed.digest(encoder.state_dict()),
        "batch": BATCH,
        "machine": conditions.machine(next(encoder.parameters()).device),
        "code": conditions.code(SOURCES),
    }


def _keep(folder: Path, stem: str, tensors: Mapping[str, Tensor]) -> bool:
    """Was it written? A cache that cannot be only costs time."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = sealed.write(folder, stem, tensors)
        for old in folder.glob(f"{stem}-*.safetensors"):
            if old != kept:  # of fewer images
                old.unlink(missing_ok=True)
    except (OSError, NoSpaceError) as error:
        log.warning("features are not kept: %s", error)
        return False
    return True


def _purge(folder: Path, spare: tuple[str, ...]) -> None:
    """Delete what was longest of no use, but no part of this table: it is read again next time.

    `spare` is how its names begin.
    """
    with contextlib.suppress(OSError):
        parts = sorted(folder.glob("*.safetensors"), key=sealed.used, reverse=True)
        total = 0
        for path in parts:
            total += path.stat().st_size
            if total > MOST_BYTES and not path.name.startswith(spare):
                path.unlink(missing_ok=True)
