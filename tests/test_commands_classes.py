"""Images of one class, or of all alike, beside real ones of other shares: it is said, and kept."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from diffuse.commands.evaluating import doubts
from diffuse.data import open_dataset

LINE = "eval n=8 steps=2 device=cpu encoder=pixels metrics=fid"
EACH = {
    "eval": LINE,
    "pareto": "pareto n=8 device=cpu encoder=pixels samplers=[ddim] nfe=[2]",
    "plot fid_trajectory": "plot fid_trajectory n=8 steps=2 device=cpu encoder=pixels",
}
ONE = "all images are of one class (3), reference and floor are of all classes: "
UNEVEN = "images are drawn of every class alike, but 13% of the test images are 3: "


def about_classes(diffuse, line):
    """What a record says of classes, which is said on the way, too."""
    record = diffuse.json(line)
    said = [words for words in record["warnings"] if "class" in words]
    assert [f"warning: {words}" in diffuse.err.splitlines() for words in said] == [True] * len(said)
    return said


@pytest.mark.parametrize("command", EACH)
def test_one_class_beside_all_of_them_is_a_warning_and_so_are_uneven_ones(
    command, trained, diffuse
):
    [said] = about_classes(diffuse, f"{EACH[command]} label=3")
    assert said.startswith(ONE)
    [said] = about_classes(diffuse, EACH[command])
    assert said.startswith(UNEVEN)


@pytest.mark.parametrize("command", ["eval", "pareto"])
def test_the_class_has_a_row_in_what_is_printed_where_one_was_asked_for(command, trained, diffuse):
    for words, rows in (("", []), (" label=3", ["3"])):
        assert diffuse(EACH[command] + words) == 0
        assert re.findall(r"^ +class +(\S+)$", diffuse.out, re.M) == rows
        assert max(map(len, diffuse.out.splitlines())) <= 80


def test_a_picture_of_one_class_names_it(trained, diffuse):
    assert diffuse(f"{EACH['plot fid_trajectory']} label=3 dry_run=true") == 0
    assert "8, seed 0, class 3\n" in diffuse.out
    assert diffuse(f"{EACH['plot fid_trajectory']} dry_run=true") == 0
    assert "8, seed 0\n" in diffuse.out


def test_of_even_classes_nothing_is_said(diffuse):
    """38 fours and 39 fives are tested with."""
    assert diffuse.train("train.steps=1 train.sample_every=null dataset.classes=[4,5]") == 0
    assert about_classes(diffuse, LINE) == []


@pytest.mark.parametrize("form", ["statistics", "images"])
def test_of_a_reference_by_somebody_else_nobody_knows_the_classes(form, trained, diffuse, tmp_path):
    if form == "images":
        np.save(tmp_path / "ref.npy", open_dataset({"name": "digits"}, "test").images[:, 0].numpy())
    else:
        np.savez(tmp_path / "ref.npz", mu=np.zeros(64), sigma=np.eye(64))
    line = f"{LINE} reference=ref.np{'y' if form == 'images' else 'z'}"
    assert about_classes(diffuse, line) == []
    [said] = about_classes(diffuse, f"{line} label=3")
    assert said.startswith("all images are of one class (3), the floor is of all classes: ")


def test_how_uneven_is_uneven(images):
    def said(labels, conditional=True, of_classes=True):
        known = {"conditional": conditional, "of_classes": conditional and of_classes}
        trained = SimpleNamespace(**known, spec=images.spec)
        return doubts.of_classes(trained, replace(images, labels=torch.tensor(labels)), None)

    assert said([0, 1, 2] * 10 + [0, 1]) == []
    assert said([0] * 12 + [1] * 10 + [2] * 10) == []
    [words] = said([0] * 16 + [1] * 8 + [2] * 8)
    assert "50% of the test images are a" in words
    assert said([0] * 16 + [1] * 16) != []  # there is no c
    assert said([0] * 32, conditional=False) == []
    assert said([0] * 32, of_classes=False) == []  # drawn of every group, which is of every class
