"""Folders of images that another tool made, read to the last pixel or refused in one line."""

import numpy as np
import torch
from deep import png_of_16_bits
from picture_files import pictures, pixels, refusal
from PIL import Image

from diffuse.foreign import read_images


def test_folders_in_folders_are_read_and_other_files_are_named(tmp_path, caplog):
    images = pixels(4)
    for k, picture in enumerate(pictures(images)):
        (tmp_path / f"{k // 2:05d}").mkdir(exist_ok=True)
        picture.save(tmp_path / f"{k // 2:05d}" / f"{k}.png")
    (tmp_path / "log.txt").write_text("x")
    (tmp_path / ".hidden.png").write_text("x")
    assert torch.equal(read_images(tmp_path).images, images)
    assert "1 files are no images and left out" in caplog.text
    assert "log.txt" in caplog.text


def test_jpegs_are_read_with_a_warning(tmp_path, caplog):
    pictures(pixels(1))[0].save(tmp_path / "a.jpg")
    assert read_images(tmp_path).images.shape == (1, 3, 8, 8)
    assert "compressed with loss" in caplog.text


def test_a_webp_is_compressed_with_loss_unless_it_is_not(tmp_path):
    pictures(pixels(1))[0].save(tmp_path / "a.webp", lossless=True)
    assert read_images(tmp_path).doubts == ()
    assert torch.equal(read_images(tmp_path).images, pixels(1))
    pictures(pixels(1))[0].save(tmp_path / "b.webp")
    assert read_images(tmp_path).doubts[0].startswith("1 images are compressed with loss")


def test_a_jpeg_is_known_by_its_content_and_so_is_a_tiff_around_one(tmp_path):
    """A download is often called .png whatever it is."""
    picture = pictures(pixels(1))[0]
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "b.tif")
    (tmp_path / "a.png").rename(tmp_path / "c.jpg")
    assert read_images(tmp_path).doubts == ()
    picture.save(tmp_path / "d.png", format="JPEG")
    picture.save(tmp_path / "e.tif", compression="jpeg")
    said = f"2 images are compressed with loss, which a FID sees: {tmp_path / 'd.png'}"
    assert read_images(tmp_path).doubts == (said,)


def test_palettes_and_full_alpha_lose_nothing_and_are_read(tmp_path):
    picture = pictures(pixels(1) // 64 * 64)[0]
    picture.convert("RGBA").save(tmp_path / "0.png")
    picture.quantize(256).save(tmp_path / "1.png")
    one, other = read_images(tmp_path).images
    assert torch.equal(one, other)


def test_what_is_wrong_with_a_folder_is_named(tmp_path):
    assert "holds no images" in refusal(tmp_path)
    assert "no images at" in refusal(tmp_path / "nowhere")
    small, large = pictures(pixels(1))[0], pictures(pixels(1, side=9))[0]
    small.save(tmp_path / "0.png")
    large.save(tmp_path / "1.png")
    assert "1.png is 9x9 but" in refusal(tmp_path)
    assert refusal(tmp_path).endswith("0.png is 8x8: all must have one size")
    content = (tmp_path / "0.png").read_bytes()
    (tmp_path / "1.png").write_bytes(content[: len(content) // 2])
    assert "1.png is truncated or not an image" in refusal(tmp_path)
    glass = small.convert("RGBA")
    glass.putalpha(128)
    glass.save(tmp_path / "1.png")
    assert "1.png is transparent in places: put it on a background" in refusal(tmp_path)
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "1.png")
    assert "1.png has pixels of kind I;16" in refusal(tmp_path)
    for channels in (2, 3, 4):  # gray and colours with and without transparency
        content = png_of_16_bits(np.full((8, 8, channels), 65535))
        (tmp_path / "1.png").write_bytes(content)
        assert "1.png has 16 bits a channel: convert it to 8-bit" in refusal(tmp_path)


def test_links_to_folders_are_followed_unless_they_lead_nowhere_or_in_a_circle(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder, some in ((here, pixels(2)), (there, pixels(3, side=8))):
        folder.mkdir()
        for k, picture in enumerate(pictures(some)):
            picture.save(folder / f"{k}.png")
    (here / "more").symlink_to(there)
    assert len(read_images(here).images) == 5
    (there / "back").symlink_to(here)
    assert refusal(here).endswith("back is a link to a folder it lies in")
    (there / "back").unlink()
    (here / "2.png").symlink_to(tmp_path / "gone.png")
    assert refusal(here).endswith("2.png is a link to nothing")


def test_what_16_bits_a_pixel_are_is_not_16_bits_a_channel(tmp_path):
    """A bitmap of 5 + 6 + 5 bits: what it can say is in 8 bits a channel, too."""
    size, masks = (2).to_bytes(4, "little"), (0xF800, 0x7E0, 0x1F)
    fields = b"".join(mask.to_bytes(4, "little") for mask in masks)
    about = (1).to_bytes(2, "little") + (16).to_bytes(2, "little") + (3).to_bytes(4, "little")
    header = (40).to_bytes(4, "little") + size + size + about + bytes(20) + fields
    start = (14 + len(header)).to_bytes(4, "little")
    (tmp_path / "0.bmp").write_bytes(b"BM" + bytes(8) + start + header + b"\xff" * 8)
    assert (read_images(tmp_path).images == 255).all()
