"""What is done to images before they are compared, and what it does to their FID."""

import json
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffuse.data import open_dataset
from diffuse.encoders import Encoder, encode, pixels
from diffuse.metrics import fid
from diffuse.plots import preprocessing as pictures
from diffuse.scoring import Judge, real
from diffuse.scoring import preprocessing as ways


def digits(split):
    return open_dataset({"name": "digits"}, split)


@pytest.fixture(scope="module")
def judge():
    test = digits("test")
    return Judge(pixels(test.spec, 4), train=digits("train"), test=test)


@pytest.fixture(scope="module")
def found(judge):
    return {effect.treatment.name: effect for effect in ways.effects(judge, 120)}


def test_untouched_images_are_the_floor_of_an_evaluation(judge, found):
    value = found[ways.UNTOUCHED].fid.value
    assert value == fid(real(judge, 120).floor.features, judge.reference)
    assert found[ways.UNTOUCHED].change == (0, 0, 0)


def test_what_gives_every_pixel_back_changes_nothing(found):
    for name in ("rounded", "nearest, 8 -> 9 -> 8"):
        assert found[name].levels == 0
        assert found[name].change == (0, 0, 0)
    assert found["nearest, 8 -> 7 -> 8"].change.value > 0


def test_truncation_is_worse_than_rounding_where_the_truth_is_known():
    """Images beside themselves: rounding is at 0, what is cut off is not."""
    test = digits("test")
    same = Judge(pixels(test.spec, 4), train=test, test=test)
    effects = {e.treatment.name: e for e in ways.effects(same, len(test))}
    assert effects["rounded"].fid.value == pytest.approx(0, abs=1e-9)
    assert effects["truncated"].fid.value > 1e-6


def test_truncated_pixels_lose_half_a_level_in_the_mean():
    images = torch.full((64, 1, 16, 16), 100, dtype=torch.uint8)
    assert images.equal(ways.rounded(images))
    lost = 100 - ways.truncated(images).double()
    assert set(lost.unique().tolist()) == {0, 1}
    assert lost.mean().item() == pytest.approx(0.5, abs=0.02)


def test_jpeg_is_pillows_and_of_less_quality_it_changes_more():
    images = digits("test").images[:20]
    far = [(ways.jpeg(images, quality).short() - images).abs().sum() for quality in (95, 75, 20)]
    assert far == sorted(far)
    colours = images.expand(-1, 3, -1, -1).clone()
    colours[:, 2] = 0
    assert ways.jpeg(colours, 95).shape == colours.shape
    assert (ways.jpeg(colours, 95)[:, 2].double().mean()) < 40  # the channels keep their order


@pytest.mark.parametrize("name", ["nearest", "bilinear antialias", "bicubic", "Lanczos"])
def test_filters_are_pillows(name):
    images = torch.randint(64, 192, (3, 2, 13, 21), dtype=torch.uint8)  # bicubic overshoots
    ours = ways.RESIZES[name](images, (9, 14))
    words = {"bilinear antialias": "BILINEAR"}
    how = Image.Resampling[words.get(name, name.upper())]
    theirs = [Image.fromarray(p).resize((14, 9), how) for p in images.flatten(0, 1).numpy()]
    assert ours.shape == (3, 2, 9, 14)
    difference = ours.flatten(0, 1).int() - torch.from_numpy(np.stack(theirs)).int()
    assert difference.abs().max() <= 1  # Pillow rounds between the axes


def test_the_filter_of_an_encoder_counts_only_where_it_resizes(judge):
    size = (judge.encoder.height, judge.encoder.width)
    kinds = {way.kind for way in ways.treatments(size, judge.encoder)}
    assert "encoder's resize" not in kinds
    resizing = [way for way in ways.treatments((8, 8), judge.encoder) if way.prepared]
    names = [way.name for way in resizing if way.kind == "encoder's resize"]
    assert "encoder: bilinear antialias" not in names  # that is its own
    assert len(names) == 3
    images = digits("test").images[:8]
    before = encode(judge.encoder, images)
    for way in resizing:
        assert not torch.equal(encode(way.prepared(judge.encoder), images), before), way.name
    assert torch.equal(encode(judge.encoder, images), before)


def test_half_precision_is_near_and_nearer_if_both_sides_have_it(found):
    one, both = found["bfloat16 encoder"], found["bfloat16, reference too"]
    assert one.levels == both.levels == 0
    assert 0 < abs(one.change.value) < 0.05 * one.fid.value
    assert abs(both.change.value) < 0.05 * both.fid.value


def test_a_paired_difference_is_surer_than_either_number(found):
    truncated = found["truncated"]
    assert truncated.change.high - truncated.change.low < 0.2 * (
        truncated.fid.high - truncated.fid.low
    )


@pytest.mark.slow
def test_the_largest_effect_is_on_top_and_differences_are_gray_around_nothing(found, tmp_path):
    effects = list(found.values())
    sizes = [abs(effect.change.value) for effect in ways.sorted_by_size(effects)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == len(effects) - 1
    image = torch.tensor([[[[0, 10, 255]]]], dtype=torch.uint8)
    other = torch.tensor([[[[0, 12, 0]]]], dtype=torch.uint8)
    assert pictures.difference(other, image).flatten().tolist() == [128, 136, 0]
    files = pictures.draw(effects, "120 digits", "pixels", tmp_path)
    assert [file.name for file in files] == [
        "preprocessing.png", "preprocessing.svg", "images.png", "images.svg"
    ]  # fmt: skip
    sizes = [Image.open(tmp_path / name).size for name in ("preprocessing.png", "images.png")]
    assert sizes[0][0] == 1200
    assert all(400 < side < 2200 for size in sizes for side in size)


def test_bad_words_are_exit_2(diffuse):
    assert "n must be at least 4" in diffuse.error("plot preprocessing dataset=digits n=3")
    assert "n=5000, but digits train holds" in diffuse.error(
        "plot preprocessing dataset=digits n=5000"
    )
    assert "does not use it" in diffuse.error("plot preprocessing run=tiny")
    assert "size must be at least 1" in diffuse.error(
        "plot preprocessing dataset=digits encoder=pixels encoder.size=0"
    )


@pytest.mark.slow
def test_the_command_says_what_it_measured_and_on_what(diffuse):
    words = "dataset=digits n=60 encoder=pixels"
    facts = diffuse.json(f"plot preprocessing {words}")
    assert facts["n"] == 60
    assert facts["reference"]["sha256"] == digits("test").sha256
    assert facts["encoder"]["rounding"] == "uint8"
    assert facts["untouched"]["fid"]["value"] > 0
    assert facts["seeds"] == {"seed": 0, "count": 1}
    assert facts["command"] == f"diffuse plot preprocessing {words} --json"
    assert facts["seconds"] > 0
    assert facts["left_out"] == {}
    assert facts["range"] == [0, 255]
    assert len(facts["code"]) == 64
    assert [line.split(":")[0] for line in facts["warnings"]] == [
        "n=60 is less than the 64 features of the encoder"
    ]
    assert "n=60 is less than the 64 features" in diffuse.err
    kept = json.loads((Path(facts["folder"]) / "run.json").read_text())["data"]
    assert kept == {key: facts[key] for key in kept}
    assert {e["name"] for e in facts["effects"]} > {"JPEG, quality 75", "truncated", "rounded"}
    diffuse("plot preprocessing dataset=digits n=60 encoder=pixels")
    assert "untouched" in diffuse.out


class MakesFloats(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(64, 4)

    def forward(self, x):
        return self.linear(x.float().flatten(1) / 255)


def test_with_enough_images_there_is_no_warning_and_the_code_of_an_encoder_counts(
    diffuse, monkeypatch
):
    words = "dataset=digits n=8 encoder=pixels encoder.size=1 device=cpu"
    first = diffuse.json(f"plot preprocessing {words}")
    assert first["warnings"] == []
    assert "warning" not in diffuse.err
    monkeypatch.setattr("diffuse.conditions.source", lambda thing: thing.__name__)
    assert diffuse.json(f"plot preprocessing {words}")["code"] != first["code"]


def test_half_precision_is_left_out_where_the_encoder_makes_floats_of_its_images(judge):
    floats = Encoder(MakesFloats(), "floats", "sha", (1, 8, 8), 4)
    assert "dtype" in ways.no_half(floats)
    assert ways.no_half(judge.encoder) is None
    full = pixels(judge.test.spec, 8)
    names = [[way.name for way in ways.treatments((8, 8), e)] for e in (floats, full)]
    assert names[1] == [*names[0], "bfloat16 encoder", "bfloat16, reference too"]


@pytest.mark.slow
def test_the_command_says_why_half_precision_is_left_out(diffuse, tmp_path, monkeypatch):
    code = """
        from torch import nn

        class Net(nn.Module):
            range = "uint8"

            def __init__(self):
                super().__init__()
                self.linear = nn.Linear(64, 4)

            def forward(self, x):
                return self.linear(x.float().flatten(1) / 255)
    """
    (tmp_path / "my_floats.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(tmp_path)
    words = "dataset=digits n=20 encoder=own encoder.name=my_floats:Net trust=my_floats"
    facts = diffuse.json(f"plot preprocessing {words}")
    assert "dtype" in facts["left_out"]["bfloat16"]
    assert {e["kind"] for e in facts["effects"]} >= {"JPEG", "to 8 bits"}
    assert "half precision" not in {e["kind"] for e in facts["effects"]}
    assert diffuse(f"plot preprocessing {words} dry_run=true") == 0
    assert "my_floats:Net does not compute in it" in " ".join(diffuse.out.split())


def test_an_encoder_that_holds_what_cannot_be_copied_is_looked_at_all_the_same(
    diffuse, tmp_path, monkeypatch
):
    """Of what was computed from parameters torch makes no deep copy."""
    code = """
        from torch import nn

        class Net(nn.Module):
            range = (0, 1)
            size = 4

            def __init__(self):
                super().__init__()
                self.linear = nn.Linear(16, 4)
                self.basis = self.linear.weight @ self.linear.weight.T

            def forward(self, x):
                return self.linear(x.flatten(1)) @ self.basis
    """
    (tmp_path / "my_basis.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(tmp_path)
    words = "dataset=digits n=40 encoder=own encoder.name=my_basis:Net trust=my_basis"
    facts = diffuse.json(f"plot preprocessing {words}")
    changes = [e["change"] for e in facts["effects"] if e["kind"] == "encoder's resize"]
    assert len(changes) == len(set(changes)) == 3  # each by a filter of its own
    assert "deepcopy" in facts["left_out"]["bfloat16"]


def test_images_that_the_network_sees_padded_are_measured_at_their_own_size(judge):
    """As in an evaluation: the border is none of the data."""
    train = judge.train
    spec = replace(train.spec, height=32, width=32, fit="pad")
    padded = replace(train, spec=spec, images=torch.nn.functional.pad(train.images, [12] * 4))
    wide = Judge(judge.encoder, train=padded, test=judge.test)
    first = next(ways.effects(wide, 120))
    assert first.fid == next(ways.effects(judge, 120)).fid
