"""Files that were damaged, bit by bit, and archives with other things in them."""

import random
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from diffuse.errors import DataError
from diffuse.foreign import read_images, read_statistics, read_tensors

TABLE = {"a.weight": torch.ones(4, 3), "b": torch.arange(5), "c": torch.ones(2).half()}
WRITERS = {
    "legacy.pth": partial(torch.save, _use_new_zipfile_serialization=False),
    "zip.pth": torch.save,
    "a.safetensors": save_file,
}


def damaged(content, number):
    """Every fourth is cut short, of all others one to three bits are turned."""
    draw, content = random.Random(number), bytearray(content)
    if number % 4 == 0:
        return content[: draw.randrange(len(content))]
    for _ in range(draw.choice([1, 1, 3])):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return content


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", WRITERS)
def test_a_file_of_tensors_is_read_or_refused_whatever_befell_it(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](TABLE, path)
    content, refused = path.read_bytes(), {}
    for number in range(300):
        path.write_bytes(damaged(content, number))
        try:
            read_tensors(path)
        except DataError as error:
            refused[str(error)] = type(error.__cause__)
    assert not any("\n" in said for said in refused)
    assert len(refused) > 10
    if name == "legacy.pth":  # torch's reader raises what it does not mean to
        assert {*refused.values()} >= {IndexError, AssertionError}


@pytest.mark.parametrize("kind", [IndexError, TypeError, AssertionError, MemoryError])
def test_whatever_torch_raises_means_that_the_file_is_damaged(tmp_path, kind, monkeypatch):
    def load(*_, **__):
        raise kind

    torch.save(TABLE, tmp_path / "a.pt")
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(DataError, match=rf"a\.pt is damaged: {kind.__name__}"):
        read_tensors(tmp_path / "a.pt")


def test_a_member_of_an_archive_that_is_no_array_matters_to_who_wants_it(tmp_path):
    images, path = np.zeros((4, 8, 8, 3), np.uint8), tmp_path / "a.npz"
    np.savez(path, images=images)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels", "0 1 2 3")
        archive.writestr("readme.txt", "of ours")
    assert read_images(path).labels is None
    for member in ("images", "mu"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(member, "0 1 2 3")
            archive.writestr("sigma", "0 1 2 3")
        read = read_images if member == "images" else read_statistics
        with pytest.raises(DataError, match=r"a\.npz is no array"):
            read(path)
