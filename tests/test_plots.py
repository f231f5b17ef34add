"""Pictures, pixel by pixel."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from diffuse import plots
from diffuse.plots.dataset import dataset


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("n", "columns"), [(1, None), (5, None), (6, 3), (7, 3)])
def test_every_image_is_in_the_grid_whole_and_in_order(n, columns, channels):
    images = torch.randint(0, 256, (n, channels, 5, 4), dtype=torch.uint8)
    sheet = np.asarray(plots.grid(images, columns))
    columns = columns or int(np.ceil(n**0.5))
    rows = -(-n // columns)
    scale = sheet.shape[1] // (columns * 5 + 1)
    assert sheet.shape[:2] == (scale * (rows * 6 + 1), scale * (columns * 5 + 1))
    for k, image in enumerate(images):
        top, left = (k // columns) * 6 + 1, (k % columns) * 5 + 1
        seen = sheet[
            top * scale : (top + 5) * scale : scale, left * scale : (left + 4) * scale : scale
        ]
        expected = image.permute(1, 2, 0).numpy()
        assert (seen.reshape(expected.shape) == expected).all()


def test_small_images_are_enlarged_by_repeating_pixels():
    sheet = np.asarray(plots.grid(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)))
    assert 400 < sheet.shape[1] < 700
    assert set(np.unique(sheet)) == {0, 32, 255}


def test_classes_are_rows():
    labels = torch.tensor([2, 0, 2, 1, 0, 1, 2])
    images = labels[:, None, None, None].expand(7, 1, 2, 2).to(torch.uint8)
    sheet = np.asarray(plots.by_class(images * 100, labels))
    scale = sheet.shape[0] // 10  # three rows of two pixels, with gaps
    shown = sheet[scale + scale // 2 :: 3 * scale, scale + scale // 2 :: 3 * scale]
    empty = plots.images.EMPTY
    assert shown.tolist() == [[0, 0, empty], [100, 100, empty], [200, 200, 200]]


def test_one_image_a_class_is_no_thin_strip():
    images = torch.zeros((9, 1, 2, 2), dtype=torch.uint8)
    width, height = plots.by_class(images, torch.arange(9)).size
    assert width == height


def test_few_images_of_many_classes_are_a_square_and_more_are_rows():
    images, labels = torch.zeros((40, 1, 2, 2), dtype=torch.uint8), torch.arange(40) % 10
    sizes = [plots.by_class(images[:n], labels[:n]).size for n in (16, 40)]
    assert sizes[0][0] == sizes[0][1]
    assert sizes[1][0] / sizes[1][1] == pytest.approx(13 / 31)  # ten rows of four


def test_a_png_keeps_every_pixel_and_appears_whole(tmp_path):
    image = torch.randint(0, 256, (3, 9, 7), dtype=torch.uint8)
    path = plots.save(plots.picture(image), tmp_path / "new/x.png")
    back = np.asarray(Image.open(path))
    assert (back == image.permute(1, 2, 0).numpy()).all()
    assert [p.name for p in path.parent.iterdir()] == ["x.png"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("n", [1, 7, 1000])
def test_an_animation_has_every_frame_even_if_nothing_moves(n, channels, tmp_path):
    still = plots.picture(torch.full((channels, 8, 128), 77, dtype=torch.uint8))
    path = plots.animation((still for _ in range(n)), n, tmp_path / "x.gif")
    gif = Image.open(path)
    assert gif.n_frames == n
    filled = []
    for k in {0, n // 2, n - 1}:
        gif.seek(k)
        frame = np.asarray(gif.convert("L")).astype(float)
        assert frame[:8] == pytest.approx(77, abs=1)
        filled.append(((frame[-1] - plots.images.EMPTY) / (255 - plots.images.EMPTY)).mean())
    assert filled == pytest.approx([(k + 1) / n for k in {0, n // 2, n - 1}], abs=0.01)
    assert [p.name for p in tmp_path.iterdir()] == ["x.gif"]


def test_a_data_set_has_a_sheet_with_classes_and_without(images, tmp_path):
    plain = replace(images, spec=replace(images.spec, classes=()))
    for some in (images, plain):
        png, svg = dataset(some, (-1, 1), n=9, seed=0, path=tmp_path / "data")
        assert np.asarray(Image.open(png)).std() > 20
        words = svg.read_text()
        assert "noise: 32 images 1x8x8" in words
        # 32 images of three classes: 11, 11 and 10
        assert words.count(">11<") == (2 if some is images else 0)
