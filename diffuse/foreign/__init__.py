"""What other tools wrote: images, statistics, weights. Nothing in a file is ever run.

Whatever could only be used by guessing is refused with a DataError of one line.
"""

from diffuse.foreign.images import Images, as_gray, read_images
from diffuse.foreign.reading import OF_TENSORS, read_tensors
from diffuse.foreign.statistics import Statistics, read_statistics

__all__ = [
    "OF_TENSORS", "Images", "Statistics", "as_gray", "read_images", "read_statistics",
    "read_tensors",
]  # fmt: skip
