"""Pictures of noise, their bytes, and the data set that is made of such files."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from diffuse.data import open_dataset
from diffuse.errors import DataError
from diffuse.foreign import read_images

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


def pixels(n=12, channels=3, side=8):
    random = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, channels, side, side), generator=random, dtype=torch.uint8)


def pictures(images):
    arrays = images.permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(a[..., 0] if a.shape[-1] == 1 else a) for a in arrays]


def refusal(path):
    with pytest.raises(DataError) as error:
        read_images(path)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 3
    return str(error.value)
