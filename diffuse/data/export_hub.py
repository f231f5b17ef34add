"""Write splits of a data set that HF `datasets` can load as parquet files into a folder.

A program of its own, run by `sources.watched`, so that a Hub that does not answer can be left:

    python -P export_hub.py '{"source": "...", "splits": {"train": "train"}, "target": "..."}'
"""

import errno
import json
import shutil
import sys
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(
    source: str, splits: dict[str, str], target: str, config: str | None, revision: str | None
) -> None:
    import datasets
    from datasets.table import embed_table_storage

    datasets.disable_progress_bars()
    datasets.disable_caching()  # or it writes into a folder that is not ours
    saved = any(Path(source, name).exists() for name in ("dataset_dict.json", "state.json"))
    whole = _saved(source) if saved else None
    for name, split in splits.items():
        if whole is None:
            table = datasets.load_dataset(source, config, split=split, revision=revision)
        elif split in whole:
            table = whole[split]
        else:
            raise ValueError(f"no split {split!r}, there are {', '.join(whole)}")
        table = table.with_format("arrow").map(embed_table_storage, batched=True, batch_size=1000)
        table.with_format(None).to_parquet(f"{name}.parquet")  # here, where it is watched
        shutil.move(f"{name}.parquet", target)


def _saved(source: str) -> dict[str, Any]:
    """What `save_to_disk` wrote; a damaged file is named."""
    import datasets
    import pyarrow as pa

    for path in sorted(Path(source).rglob("*.arrow")):
        try:
            with pa.memory_map(str(path)) as file:
                pa.ipc.open_stream(file).read_all()
        except (pa.ArrowException, OSError) as error:
            raise OSError(f"{path} is truncated or not an arrow file ({error})") from error
    whole = datasets.load_from_disk(source)
    if isinstance(whole, datasets.DatasetDict):
        return {str(name): table for name, table in whole.items()}
    return {"train": whole}


def _is_full(error: BaseException | None) -> bool:
    """`datasets` wraps what went wrong in errors of its own."""
    while error is not None and getattr(error, "errno", None) not in FULL:
        error = error.__cause__ or error.__context__
    return error is not None


if __name__ == "__main__":
    try:
        main(**json.loads(sys.argv[1]))
    except Exception as error:  # whatever it is, one line of it goes to the parent
        if _is_full(error):
            sys.exit(errno.ENOSPC)  # there may be no room for words, either
        text = " ".join(str(error).split())
        known = isinstance(error, ValueError | OSError)
        sys.exit(f"error: {text if known else f'{type(error).__name__}: {text}'}")
