"""Data sets: a name and a few keys in, uint8 images and labels out.

Each public function whose first parameter is `split` is one `conf/dataset/` yaml and returns `Raw`;
`open_dataset` applies the choices that all of them share.
"""

from diffuse.data.choices import Choices, check_dataset, open_dataset, open_splits
from diffuse.data.cifar10 import cifar10
from diffuse.data.digits import digits
from diffuse.data.fashion_mnist import fashion_mnist
from diffuse.data.folder import folder
from diffuse.data.hub import hub
from diffuse.data.images import ImageSet, ImageSpec, Raw, as_levels, to_range, to_uint8, unfit
from diffuse.data.parquet import parquet

PUBLISHED = ("cifar10", "digits", "fashion_mnist")  # whose images are known to the byte

__all__ = [
    "PUBLISHED",
    "Choices",
    "ImageSet",
    "ImageSpec",
    "Raw",
    "as_levels",
    "check_dataset",
    "cifar10",
    "digits",
    "fashion_mnist",
    "folder",
    "hub",
    "open_dataset",
    "open_splits",
    "parquet",
    "to_range",
    "to_uint8",
    "unfit",
]
