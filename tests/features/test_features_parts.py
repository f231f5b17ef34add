"""Features of many images are kept part by part: what a kill costs is one part, and no bit."""

import pytest
import torch
from featured import ORDER

from diffuse import features
from diffuse.encoders import encode


@pytest.fixture(autouse=True)
def part(monkeypatch):
    """A batch of the encoder is a part."""
    monkeypatch.setattr(features, "PART", features.BATCH)


def test_a_table_of_many_parts_has_the_same_bits_computed_or_read(
    real, make_encoder, encoded, kept
):
    plain = encode(make_encoder(), real.images[ORDER])
    for n in (600, 600, 300, 256, 1):
        assert torch.equal(features.of(make_encoder(), real, ORDER, n), plain[:n])
    assert encoded == [256, 256, 88]
    assert len([*kept.iterdir()]) == 3


def test_a_part_grows_with_n_and_is_never_there_twice(
    real, make_encoder, encoded, kept, monkeypatch
):
    plain = encode(make_encoder(), real.images[ORDER])
    monkeypatch.setattr(features, "PART", 2 * features.BATCH)
    for n, files in ((10, 1), (300, 1), (512, 1), (600, 2)):
        assert torch.equal(features.of(make_encoder(), real, ORDER, n), plain[:n])
        assert len([*kept.iterdir()]) == files
    assert encoded == [256, 256, 88]


@pytest.mark.parametrize("done", [0, 1, 2])
def test_after_a_kill_only_the_parts_that_are_missing_are_computed(
    done, real, make_encoder, encoded, kept, monkeypatch
):
    counted = features.encode

    def killed(*args):
        if len(encoded) == done:
            raise KeyboardInterrupt
        return counted(*args)

    with monkeypatch.context() as patch:
        patch.setattr(features, "encode", killed)
        with pytest.raises(KeyboardInterrupt):
            features.of(make_encoder(), real, ORDER, 600)
    encoded.clear()
    table = features.of(make_encoder(), real, ORDER, 600)
    assert encoded == [256, 256, 88][done:]
    assert torch.equal(table, encode(make_encoder(), real.images[ORDER]))


def test_a_damaged_part_alone_is_computed_again(real, make_encoder, encoded, kept):
    whole = features.of(make_encoder(), real, ORDER, 600)
    [path] = kept.glob("*-1-*")
    path.write_bytes(path.read_bytes()[:-1])
    encoded.clear()
    assert torch.equal(features.of(make_encoder(), real, ORDER, 600), whole)
    assert encoded == [256]


def test_a_table_larger_than_the_room_is_kept_until_another_one_is(
    real, make_encoder, encoded, kept, monkeypatch
):
    monkeypatch.setattr(features, "MOST_BYTES", 1)
    for _ in range(2):
        features.of(make_encoder(), real, ORDER, 600)
    assert encoded == [256, 256, 88]
    features.of(make_encoder(seed=1), real, ORDER, 10)
    assert len([*kept.iterdir()]) == 1


def test_a_cache_that_cannot_be_written_is_said_once(real, make_encoder, tmp_path, caplog):
    (tmp_path / "cache").write_text("")  # a file where the folder should be
    table = features.of(make_encoder(), real, ORDER, 600)
    assert torch.equal(table, encode(make_encoder(), real.images[ORDER]))
    assert caplog.text.count("features are not kept") == 1
