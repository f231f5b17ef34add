"""Features of images that were drawn: of the same bytes they are not computed again."""

from dataclasses import replace

import pytest
import torch

from diffuse import features
from diffuse.encoders import encode, pixels
from diffuse.errors import DataError
from diffuse.scoring import rows_again, rows_of


@pytest.fixture
def drawn(real):
    return real.images.flip(0).contiguous()


def test_they_are_those_of_the_encoder_and_so_are_the_seconds(
    drawn, make_encoder, encoded, tmp_path
):
    plain = encode(make_encoder(), drawn)
    first, again = (features.drawn(make_encoder(), drawn) for _ in range(2))
    assert torch.equal(first[0], plain)
    assert torch.equal(again[0], plain)
    assert first[1] == again[1] > 0  # whenever that was
    assert encoded == [600]
    assert not (tmp_path / "cache/features").exists()  # the real ones have a place of their own


def test_other_images_and_encoders_are_others(drawn, make_encoder, encoded):
    for images in (drawn, drawn.flip(0), drawn[:10], drawn.view(600, 1, 4, 16)):
        features.drawn(make_encoder(), images.contiguous())
    features.drawn(make_encoder(seed=1), drawn)
    assert encoded == [600, 600, 10, 600, 600]


def test_of_many_images_a_part_is_kept_at_once_and_a_damaged_one_made_again(
    drawn, make_encoder, encoded, tmp_path, monkeypatch
):
    monkeypatch.setattr(features, "PART", features.BATCH)
    whole, _ = features.drawn(make_encoder(), drawn)
    assert encoded == [256, 256, 88]
    path = min((tmp_path / "cache/drawn").iterdir(), key=lambda p: p.stat().st_size)
    path.write_bytes(path.read_bytes()[:-1])
    assert torch.equal(features.drawn(make_encoder(), drawn)[0], whole)
    assert encoded == [256, 256, 88, 88]


def test_of_more_than_may_be_kept_the_oldest_go(drawn, make_encoder, encoded, monkeypatch):
    monkeypatch.setattr(features, "MOST_BYTES", 1)
    for images in (drawn, drawn[:10], drawn[:10], drawn):
        features.drawn(make_encoder(), images)
    assert encoded == [600, 10, 600]


def test_what_is_as_quick_as_a_file_is_not_kept(drawn, real, tmp_path):
    rows, seconds = rows_again(pixels(real.spec, 4), drawn)
    assert torch.equal(rows.features, rows_of(pixels(real.spec, 4), drawn).features)
    assert seconds > 0
    assert not (tmp_path / "cache/drawn").exists()


def test_an_image_without_features_is_named_by_its_number_among_all(
    drawn, real, make_encoder, monkeypatch
):
    monkeypatch.setattr(features, "PART", features.BATCH)
    drawn[300] = 255
    encoder = make_encoder()

    def spoil(net, args, made):
        made[args[0].flatten(1).eq(255).all(1)] = torch.nan

    encoder.register_forward_hook(spoil)
    with pytest.raises(DataError, match="of image 300 they are not"):
        features.drawn(encoder, drawn)
    images = replace(real, images=drawn)
    with pytest.raises(DataError, match="of image 300 they are not"):  # and not 599 - 300
        features.of(encoder, images, torch.arange(600).flip(0), 600)
