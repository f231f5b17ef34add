"""FID along a walk, and samplers side by side."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffuse.commands.plotting import samplers
from diffuse.data import open_dataset
from diffuse.encoders import encode, pixels
from diffuse.metrics import Moments, fid_estimate
from diffuse.scoring.along import Along, spread

PASSPORT = [
    "schema",
    "n",
    "warnings",
    "encoder",
    "reference",
    "real",
    "weights",
    "sampler",
    "range",
    "seeds",
    "dtype",
    "device",
    "threads",
    "revision",
    "versions",
    "code",
]
WORDS = "steps=3 n=70 encoder=pixels device=cpu seed=5"


def test_the_last_state_is_what_an_evaluation_scores_to_the_last_bit(trained, diffuse):
    record = diffuse.json(f"eval {WORDS} metrics=[fid]")
    facts = diffuse.json(f"plot fid_trajectory {WORDS}")
    last = facts["points"][-1]
    assert last["x"]["value"] == record["fid"]["value"]
    assert last["x"]["ci95"] == record["fid"]["ci95"]
    assert facts["floor"]["value"] == record["fid"]["floor"]
    assert last["denoised"] == last["x"]  # the last step of ddim goes all the way
    assert [point["calls"] for point in facts["points"]] == [1, 2, 3]
    for field in PASSPORT:
        assert facts[field] == record[field], field
    assert facts["command"] == f"diffuse plot fid_trajectory {WORDS} --json"
    assert facts["seconds"] > 0
    assert "n=70 is few images for the 64 features" in diffuse.err
    assert [line.split(":")[0] for line in facts["warnings"]] == [
        "n=70 is few images for the 64 features of the encoder",
        "the floor is of 64 training images, all there are",
        "images are drawn of every class alike, but 13% of the test images are 3",
    ]
    kept = json.loads((Path(facts["folder"]) / "run.json").read_text())["data"]
    assert kept == {key: facts[key] for key in kept}
    assert kept.keys() >= {*PASSPORT, "command", "seconds"}


@pytest.mark.slow
def test_every_point_is_in_the_table_and_the_picture_has_its_size(trained, diffuse):
    facts = diffuse.json(f"plot fid_trajectory sampler=heun {WORDS}")
    folder = Path(facts["folder"])
    with open(folder / "fid_trajectory.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["x"]) for row in rows] == [p["x"]["value"] for p in facts["points"]]
    assert [float(row["sigma"]) for row in rows] == [p["sigma"] for p in facts["points"]]
    assert [row["calls"] for row in rows] == ["2", "4", "5"]
    assert Image.open(folder / "fid_trajectory.png").size == (1200, 540)
    assert diffuse(f"plot fid_trajectory {WORDS} dry_run=true") == 0
    assert "70, seed 5" in diffuse.out


def test_every_fid_that_is_printed_has_its_interval(trained, diffuse):
    words = "steps=2 n=8 encoder=pixels encoder.size=1 device=cpu checkpoint=best"
    line = f"plot fid_trajectory {words}"
    facts = diffuse.json(line)
    assert [said.split()[0] for said in facts["warnings"]] == ["checkpoint=best", "images"]
    assert diffuse(line) == 0
    assert diffuse.err.count("was chosen by its FID") == 1
    assert "few images" not in diffuse.err

    def said(fid):
        low, high = fid["ci95"]
        return f"{fid['value']:.3f} ({low:.3f} to {high:.3f})"

    for point in facts["points"]:
        assert f"FID of denoised {said(point['denoised'])}, of x {said(point['x'])}" in diffuse.out
    for fid in (facts["points"][-1]["x"], facts["floor"]):
        assert f"FID {said(fid).replace('(', ' (95%: ')}\n" in diffuse.out
    best = min((point["denoised"] for point in facts["points"]), key=lambda fid: fid["value"])
    assert f"FID {said(best).replace('(', ' (95%: ')}, in step" in diffuse.out


def test_no_more_steps_are_measured_than_that_and_the_ends_are_among_them():
    assert spread(3, 50) == [1, 2, 3]
    some = spread(1000, 50)
    assert (len(some), some[0], some[-1]) == (50, 1, 1000)
    gaps = np.diff(some)
    assert gaps.max() - gaps.min() <= 1


def test_the_number_does_not_depend_on_the_batches_and_few_images_wait():
    data = open_dataset({"name": "digits"}, "train")
    encoder, images = pixels(data.spec, 4), data.images[:300]
    reference = Moments.of(encode(encoder, data.images))
    whole = fid_estimate(encode(encoder, images), reference, 20)
    for size in (300, 64, 7):
        along = Along(encoder, [1, 2])
        for some in images.split(size):
            along.add(2, some, 255 - some, calls=2)
            along.add(1, some, some, calls=1)
            waiting = sum(map(len, along.pixels[2, 0]))
            assert waiting < 256
        one, two = along.points([9.0, 3.0, 0.0], reference)
        assert (one.step, one.sigma, two.sigma, two.calls) == (1, 9, 3, 2)
        assert one.x == one.denoised == two.denoised == whole
        assert two.x.value > 10 * whole.value


BAD = {
    "sampler=rk45": "takes other steps for every image",
    "n=3": "n must be at least 4",
    "encoder.size=0 encoder=pixels": "size must be at least 1",
    "columns=3": "does not use it",
    "label=99": "no class 99",
    "guide=early": "guide=early: it does nothing at guidance=1; say guidance=2, too",
}


@pytest.mark.parametrize(("words", "message"), BAD.items())
def test_a_bad_word_is_exit_2_and_leaves_no_folder(words, message, trained, diffuse):
    assert message in diffuse.error(f"plot fid_trajectory {words}")
    assert not (trained.parents[2] / "plot").exists()


@pytest.fixture
def shown(monkeypatch):
    """What is given to the sheet."""
    found = {}
    draw = samplers.sheet

    def watched_sheet(path, images, title, rows, *others, **more):
        found.update(images=images, title=title, rows=rows)
        return draw(path, images, title, rows, *others, **more)

    monkeypatch.setattr(samplers, "sheet", watched_sheet)
    return found


@pytest.mark.slow
def test_a_row_is_what_the_sampler_draws_alone(trained, shown, diffuse):
    words = "seed=3 device=cpu"
    facts = diffuse.json(f"plot samplers samplers=[ddim,heun,ddpm] nfe=6 n=5 {words}")
    assert shown["images"].shape == (3, 5, 1, 8, 8)
    for row, line in enumerate(["sampler=ddim nfe=6", "sampler=heun nfe=5", "sampler=ddpm nfe=6"]):
        folder = diffuse.json(f"sample {line} n=5 batch=5 save=npy {words}")["folder"]
        alone = np.load(Path(folder, "images.npy"))
        assert (shown["images"][row, :, 0].numpy() == alone).all(), line
    assert not torch.equal(shown["images"][0], shown["images"][2])
    assert {name: one["nfe"] for name, one in facts["samplers"].items()} == {
        "ddim": 6, "heun": 5, "ddpm": 6
    }  # fmt: skip
    assert facts["samplers"]["heun"]["grid"] == "karras"
    assert "at most 6" in shown["title"]
    assert shown["rows"][1] == "heun\n5 calls, 3 steps"


SAMPLERS_BAD = {
    "samplers=[ddim,heum]": "did you mean 'heun'?",
    "samplers=[ddim,rk45]": "rk45",
    "samplers=[ddim,ddim]": "is listed twice",
    "samplers=[]": "samplers needs at least one value",
    "sampler=ddim": "does not use it",
    "steps=3": "does not use it",
    "guidance_levels=[0.2,5]": "guidance_levels=[0.2,5]: it does nothing at guidance=1",
    "guide=early": "guide=early: it does nothing at guidance=1; say guidance=2, too",
}


@pytest.mark.parametrize(("words", "message"), SAMPLERS_BAD.items())
def test_samplers_that_cannot_be_compared_are_exit_2(words, message, trained, diffuse):
    assert message in diffuse.error(f"plot samplers {words}")


def test_other_pictures_do_not_look_at_the_samplers(diffuse):
    assert diffuse("plot data dataset=digits dry_run=true samplers=[nonsense]") == 2
    assert diffuse("plot embedding dry_run=true") == 0
