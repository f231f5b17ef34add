"""What other tools wrote: read to the last pixel, or refused in one line that says why."""

import os

import numpy as np
import pytest
import torch
from picture_files import pictures, pixels, refusal
from safetensors.torch import save_file

from diffuse.errors import DataError
from diffuse.foreign import as_gray, read_images, read_tensors


class Evil:
    """Leaves a folder behind as soon as it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_and_every_kind_of_array_give_the_same_images_and_sha256(tmp_path, channels):
    images = pixels(channels=channels)
    (tmp_path / "png").mkdir()
    for k, picture in enumerate(pictures(images)):  # 10.png comes after 2.png
        picture.save(tmp_path / f"png/img_{k}.png")
    nhwc = images.permute(0, 2, 3, 1).numpy()
    np.save(tmp_path / "last.npy", nhwc)
    np.save(tmp_path / "first.npy", images.numpy())
    np.savez(tmp_path / "adm.npz", nhwc, np.arange(12))  # arr_0, arr_1
    np.savez_compressed(tmp_path / "ours.npz", images=nhwc, labels=np.arange(12))
    save_file({"images": images}, tmp_path / "a.safetensors")
    torch.save(images, tmp_path / "b.pt")
    found = [read_images(path) for path in sorted(tmp_path.iterdir())]
    assert len(found) == 7
    assert all(torch.equal(one.images, images) for one in found)
    assert len({one.sha256 for one in found}) == 1


def test_gray_images_may_have_no_axis_of_channels(tmp_path):
    np.save(tmp_path / "a.npy", pixels(channels=1)[:, 0].numpy())
    assert torch.equal(read_images(tmp_path / "a.npy").images, pixels(channels=1))


def test_the_sha256_depends_on_pixels_and_order(tmp_path):
    seen = set()
    for k, images in enumerate([pixels(), pixels().flip(0), pixels() ^ 1, pixels(11)]):
        np.save(tmp_path / f"{k}.npy", images.numpy())
        seen.add(read_images(tmp_path / f"{k}.npy").sha256)
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 8, 8)), "float64, and its range would be a guess: round it yourself"),
        (np.full((2, 3, 8, 8), np.nan, np.float32), "some of its values are not finite"),
        (np.zeros((2, 3, 8, 8), np.int64), "int64, images are uint8 in 0..255"),
        (np.zeros((2, 3, 8, 3), np.uint8), "could be [n h w c] or [n c h w]"),
        (np.zeros((2, 8, 8, 4), np.uint8), "has neither 1 nor 3 channels"),
        (np.zeros((8, 8), np.uint8), "is [8, 8], images are"),
        (np.zeros((8, 8, 3), np.uint8), "is [8, 8, 3], one image in colour as it seems"),
        (np.zeros((8, 9, 4), np.uint8), "is [8, 9, 4], one image in colour as it seems"),
        (np.zeros((0, 8, 8, 3), np.uint8), "is [0, 8, 8, 3]: it holds no images"),
    ],
)
def test_an_array_that_could_only_be_guessed_at_is_refused(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    assert message in refusal(tmp_path / "a.npy")
    torch.save(torch.from_numpy(array), tmp_path / "a.pt")
    assert message in refusal(tmp_path / "a.pt")


def test_bfloat16_is_a_float_like_any_other(tmp_path):
    torch.save(torch.zeros(2, 3, 8, 8, dtype=torch.bfloat16), tmp_path / "a.pt")
    assert "its range would be a guess" in refusal(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(2, 3, 8, 8).requires_grad_(), "float32, and its range would be a guess"),
        (torch.zeros(2, 3, 8, 8).to(torch.float8_e4m3fn), "its range would be a guess"),
        (torch.zeros(2, 3, 8, 8).to_sparse(), "is a sparse_coo tensor of torch.float32"),
        (pixels(2).to_sparse(), "is a sparse_coo tensor of torch.uint8, images are strided"),
        (torch.zeros(2, 3, 8, 8).to(torch.complex64).conj(), "images are"),
    ],
)
def test_a_tensor_that_numpy_does_not_take_is_refused_in_one_line(tmp_path, tensor, message):
    torch.save({"images": tensor}, tmp_path / "a.pt")
    assert message in refusal(tmp_path / "a.pt")
    torch.save({"images": pixels(2), "other": tensor}, tmp_path / "a.pt")
    assert torch.equal(read_images(tmp_path / "a.pt").images, pixels(2))


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".safetensors"])
def test_a_suffix_may_be_in_capitals(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write = {".npy": np.save, ".npz": np.savez}
    if suffix in write:
        write[suffix](path, pixels().numpy())
    else:
        (torch.save if suffix == ".pt" else save_file)({"images": pixels()}, path)
    capitals = path.rename(tmp_path / f"A{suffix.upper()}")
    assert torch.equal(read_images(capitals).images, pixels())


def test_whole_numbers_beside_the_images_are_their_labels(tmp_path):
    images, labels = pixels().numpy(), np.arange(12) % 5
    np.savez(tmp_path / "ours.npz", images=images, labels=labels)
    np.savez(tmp_path / "adm.npz", images, labels.astype(np.float32)[:, None])  # arr_1
    for name in ("ours", "adm"):
        assert read_images(tmp_path / f"{name}.npz").labels.tolist() == labels.tolist()
    np.savez(tmp_path / "none.npz", images)
    assert read_images(tmp_path / "none.npz").labels is None


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (np.arange(11), "they are 11, the images 12"),
        (np.arange(12) / 2, "they are no whole numbers"),
        (np.full(12, np.inf), "they are no whole numbers"),
        (np.full(12, 1e30), "they are no numbers of classes"),
        (np.full(12, 2**63, np.uint64), "they are no numbers of classes"),
        (np.array(["cat"] * 12), "they are no whole numbers"),
        (np.array(["cat"] * 12, object), "that entry needs code to be run"),
    ],
)
def test_other_labels_are_ignored_with_a_line_and_the_images_are_read(
    tmp_path, labels, why, caplog
):
    np.savez(tmp_path / "a.npz", images=pixels().numpy(), labels=labels)
    found = read_images(tmp_path / "a.npz")
    assert torch.equal(found.images, pixels())
    assert found.labels is None
    assert why in caplog.text


def test_colour_images_count_as_gray_only_if_every_pixel_is(tmp_path):
    gray = pixels(4, channels=1)
    (tmp_path / "png").mkdir()
    for k, picture in enumerate(pictures(gray)):
        picture.convert("P" if k == 0 else "RGB").save(tmp_path / f"png/{k}.png")
    np.save(tmp_path / "gray.npy", gray.numpy())
    found, plain = as_gray(read_images(tmp_path / "png")), read_images(tmp_path / "gray.npy")
    assert torch.equal(found.images, gray)
    assert found.sha256 == plain.sha256
    coloured = gray.repeat(1, 3, 1, 1)
    coloured[3, 2, 7, 7] ^= 1
    np.save(tmp_path / "coloured.npy", coloured.numpy())
    assert as_gray(read_images(tmp_path / "coloured.npy")) is None


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.pt", "a.safetensors"])
@pytest.mark.parametrize("share", [0, 0.02, 0.6, 0.98])
def test_a_file_cut_short_is_refused(tmp_path, name, share):
    path, images = tmp_path / name, pixels()
    write = {
        "a.npy": lambda: np.save(path, images.numpy()),
        "a.npz": lambda: np.savez_compressed(path, images.numpy()),
        "a.pt": lambda: torch.save(images, path),
        "a.safetensors": lambda: save_file({"images": images}, path),
    }
    write[name]()
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert f"{name} is damaged" in refusal(path)


def test_statistics_are_no_images(tmp_path):
    np.savez(tmp_path / "a.npz", mu=np.zeros(64))
    assert "holds mu; images must be 'images'" in refusal(tmp_path / "a.npz")


def test_an_archive_of_several_arrays_must_say_which(tmp_path):
    np.savez(tmp_path / "a.npz", real=pixels().numpy(), fake=pixels().numpy())
    assert "holds real, fake; images must be 'images'" in refusal(tmp_path / "a.npz")
    (tmp_path / "a.gif").write_text("x")
    assert "is no folder of images and no .npy" in refusal(tmp_path / "a.gif")


@pytest.mark.parametrize("protocol", [2, 4])
def test_no_pickle_is_run(tmp_path, protocol):
    mark = tmp_path / "it-ran"
    torch.save({"images": Evil(mark)}, tmp_path / "a.pt", pickle_protocol=protocol)
    old = {"_use_new_zipfile_serialization": False}
    torch.save({"images": Evil(mark)}, tmp_path / "b.pt", pickle_protocol=protocol, **old)
    np.save(tmp_path / "c.npy", np.array([Evil(mark)]), allow_pickle=True)
    np.savez(tmp_path / "d.npz", images=np.array([Evil(mark)]))
    for name in ("a.pt", "b.pt", "c.npy", "d.npz"):
        assert f"{name} needs code to be run" in refusal(tmp_path / name)
    assert not mark.exists()


def test_a_program_and_a_whole_module_are_refused_for_what_they_are(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(
        DataError, match=r"needs code to be run \(torch.nn.modules.linear.Linear of"
    ):
        read_tensors(tmp_path / "module.pt")
    torch.save({"step": 3}, tmp_path / "state.pt")
    with pytest.raises(DataError, match="holds no table of tensors: step is int"):
        read_tensors(tmp_path / "state.pt")
