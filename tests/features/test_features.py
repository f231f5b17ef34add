"""Features of real images: read or computed, they are the same, and never those of others."""

import os
from dataclasses import replace

import pytest
import torch
from featured import ORDER

from diffuse import conditions, features
from diffuse.encoders import encode, pixels
from diffuse.scoring import Judge, Settings, measured, rows_of
from diffuse.scoring import real as compared_with


@pytest.mark.parametrize("n", [1, 255, 256, 300, 600])
def test_features_are_those_of_the_encoder_to_the_last_bit_computed_or_read(
    n, real, make_encoder, encoded
):
    encoder = make_encoder()
    plain = encode(encoder, real.images[ORDER[:n]])
    for _ in range(2):
        assert torch.equal(features.of(encoder, real, ORDER, n), plain)
    assert encoded == [min(600, -(-n // 256) * 256)]


def test_more_images_cost_only_those_that_are_missing_and_fewer_nothing(
    real, make_encoder, encoded, kept
):
    encoder = make_encoder()
    plain = encode(encoder, real.images[ORDER])
    for n in (100, 300, 600, 7):
        assert torch.equal(features.of(encoder, real, ORDER, n), plain[:n])
    assert encoded == [256, 256, 88]
    assert len([*kept.iterdir()]) == 1


def test_other_images_weights_orders_sizes_and_threads_are_others(
    real, make_encoder, encoded, monkeypatch
):
    encoder = make_encoder()
    features.of(encoder, real, ORDER, 10)
    features.of(make_encoder(seed=1), real, ORDER, 10)
    features.of(make_encoder(sha256="other"), real, ORDER, 10)
    features.of(encoder, replace(real, sha256="other"), ORDER, 10)
    features.of(encoder, real, ORDER.flip(0), 10)
    features.of(encoder, replace(real, spec=replace(real.spec, fit="pad")), ORDER, 10)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    features.of(encoder, real, ORDER, 10)
    assert encoded == [256] * 7
    features.of(encoder, real, ORDER, 10)
    assert len(encoded) == 7


def test_training_and_evaluation_share_them_on_a_gpu_too(real, make_encoder, encoded, monkeypatch):
    """Of which torch is told, inside of a training and not of an evaluation, to repeat itself."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    encoder = make_encoder()
    with conditions.repeatable():
        inside = features.of(encoder, real, ORDER, 10)
    assert torch.equal(features.of(encoder, real, ORDER, 10), inside)
    assert encoded == [256]
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_damaged_table_is_computed_again(real, make_encoder, encoded, kept, caplog):
    encoder = make_encoder()
    whole = features.of(encoder, real, ORDER, 600)
    [path] = kept.iterdir()
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    assert torch.equal(features.of(encoder, real, ORDER, 600), whole)
    assert "is damaged" in caplog.text
    assert encoded == [600, 600]


def test_a_cache_that_cannot_be_written_costs_a_warning(real, make_encoder, kept, tmp_path, caplog):
    (tmp_path / "cache").write_text("")  # a file where the folder should be
    table = features.of(make_encoder(), real, ORDER, 10)
    assert torch.equal(table, encode(make_encoder(), real.images[ORDER[:10]]))
    assert "features are not kept" in caplog.text


def test_an_encoder_without_weights_is_not_worth_a_file(real, kept):
    features.of(pixels(real.spec, 4), real, ORDER, 10)
    assert not kept.exists()


class Own(torch.nn.Flatten):
    """Of nobody that we know."""


@pytest.mark.parametrize("options", [None, {}])
def test_nor_is_one_with_code_from_outside_which_may_read_anything(
    options, real, make_encoder, kept
):
    encoder = make_encoder()
    encoder.options = options
    encoder.net = torch.nn.Sequential(encoder.net, Own() if options is None else torch.nn.ReLU())
    features.of(encoder, real, ORDER, 10)
    assert not kept.exists()


def test_what_was_longest_of_no_use_goes_first(real, make_encoder, kept, monkeypatch):
    encoders = [make_encoder(seed) for seed in range(3)]
    for age, encoder in enumerate(encoders):
        features.of(encoder, real, ORDER, 10)
        newest = max(kept.iterdir(), key=lambda p: p.stat().st_mtime_ns)
        os.utime(newest, (1000 + age, 1000 + age))
    features.of(encoders[0], real, ORDER, 10)  # of use again
    size = next(kept.iterdir()).stat().st_size
    monkeypatch.setattr(features, "MOST_BYTES", 2 * size)
    features.of(make_encoder(3), real, ORDER, 10)
    calls = []
    monkeypatch.setattr(features, "_keep", lambda *a: calls.append(a))
    for encoder in encoders:
        features.of(encoder, real, ORDER, 10)
    assert len(calls) == 2  # the second and the third are gone


def test_a_judge_gives_the_same_numbers_with_an_empty_and_with_a_full_cache(
    real, make_encoder, encoded
):
    train = replace(real, images=real.images.flip(0).contiguous(), sha256="train")
    drawn = real.images[:50] // 2
    found = []
    for _ in range(2):
        judge = Judge(make_encoder(), train=train, test=real)
        rows, truth = [rows_of(judge.encoder, drawn)], compared_with(judge, len(drawn))
        found.append(measured("fid", rows, truth, Settings()))
    assert found[0] == found[1]
    assert sorted(encoded) == [256, 600]
