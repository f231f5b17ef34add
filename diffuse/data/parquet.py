"""Images in parquet files: encoded bytes in one column, labels in another."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from diffuse.data.decoding import channels_of, check_size, decode
from diffuse.data.images import Raw
from diffuse.data.prepared import Table, prepared
from diffuse.data.splits import KIND, below, check_share, existing, held_out, name_of
from diffuse.errors import DataError, nearest, reason

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

MANY = 100_000  # integers larger than this are not the numbers of classes


def parquet(
    split: str,
    root: str | None = None,  # a file, or a folder with train*.parquet and test*.parquet
    image: str = "image",  # the column of encoded images: bytes, or a struct that has `bytes`
    label: str | None = "label",  # the column of labels: integers or text; null = unlabelled
    size: int | None = None,  # resize and crop to this; null = all must have one size
    test: float = 0.1,  # the share that is held out where there are no test files
) -> Raw:
    """Read one split; val*.parquet stands in for test*.parquet."""
    check_size(size)
    check_share(test)
    path = existing("parquet", root)
    files = [file for files in split_files(path).values() for file in files]
    table = prepared(
        files,
        ("parquet", str(path), split, image, label, size, test),
        lambda: read_split(path, split, image, label, size, test),
    )
    return Raw(name_of(path), *table, source=str(path))


def read_split(
    root: Path,
    split: str,
    image: str,
    label: str | None,
    size: int | None = None,
    test: float = 0.1,
) -> Table:
    """Decode one split of a file or folder."""
    files = split_files(root)
    everything = [path for paths in files.values() for path in paths]
    own = files.get(split, files["train"])
    rows = [row for path in own for row in _rows(path, image)]
    if not rows:
        raise DataError(f"{own[0]} holds no images")
    # of all splits: one of them may be all gray
    others = [row for path in everything if path not in own for row in _rows(path, image)]
    every = rows + others
    channels = channels_of(len(every), lambda i: every[i].content, lambda i: every[i].where)
    labels, classes = (None, ()) if label is None else _labels(own, everything, label)
    if "test" not in files:
        kept = (held_out(len(rows), test) == (split == "test")).nonzero().flatten()
        rows = [rows[i] for i in kept.tolist()]
        labels = None if labels is None else labels[kept]
    images = decode(len(rows), lambda i: rows[i].content, lambda i: rows[i].where, size, channels)
    return Table(images, labels, classes)


def split_files(root: Path) -> dict[str, list[Path]]:
    """The files of `train` and, if file or folder names tell them apart, of `test`."""
    if root.is_file():
        return {"train": [root]}
    found: dict[str, list[Path]] = {}
    for path in sorted(file for file in below(root) if file.suffix == ".parquet"):
        parts = reversed(path.relative_to(root).parts)
        kinds = [match[1].lower() for part in parts if (match := KIND.match(part))]
        found.setdefault(kinds[0] if kinds else "other", []).append(path)
    train = found.get("train") or found.get("other")
    test = found.get("test") or found.get("val")
    if train and test:
        return {"train": train, "test": test}
    if not (train or test):
        raise DataError(f"{root} holds no .parquet file")
    return {"train": train or test or []}


class _Row(NamedTuple):
    path: Path
    number: int
    content: bytes

    @property
    def where(self) -> str:
        return f"{self.path}: row {self.number}"


def _rows(path: Path, image: str) -> list[_Row]:
    """The encoded images of a file, not decoded yet."""
    import pyarrow as pa

    column = _column(path, image)
    kind, chunks = column.type, column.chunks
    if pa.types.is_struct(kind) and "bytes" in [field.name for field in kind]:
        kind, chunks = kind.field("bytes").type, [chunk.field("bytes") for chunk in chunks]
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DataError(f"{path}: column {image!r} holds {kind}, not encoded images")
    rows = []
    for number, content in enumerate(content for part in chunks for content in part.to_pylist()):
        if content is None:
            raise DataError(f"{path}: row {number} has no bytes in column {image!r}")
        rows.append(_Row(path, number, content))
    return rows


def _labels(
    own: Sequence[Path], everything: Sequence[Path], label: str
) -> tuple[Tensor, tuple[str, ...]]:
    """Class numbers of the rows of `own`, with names that hold for every file of the set."""
    import pyarrow as pa

    columns = {path: _column(path, label) for path in everything}
    for path, column in columns.items():
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise DataError(f"{path}: row {row} has no {label!r}")
    values = {path: column.to_pylist() for path, column in columns.items()}
    kinds = [column.type for column in columns.values()]
    if all(pa.types.is_string(kind) or pa.types.is_large_string(kind) for kind in kinds):
        classes = tuple(sorted({word for words in values.values() for word in words}))
        number = {word: i for i, word in enumerate(classes)}
        values = {path: [number[word] for word in words] for path, words in values.items()}
    elif all(map(pa.types.is_integer, kinds)):
        classes = _class_names(everything[0], label) or ()
        most = len(classes) if classes else MANY
        for path, numbers in values.items():
            for row, value in enumerate(numbers):
                if not 0 <= value < most:
                    raise DataError(f"{path}: row {row} has {label} {value}, not in 0..{most - 1}")
        largest = max(max(numbers, default=0) for numbers in values.values())
        classes = classes or tuple(map(str, range(1 + largest)))
    else:
        raise DataError(f"{own[0]}: column {label!r} holds {kinds[0]}, not integers or text")
    return torch.tensor([value for path in own for value in values[path]]), classes


def _column(path: Path, name: str) -> "pyarrow.ChunkedArray":
    with _opened(path) as file:
        if name in file.schema_arrow.names:
            return file.read([name])[name]
        raise ValueError(f"{path} has no column {name!r}; {nearest(name, file.schema_arrow.names)}")


def column_names(path: Path) -> list[str]:
    """The columns of a file; DataError if it is missing or not a parquet file."""
    with _opened(path) as file:
        return file.schema_arrow.names


@contextmanager
def _opened(path: Path) -> Iterator["pyarrow.parquet.ParquetFile"]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            yield file
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing") from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is truncated or not a parquet file ({reason(error)})") from error


def _class_names(path: Path, label: str) -> tuple[str, ...] | None:
    """The names that HF `datasets` writes into the schema of its parquet files."""
    with _opened(path) as file:
        notes = (file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    try:
        features = json.loads(notes)["info"]["features"]
        return tuple(map(str, features[label]["names"]))
    except (ValueError, KeyError, TypeError):
        return None
