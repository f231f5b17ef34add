"""Any image set that HF `datasets` can load: by its name on the Hub, or from a local folder."""

import json
import re
import sys
import tempfile
from functools import partial
from hashlib import sha256
from pathlib import Path

from diffuse.data.decoding import check_size
from diffuse.data.images import Raw
from diffuse.data.parquet import read_split, split_files
from diffuse.data.prepared import Table, prepared
from diffuse.data.sources import NoAnswerError, Source, download, fetch, watched
from diffuse.data.splits import existing, name_of
from diffuse.errors import DataError

BUSY = 30.0  # seconds of silence for which `datasets` may think, once the Hub has answered
LOCAL = 600.0  # the same where no network is involved


def hub(
    split: str,
    id: str | None = None,  # its name on the Hub, e.g. ylecun/mnist
    root: str | None = None,  # a local copy instead: what save_to_disk wrote, or an imagefolder
    image: str = "image",  # the column of images
    label: str | None = "label",  # the column of labels; null = unlabelled
    train: str = "train",  # the name of the split to train on
    test: str | None = "test",  # the name of the one to hold out; null = a seeded tenth of train
    config: str | None = None,  # which of several configurations
    revision: str | None = None,  # a commit on the Hub; null = the newest one when it is fetched
    size: int | None = None,  # resize and crop to this; null = all must have one size
) -> Raw:
    """Read one split; a set from the Hub is fetched once, as parquet files in the cache."""
    check_size(size)
    splits = {"train": train} | ({} if test is None else {"test": test})
    if root is not None:
        path = existing("hub", root)
        files = [file for file in path.rglob("*") if file.is_file()]
        settings = ("hub", str(path), split, image, label, splits, config, size)
        read = partial(_read_local, path, split, splits, config, (image, label, size))
        return Raw(name_of(path), *prepared(files, settings, read), source=str(path))
    if id is None or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", id):
        got = "null" if id is None else repr(id)
        raise ValueError(f"id must be a name on the Hub like ylecun/mnist, got {got}")
    folder, origin = _fetched(id, splits, config, revision)
    files = list(folder.glob("*.parquet"))
    table = prepared(
        files,
        ("hub", str(folder), split, image, label, size),
        lambda: read_split(folder, split, image, label, size),
    )
    return Raw(id.rpartition("/")[2], *table, source=f"{id}, {origin}")


def _fetched(
    id: str, splits: dict[str, str], config: str | None, revision: str | None
) -> tuple[Path, str]:
    key = sha256(repr((id, splits, config, revision)).encode()).hexdigest()[:8]

    def fill(target: Path, scratch: Path) -> None:
        export(id, splits, target, scratch, config, revision)

    def check(target: Path) -> None:
        if len(split_files(target)) != len(splits):
            raise DataError(f"{id} has an empty split")

    return fetch(
        f"hub/{id.replace('/', '--')}-{key}",
        [Source(f"the Hub ({id})", fill)],
        check,
        "name a local copy (save_to_disk, imagefolder, ...) with dataset.root=<folder>",
    )


def _read_local(
    path: Path,
    split: str,
    splits: dict[str, str],
    config: str | None,
    columns: tuple[str, str | None, int | None],
) -> Table:
    with tempfile.TemporaryDirectory() as folder:
        target, scratch = Path(folder, "files"), Path(folder, "scratch")
        target.mkdir()
        scratch.mkdir()
        try:
            export(str(path), splits, target, scratch, config)
            return read_split(target, split, *columns)
        except NoAnswerError as error:
            raise DataError(f"{path}: {error}") from error
        except (DataError, ValueError) as error:  # name the user's folder, not a temporary one
            raise type(error)(str(error).replace(f"{target}/", f"{path}: ")) from error


def export(
    source: str,  # a name on the Hub, or the path of a local folder
    splits: dict[str, str],  # train and perhaps test -> the names that they have in the source
    target: Path,
    scratch: Path,
    config: str | None = None,
    revision: str | None = None,
) -> None:
    """Have a child process write `<split>.parquet` into `target`; NoAnswerError if it cannot."""
    local = Path(source).is_absolute()
    if not local:
        _ask(source, scratch)
    what = {"source": source, "splits": splits, "config": config, "revision": revision}
    program = Path(__file__).with_name("export_hub.py")
    caches = {f"HF_{name}_CACHE": str(scratch / name) for name in ("HUB", "DATASETS", "XET")}
    environment = {  # of the child only
        **caches,  # inside the folder that is watched for signs of life
        "TMPDIR": str(scratch),  # so is what `datasets` converts
        "HF_HUB_DISABLE_XET": "1",  # plain downloads grow steadily
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **({"HF_HUB_OFFLINE": "1"} if local else {}),
    }
    watched(
        [sys.executable, "-P", program, json.dumps({**what, "target": str(target)})],
        scratch,
        patience=LOCAL if local else BUSY,
        environment=environment,
    )


def _ask(id: str, scratch: Path) -> None:
    """Does the Hub answer at all? `datasets` retries for half a minute before it says no."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise NoAnswerError("HF_HUB_OFFLINE is set")
    try:
        download(f"{constants.ENDPOINT}/api/datasets/{id}", scratch / "answer.json", 10_000_000)
    except NoAnswerError as error:
        if "HTTP Error 401" not in str(error):  # a private set: `datasets` knows the user's token
            raise
