"""A user's own images in parquet files, and in whatever HF `datasets` has saved."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from picture_files import encoded, opened, picture

from diffuse.data.splits import held_out
from diffuse.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSE_CACHE", str(tmp_path / "cache"))


def write_parquet(path, contents, labels, struct=True):
    cells = [{"bytes": content, "path": None} for content in contents] if struct else contents
    pq.write_table(pa.table({"image": cells, "label": labels}), path)


@pytest.mark.parametrize("struct", [True, False])
@pytest.mark.parametrize("labels", [[0, 2, 1, 2], ["ant", "cow", "bee", "cow"]])
def test_parquet_columns_may_be_bytes_or_structs_and_labels_numbers_or_text(
    tmp_path, struct, labels
):
    pictures = [picture() for _ in range(4)]
    for split, rows in (("train", slice(0, 4)), ("test", slice(0, 2))):
        path = tmp_path / f"{split}-00000-of-00001.parquet"
        write_parquet(path, list(map(encoded, pictures[rows])), labels[rows], struct)
    train, test = (opened(tmp_path, split, "parquet") for split in ("train", "test"))
    expected = np.stack([np.asarray(image).transpose(2, 0, 1) for image in pictures])
    assert np.array_equal(train.images.numpy(), expected)
    assert train.labels.tolist() == [0, 2, 1, 2]
    assert test.labels.tolist() == [0, 2]
    assert train.spec.classes == test.spec.classes
    assert train.spec.classes == (("0", "1", "2") if labels[0] == 0 else ("ant", "bee", "cow"))


def test_linked_folders_count_and_hidden_files_do_not(tmp_path):
    pictures = [encoded(picture()) for _ in range(6)]
    folders = [tmp_path / "data/train", tmp_path / "elsewhere", tmp_path / "data/.checkpoints"]
    for folder in folders:
        folder.mkdir(parents=True)
        write_parquet(folder / "part.parquet", pictures[:2], [0, 1])
    write_parquet(folders[0] / "._part.parquet", pictures, [0, 1] * 3)
    (tmp_path / "data/test").symlink_to(folders[1])
    train, test = (opened(tmp_path / "data", split, "parquet") for split in ("train", "test"))
    assert (len(train), len(test)) == (2, 2)


def test_a_damaged_parquet_file_is_named_with_the_row(tmp_path):
    path = tmp_path / "all.parquet"
    contents = [encoded(picture()) for _ in range(4)]
    write_parquet(path, [*contents[:3], contents[3][:-60]], [0, 1, 0, 1])
    held = "test" if held_out(4, 0.1)[3] else "train"
    with pytest.raises(DataError, match=r"all\.parquet: row 3 is truncated"):
        opened(path, held, "parquet")
    write_parquet(path, contents, [0, 1, 0, -1])
    with pytest.raises(DataError, match=r"all\.parquet: row 3 has label -1"):
        opened(path, "train", "parquet")
    with pytest.raises(ConfigError, match="did you mean 'image'"):
        opened(path, "train", "parquet", image="imag")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"all\.parquet is truncated"):
        opened(path, "train", "parquet")


@pytest.mark.parametrize(
    "names", [("training", "testing"), ("Train", "Test"), ("trainset", "testset")]
)
def test_parquet_files_say_which_split_they_are(names, tmp_path):
    for name, rows in zip(names, (4, 2), strict=True):
        content = [encoded(picture("L")) for _ in range(rows)]
        table = pa.table({"image": content, "label": ["a", "b"] * (rows // 2)})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    sizes = [len(opened(tmp_path, split, "parquet")) for split in ("train", "test")]
    assert sizes == [4, 2]


def test_hub_reads_what_datasets_has_saved_and_leaves_the_folder_as_it_was(tmp_path):
    import datasets

    datasets.disable_progress_bars()
    pictures = [picture() for _ in range(6)]
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])}
    rows = {"image": pictures, "label": [0, 1, 1, 0, 1, 0]}
    table = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
    root = tmp_path / "saved"
    datasets.DatasetDict(train=table, validation=table.select([5])).save_to_disk(str(root))
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    images = opened(root, "train", "hub", test="validation")
    assert images.spec.classes == ("ant", "bee")
    assert images.labels.tolist() == rows["label"]
    assert np.array_equal(images.images[2].numpy(), np.asarray(pictures[2]).transpose(2, 0, 1))
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    with pytest.raises(DataError, match="no split 'test'"):
        opened(root, "train", "hub")
    (arrow,) = (root / "train").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:-1000])
    with pytest.raises(DataError, match=rf"{arrow.name} is truncated"):
        opened(root, "train", "hub", test="validation")
