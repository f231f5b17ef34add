"""Fashion-MNIST (Xiao, Rasul & Vollgraf, 2017): 60,000 + 10,000 gray 28x28 images of garments."""

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np
import torch

from diffuse.data.debian import unpack_package
from diffuse.data.idx import read_idx, write_idx
from diffuse.data.images import Raw
from diffuse.data.sources import NoAnswerError, Source, download, fetch
from diffuse.errors import DataError

CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
# Of the uncompressed files, so that one table serves every source. They are the content of the .gz
# files whose md5 the authors publish (8d4fb7e6..., 25c81989..., bef4ecab..., bb300cfd...).
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
LARGEST = 64_000_000  # bytes; nothing that belongs to this data set is larger
HUB = "zalando-datasets/fashion_mnist"
MIRROR = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
PACKAGE = "dataset-fashion-mnist"
ADVICE = (
    f"put the four files {', '.join(SHA256)} (or their .gz) into a folder and name it "
    "with dataset.root=<folder>, or use dataset=digits, which needs no network"
)


def fashion_mnist(
    split: str,
    root: str | None = None,  # a folder with the four idx files, plain or .gz
) -> Raw:
    """Read one split, fetching it first if neither `root` nor the cache has it."""
    if root is None:
        folder, origin = fetch("fashion_mnist", SOURCES, check, ADVICE)
    else:
        folder = Path(root).expanduser()
        origin = str(folder)
    images, labels = (_array(folder, name, fetched=root is None) for name in FILES[split])
    return Raw(
        "fashion_mnist",
        torch.from_numpy(images.copy()).unsqueeze(1),
        torch.from_numpy(labels.astype(np.int64)),
        CLASSES,
        origin,
    )


def check(folder: Path) -> None:
    """Raise DataError unless the four published files are in the folder."""
    for name in SHA256:
        _array(folder, name)


def _array(folder: Path, name: str, fetched: bool = False) -> np.ndarray:
    """One published file as an array; altered, truncated and missing ones are a DataError."""
    path, data = _content(folder, name)
    advice = f"; delete {folder} to fetch it again" if fetched else ""
    if data is None:
        raise DataError(f"{path} is missing{advice}")
    try:
        array = read_idx(data, path)
    except DataError as error:
        raise DataError(f"{error}{advice}") from error
    if hashlib.sha256(data).hexdigest() != SHA256[name]:
        raise DataError(f"{path} is altered: it is not the published file (sha256){advice}")
    return array


def _content(folder: Path, name: str) -> tuple[Path, bytes | None]:
    """The uncompressed bytes of a file that may lie there plain or as .gz, None if it does not."""
    plain, packed = folder / name, folder / f"{name}.gz"
    path = plain if plain.exists() or not packed.exists() else packed
    try:
        return path, path.read_bytes() if path == plain else unzipped(path)
    except (FileNotFoundError, NotADirectoryError):
        return path, None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def unzipped(path: Path) -> bytes:
    """The content of a .gz, refused if it is truncated or larger than it can be."""
    try:
        with gzip.open(path) as file:
            data = file.read(LARGEST + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is truncated or not a gzip file") from error
    if len(data) > LARGEST:
        raise DataError(f"{path} unpacks to more than {LARGEST} bytes")
    return data


def _from_hub(target: Path, scratch: Path) -> None:
    from diffuse.data.hub import export
    from diffuse.data.parquet import read_split

    exported = scratch / "exported"
    exported.mkdir()
    export(HUB, {"train": "train", "test": "test"}, exported, scratch)
    for split, (images, labels) in FILES.items():
        table = read_split(exported, split, "image", "label")
        if table.labels is None or table.images.shape[1:] != (1, 28, 28):
            raise NoAnswerError(f"{HUB} no longer holds labelled gray images of 28x28")
        (target / images).write_bytes(write_idx(table.images.squeeze(1).numpy()))
        (target / labels).write_bytes(write_idx(table.labels.numpy()))


def _from_mirror(target: Path, scratch: Path) -> None:
    for name in SHA256:
        packed = scratch / f"{name}.gz"
        download(MIRROR + packed.name, packed, LARGEST)
        (target / name).write_bytes(unzipped(packed))


def _from_debian(target: Path, scratch: Path) -> None:
    folder = unpack_package(PACKAGE, scratch) / "usr/share/datasets/fashion-mnist"
    for name in SHA256:
        _, data = _content(folder, name)
        if data is None:
            raise NoAnswerError(f"the package has no {name}")
        (target / name).write_bytes(data)


SOURCES = (
    Source(f"the Hub ({HUB})", _from_hub),
    Source("torchvision's mirror", _from_mirror),
    Source(f"Debian's package {PACKAGE}", _from_debian),
)
