"""Images that were drawn, and the files they become in a run folder."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from diffuse import files, plots
from diffuse.restored import Trained


@dataclass(frozen=True)
class Result:
    """What was drawn, and at what price."""

    images: Tensor  # uint8 [n c h w]
    labels: Tensor  # [n]
    nfe: float  # calls of the network an image took; a mean where each takes its own
    seconds: float
    fingerprint: str  # of the first images before rounding: equal only if they were drawn alike
    drawn: int  # shards that were not there before
    known: int  # shards that were
    rate: float | None  # images a second of one process, if that was written down

    @property
    def speed(self) -> float:
        """Images a second of a process that draws, whenever that was."""
        return self.rate or len(self.images) / self.seconds

    @property
    def shards(self) -> dict[str, int]:
        """As it stands in a record."""
        return {"drawn": self.drawn, "known": self.known}


def sheet(trained: Trained, result: Result) -> Image.Image:
    """Up to 100 images, a class a row if the model knows classes."""
    first, of_class = result.images[:100], result.labels[:100]
    return plots.by_class(first, of_class) if trained.of_classes else plots.grid(first)


def save(folder: Path, form: str, trained: Trained, result: Result) -> Path:
    """Every image: PNG files, or one uint8 array N x H x W [x C] (.npz with labels, too)."""
    if form == "png":
        target = folder / "images"
        for k, image in enumerate(result.images):
            plots.save(plots.picture(image), target / f"{k:06d}.png")
        return target
    array = result.images.permute(0, 2, 3, 1).numpy()
    array = array[..., 0] if array.shape[-1] == 1 else array
    content = io.BytesIO()
    if form == "npy":
        np.save(content, array)
    else:
        arrays = {"images": array}
        if trained.of_classes:  # else nobody asked for a class
            arrays["labels"] = result.labels.numpy()
        np.savez_compressed(content, allow_pickle=False, **arrays)
    return files.replace(folder / f"images.{form}", content.getvalue())
