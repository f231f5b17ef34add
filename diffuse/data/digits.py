"""The 1,797 handwritten digits of 8x8 that come with scikit-learn: real data without a network.

scikit-learn itself is not imported: that takes longer than a smoke run trains.
"""

from functools import cache
from importlib.metadata import distribution

import numpy as np
import torch

from diffuse.data.images import Raw


def digits(split: str, root: str | None = None) -> Raw:
    """Every fifth image is the test split; the 17 gray levels are spread over 0..255."""
    if root is not None:
        raise ValueError(
            f"root: digits are installed with scikit-learn, set it to null, got {root}"
        )
    table, version = _table()
    pixels, labels = table[:, :-1], table[:, -1]
    test = np.arange(len(labels)) % 5 == 0
    chosen = test if split == "test" else ~test
    images = np.rint(pixels[chosen] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    return Raw(
        "digits",
        torch.from_numpy(images),
        torch.from_numpy(labels[chosen].astype(np.int64)),
        tuple("0123456789"),
        f"the digits bundled with scikit-learn {version}",
    )


@cache
def _table() -> tuple[np.ndarray, str]:
    """A row an image, its 64 pixels and its label, and whose version it came with."""
    package = distribution("scikit-learn")
    file = str(package.locate_file("sklearn/datasets/data/digits.csv.gz"))
    return np.loadtxt(file, delimiter=","), package.version
