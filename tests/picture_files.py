"""Pictures of noise, their bytes, and the data set that is made of such files."""

import io

import numpy as np
from PIL import Image

from diffuse.data import open_dataset

RNG = np.random.default_rng(0)


def picture(mode="RGB", width=12, height=12):
    shape = (height, width, len(mode)) if len(mode) > 1 else (height, width)
    return Image.fromarray(RNG.integers(0, 256, shape, np.uint8))


def encoded(image, kind="PNG", **how):
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def opened(root, split="train", name="folder", **keys):
    return open_dataset({"name": name, "root": str(root), **keys}, split)


def class_folders(root):
    """Five gray pictures in each of the classes a and b."""
    for name in "ab":
        (root / name).mkdir(parents=True)
        for i in range(5):
            picture("L").save(root / name / f"{i}.png")
    return root
