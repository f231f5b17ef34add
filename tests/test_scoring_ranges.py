"""What an encoder cannot be fed with: pixels in another range, and features that are no numbers."""

import pytest
import torch

from diffuse.data import to_range, to_uint8
from diffuse.encoders import Encoder, encode, pixels
from diffuse.errors import DataError
from diffuse.scoring import mistaken_range, rows_of

RANGES = {"[0, 1]": (0, 1), "[-1, 1]": (-1, 1), "[-0.5, 0.5]": (-0.5, 0.5)}


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    pixels = torch.from_numpy(load_digits().images * (255 / 16)).round().to(torch.uint8)
    return pixels[:, None]


@pytest.mark.parametrize("right", RANGES)
@pytest.mark.parametrize("wrong", RANGES)
def test_the_lessons_mistake_is_seen_in_the_images(right, wrong, digits):
    """A model in one range whose images are saved as if they were in another."""
    train, test = digits[:900], digits[900:]
    made = to_uint8(to_range(train, RANGES[right]), RANGES[wrong])
    mistake = mistaken_range(made, test)
    assert mistake == (None if right == wrong else f"{right} taken for {wrong}")


def test_blacks_and_whites_that_are_exchanged_are_seen(digits):
    assert mistaken_range(255 - digits, digits) == "black and white exchanged"


def test_images_that_are_merely_bad_are_no_mistake(digits):
    random = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, digits.shape, generator=random, dtype=torch.uint8)
    assert mistaken_range(noise, digits) is None
    blurred = torch.nn.functional.avg_pool2d(digits.float(), 3, 1, 1).round().to(torch.uint8)
    assert mistaken_range(blurred, digits) is None
    assert mistaken_range(digits // 3 * 2, digits) is None


def test_an_encoder_cannot_be_fed_with_a_range_at_all(digits, images):
    encoder = pixels(images.spec, 4)
    for range in RANGES.values():
        with pytest.raises(TypeError, match="takes uint8 images"):
            rows_of(encoder, to_range(digits[:8], range))


class Logarithm(torch.nn.Module):
    def forward(self, x):
        return x.flatten(1).log()


def test_features_that_are_not_finite_name_the_encoder_and_the_image():
    encoder = Encoder(Logarithm(), "logarithm", "sha", (1, 8, 8), 64)
    images = torch.full((5, 1, 8, 8), 200, dtype=torch.uint8)
    assert encode(encoder, images).isfinite().all()
    images[3, 0, 2, 2] = 0  # black is -1
    with pytest.raises(DataError, match="encoder logarithm: features must be finite, of image 3"):
        encode(encoder, images)
