"""Features of real images: computed once for each data set and encoder, and kept in the cache."""

import contextlib
import hashlib
import logging
import time
from pathlib import Path

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
MOST_BYTES = 2**30  # of all that is kept; what was longest of no use goes first
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
    if next(encoder.parameters(), None) is None or _is_foreign(encoder):
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
            new, writable = True, writable and _keep(folder, stem, part)
        parts.append(part)
        if time.monotonic() - said > PATIENCE and start + PART < n:
            log.info("features of %s: %d of %d images", images.spec.name, start + PART, n)
            said = time.monotonic()
    if new and writable:
        _purge(folder, key)
    return torch.cat(parts)[:n]


def _is_foreign(encoder: Encoder) -> bool:
    """Is any code in it neither ours nor torch's?"""
    return encoder.options is not None or any(
        conditions.source(type(module)) is not None for module in encoder.modules()
    )


def _encoded(encoder: Encoder, images: ImageSet, rows: Tensor) -> Tensor:
    return encode(encoder, unfit(images.batch(rows).cpu(), images.spec), BATCH)


def _key(encoder: Encoder, images: ImageSet, order: Tensor) -> str:
    """Everything that the features depend on, as a sha256."""
    device = next(encoder.parameters()).device
    spec = images.spec
    return conditions.key({
        "images": images.sha256,
        "size": [*spec.shape, spec.native_height, spec.native_width, spec.fit],
        "order": hashlib.sha256(order.numpy().tobytes()).hexdigest(),
        "encoder": encoder.record(),
        "weights": sealed.digest(encoder.state_dict()),
        "batch": BATCH,
        "machine": conditions.machine(device),
        "code": conditions.code(SOURCES),
    })  # fmt: skip


def _keep(folder: Path, stem: str, part: Tensor) -> bool:
    """Was it written? A cache that cannot be only costs time."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = sealed.write(folder, stem, {"features": part})
        for old in folder.glob(f"{stem}-*.safetensors"):
            if old != kept:  # of fewer images
                old.unlink(missing_ok=True)
    except (OSError, NoSpaceError) as error:
        log.warning("features of real images are not kept: %s", error)
        return False
    return True


def _purge(folder: Path, spare: str) -> None:
    """Delete what was longest of no use, but no part of this table: it is read again next time."""
    with contextlib.suppress(OSError):
        parts = sorted(folder.glob("*.safetensors"), key=sealed.used, reverse=True)
        total = 0
        for path in parts:
            total += path.stat().st_size
            if total > MOST_BYTES and not path.name.startswith(spare):
                path.unlink(missing_ok=True)
