"""The pictures that an evaluation puts beside its numbers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffuse.data import open_dataset
from diffuse.encoders import pixels
from diffuse.plots.bias import bias
from diffuse.plots.neighbours import decimals
from diffuse.scoring import Judge, Settings, lookalikes, measured, real, rows_of

PLANTED = {7: 100, 3: 41}  # image -> the training image that it is a copy of


def digits(split):
    return open_dataset({"name": "digits"}, split)


@pytest.fixture(scope="module")
def judge():
    test = digits("test")
    return Judge(pixels(test.spec, 8), train=digits("train"), test=test)


@pytest.fixture(scope="module")
def generated(judge):
    """Test images, with two copies of training images among them."""
    images = judge.test.images[:40].clone()
    for row, source in PLANTED.items():
        images[row] = judge.train.images[source]
    return images


def test_planted_copies_come_first(judge, generated):
    what = real(judge, len(generated))
    rows = rows_of(judge.encoder, generated)
    scores = measured("memorisation", [rows], what, Settings())
    closest = scores["authenticity"]["closest"]
    assert closest[:2] == [[3, 41, 0.0], [7, 100, 0.0]]
    distances = [distance for _, _, distance in closest]
    assert distances == sorted(distances)
    assert distances[2] > 0
    assert len(closest) == lookalikes.CLOSEST
    found = lookalikes.lookalikes(generated, [row for row, _, _ in closest], what)
    for group in (found.features, found.pixels):
        assert group.numbers[:2, 0].tolist() == [41, 100]
        assert group.distances[:2, 0].tolist() == [0, 0]
        assert (found.shown(group)[:2, 0] == found.images[:2]).all()
        assert (group.distances.diff(dim=1) >= 0).all()
    assert found.features.distances[:, 0].tolist() == pytest.approx(distances)
    assert 0 < scores["closer"]["threshold"] < scores["closer"]["median_test"]


@pytest.mark.parametrize(("flip", "share"), [(True, 0), (False, 0.5)])
def test_mirrored_copies_are_copies_if_the_network_saw_mirror_images(judge, flip, share):
    train = replace(judge.train, flip=flip)
    what = real(Judge(judge.encoder, train=train, test=judge.test), 40)
    images = train.images[:40].flip(-1)
    scores = measured("memorisation", [rows_of(judge.encoder, images)], what, Settings())
    assert scores["authenticity"]["value"] >= share
    assert (scores["closer"]["value"] == 1) == flip
    if not flip:
        return
    assert scores["authenticity"]["value"] == 0
    closest = scores["authenticity"]["closest"]
    assert all(near == row and distance == 0 for row, near, distance in closest)
    found = lookalikes.lookalikes(images, [row for row, _, _ in closest], what)
    for group in (found.features, found.pixels):
        assert group.distances[:, 0].tolist() == [0] * 10
        assert (found.shown(group)[:, 0] == found.images).all()


def test_the_nearest_by_pixels_are_those_of_brute_force(judge, generated, monkeypatch):
    train = judge.train
    gaps = generated[:, None].double() - train.images[None].double()
    far = gaps.square().mean(dim=(2, 3, 4)).sqrt()
    monkeypatch.setattr(lookalikes, "PIECE", 8 * 64 * 100)  # 100 training images at a time
    found = lookalikes.nearest_pixels(generated, train, 4)
    values, order = far.sort(dim=1, stable=True)
    assert found.numbers.tolist() == order[:, :4].tolist()
    torch.testing.assert_close(found.distances, values[:, :4])


def test_neighbours_are_shown_at_the_datas_own_size(judge, generated):
    train = judge.train
    spec = replace(train.spec, height=32, width=32, fit="pad")
    padded = replace(train, spec=spec, images=torch.nn.functional.pad(train.images, [12] * 4))
    ours, theirs = (lookalikes.nearest_pixels(generated, t, 2) for t in (train, padded))
    assert torch.equal(ours.numbers, theirs.numbers)
    found = lookalikes.Lookalikes([0], generated[:1], ours, theirs, padded)
    assert found.shown(theirs).shape == (40, 2, 1, 8, 8)


@pytest.mark.parametrize(
    ("distances", "digits"), [([0.0, 1.451, 7.0], 2), ([23.0, 104.0], 1), ([0.0], 2), ([1e-9], 3)]
)
def test_all_distances_of_a_kind_have_as_many_digits(distances, digits):
    assert decimals(torch.tensor([distances])) == digits


def test_an_evaluation_puts_them_into_its_folder_and_says_where(trained, diffuse):
    line = "eval n=44 steps=2 device=cpu encoder=pixels"
    record = diffuse.json(f"{line} metrics=[memorisation] seeds=2")
    path = Path(record["pictures"]["neighbours"])
    assert path == Path(record["folder"], "neighbours.png")
    assert path.with_suffix(".svg").exists()
    wide, high = Image.open(path).size
    assert 700 < wide < 1500
    assert 1200 < high < 1700
    saved = json.loads(Path(record["folder"], "record.json").read_text())
    assert saved["pictures"] == record["pictures"]
    assert len(saved["metrics"]["authenticity"]["closest"]) == 10
    assert diffuse(f"{line} metrics=[memorisation]") == 0
    assert "neighbours" in diffuse.out
    assert diffuse.json(f"{line} metrics=[fid]")["pictures"] == {}


@pytest.mark.slow
def test_images_of_another_tool_get_them_too(tmp_path, diffuse):
    images = digits("train").images[:1100, 0].numpy()
    np.save(tmp_path / "theirs.npy", images)
    words = "dataset=digits encoder=pixels encoder.size=4 device=cpu"
    record = diffuse.json(f"eval images=theirs.npy {words} metrics=[memorisation,infinity]")
    assert set(record["pictures"]) == {"neighbours", "fid_n"}
    assert all(Path(path).exists() for path in record["pictures"].values())
    assert Image.open(record["pictures"]["fid_n"]).size == (1200, 555)
    closest = record["metrics"]["authenticity"]["closest"]
    assert [row[:2] for row in closest] == [[k, k] for k in range(10)]  # all of them are copies


def test_the_line_and_its_end_are_those_of_the_record(tmp_path, monkeypatch):
    """What is plotted: at 1/n, and at 0 the extrapolation."""
    from matplotlib.axes import Axes

    drawn = {}
    plot, bars = Axes.plot, Axes.errorbar

    def seen(how):
        def call(self, x, y, *others, **more):
            drawn[more.get("label", "").split(":")[0]] = np.array(x), np.array(y)
            return how(self, x, y, *others, **more)

        return call

    monkeypatch.setattr(Axes, "plot", seen(plot))
    monkeypatch.setattr(Axes, "errorbar", seen(bars))
    infinity = {"value": 2.0, "ci95": [1.5, 2.5], "slope": 512.0, "points": [[1024, 2.5, 0.0]]}
    curve = [[256, 4.0, 0.1], [512, 3.0, 0.1], [1024, 2.5, 0.0]]
    files = bias(curve, infinity, 0.7, "a title", tmp_path / "fid_n")
    assert [file.name for file in files] == ["fid_n.png", "fid_n.svg"]
    x, y = drawn["fit"]
    assert x.tolist() == [0, 1 / 256]
    assert y.tolist() == [2, 4]
    assert [v.tolist() for v in drawn["infinitely many"]] == [[0], [2]]
    x, y = drawn["random subsets of n of the images"]
    assert (x.tolist(), y.tolist()) == ([1 / 256, 1 / 512, 1 / 1024], [4, 3, 2.5])
    assert drawn["1,024 real training images"][1] == 0.7
    svg = (tmp_path / "fid_n.svg").read_text()
    assert ">infinity<" in svg
    assert ">1,024<" in svg


@pytest.mark.parametrize("low", [-0.5, 1.5])
def test_an_interval_that_goes_below_0_stays_inside_the_axes(low, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figures, save = [], Figure.savefig

    def seen(self, *others, **more):
        figures.append(self)
        save(self, *others, **more)

    monkeypatch.setattr(Figure, "savefig", seen)
    infinity = {"value": 2.0, "ci95": [low, 2.5], "slope": 512.0, "points": [[1024, 2.5, 0.0]]}
    bias([[256, 4.0, 0.1], [1024, 2.5, 0.0]], infinity, 0.7, "a title", tmp_path / "fid_n")
    bottom, _ = figures[0].axes[0].get_ylim()
    assert bottom == 0 if low > 0 else bottom < low
