"""`diffuse plot`, as it is typed."""

import csv
import json
import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from diffuse import features
from diffuse.cli import completion
from diffuse.values import CHOICES

WITHOUT_A_RUN = {
    "data": "dataset=digits n=20",
    "schedule": "schedule=flow,cosine",
    "noise_law": "noise_law=uniform,lognormal",
    "grid": "grid=uniform,karras steps=6",
    "embedding": "",
    "noise": "dataset=digits objective=edm n=2 columns=3",
    "preprocessing": "dataset=digits n=40 encoder=pixels",
}
OF_A_RUN = {
    "denoise": "n=1 columns=3",
    "trajectory": "n=2 steps=5 device=cpu",
    "fid_trajectory": "n=4 steps=2 device=cpu encoder=pixels",
    "samplers": "n=2 nfe=4 samplers=[ddim,heun] device=cpu",
}
FIGURES = {"noise": {"noise", "target"}, "preprocessing": {"preprocessing", "images"}}


def test_every_picture_is_tried_here():
    assert {*WITHOUT_A_RUN, *OF_A_RUN} == set(CHOICES["what"])


def check(facts):
    """Every file is there, whole and not empty, each figure as PNG and as SVG."""
    files = [Path(name) for name in facts["files"]]
    assert Path(facts["plot"]) == files[0]
    assert {p.name for p in files} < {p.name for p in Path(facts["folder"]).iterdir()}
    figures = {p.stem for p in files if p.suffix == ".png"}
    assert figures == {p.stem for p in files if p.suffix == ".svg"}
    for path in files:
        if path.suffix == ".png":
            assert np.asarray(Image.open(path).convert("L")).std() > 10
        if path.suffix == ".svg":
            ElementTree.parse(path)
    return figures


@pytest.mark.parametrize("what", WITHOUT_A_RUN)
def test_a_picture_needs_no_training(what, diffuse):
    facts = diffuse.json(f"plot {what} {WITHOUT_A_RUN[what]}")
    assert check(facts) == FIGURES.get(what, {what})
    name = "digits" if what in ("data", "noise", "preprocessing") else what
    assert facts["folder"] == f"outputs/plot/{name}/v001"
    record = json.loads(Path(facts["folder"], "run.json").read_text())
    assert (record["status"], record["files"]) == ("done", facts["files"])


@pytest.mark.parametrize("what", ["schedule", "noise", *OF_A_RUN])
def test_a_dry_run_says_what_it_would_draw_and_writes_nothing(what, trained, diffuse):
    line = f"plot {what} {(WITHOUT_A_RUN | OF_A_RUN)[what]} dry_run=true"
    assert diffuse(line) == 0
    assert "(nothing is written)" in diffuse.out
    assert not (trained.parents[2] / "plot").exists()


def test_a_dry_run_computes_no_features(trained, diffuse, monkeypatch):
    asked, of = [], features.of

    def counted(encoder, images, *more):
        asked.append(len(images))
        return of(encoder, images, *more)

    monkeypatch.setattr(features, "of", counted)
    for what in ("preprocessing", "fid_trajectory"):
        line = f"plot {what} {(WITHOUT_A_RUN | OF_A_RUN)[what]}"
        assert diffuse(f"{line} dry_run=true") == 0
    assert asked == []
    assert diffuse(line) == 0
    assert 360 in asked  # the test split


def test_without_a_picture_it_says_which_there_are_and_writes_nothing(diffuse, tmp_path):
    for words in ("", " dataset=digits", " --multirun schedule=linear,cosine"):
        said = diffuse.error(f"plot{words}")
        assert "takes a picture: diffuse plot schedule; choices: data, schedule," in said
    assert not list(tmp_path.iterdir())


def test_a_data_set_is_counted(diffuse):
    facts = diffuse.json("plot data dataset=digits range=[0,1] n=20")
    assert facts["images"] == 1437
    assert sum(facts["classes"].values()) == 1437
    assert 0 < facts["mean"] < 1


@pytest.mark.slow
def test_the_flat_region_is_that_of_the_lessons(diffuse):
    betas = diffuse.json("plot schedule schedule=linear schedule.betamax=0.02,0.01 dry_run=true")
    flat = {label: facts["flat"] for label, facts in betas["schedules"].items()}
    assert flat == pytest.approx(
        {"linear betamax=0.02": 0.327, "linear betamax=0.01": 0.048}, abs=5e-4
    )
    lessons = diffuse.json("plot schedule schedule=cosine schedule.s=0 dry_run=true")
    assert lessons["schedules"]["cosine"]["flat"] == pytest.approx(0.063, abs=5e-4)
    assert diffuse("plot schedule schedule=linear,cosine schedule.s=0 dry_run=true") == 0
    assert "32.7% of 1,000 steps" in diffuse.out
    assert "6.3% of t" in diffuse.out


def test_a_key_goes_to_the_schedules_that_have_it(diffuse):
    line = "plot schedule schedule=linear,cosine,scaled_linear schedule.betamax=0.01 dry_run=true"
    ends = {label: one["sigma"][1] for label, one in diffuse.json(line)["schedules"].items()}
    kept = np.prod(1 - np.linspace(1e-4, 0.01, 1000))
    assert ends["linear"] == pytest.approx(math.sqrt(1 / kept - 1))
    roots = np.linspace(0.00085**0.5, 0.01**0.5, 1000)
    assert ends["scaled_linear"] == pytest.approx(math.sqrt(1 / np.prod(1 - roots**2) - 1))
    assert ends["cosine"] > 600


def test_commas_in_a_key_count_once_for_a_schedule_without_it(diffuse):
    line = "plot schedule schedule=linear,cosine schedule.betamax=0.02,0.01 dry_run=true"
    labels = list(diffuse.json(line)["schedules"])
    assert labels == ["linear betamax=0.02", "linear betamax=0.01", "cosine"]


@pytest.mark.slow
def test_what_was_laid_over_each_other_stands_in_the_config(diffuse):
    line = "plot grid grid=karras,logsnr grid.rho=3 name=grid"
    assert diffuse(line) == 0
    saved = Path("outputs/plot/grid/v001/config.yaml").read_text()
    assert "  karras:\n    name: karras\n    rho: 3\n" in saved
    assert "  logsnr:\n" in saved
    assert diffuse(f"{line} --cfg job") == 0
    seal, _, rest = saved.partition("\n")
    assert seal.startswith("# sha256 of what follows: ")
    assert diffuse.out.rstrip() == rest.rstrip()


@pytest.mark.slow
def test_a_sweep_over_schedules_is_a_picture_each(diffuse):
    assert diffuse("plot grid --multirun grid=karras,logsnr steps=3") == 0
    assert len(list(Path("outputs/plot").glob("*/v001/[01]/grid.svg"))) == 2


def test_a_sweep_over_calls_is_a_picture_each(trained, diffuse):
    assert diffuse("plot samplers --multirun nfe=2,3 samplers=[ddim] n=2 device=cpu") == 0
    saved = sorted(Path("outputs/plot").glob("*/v001/[01]/overrides.yaml"))
    assert ["nfe=2" in path.read_text() for path in saved] == [True, False]
    assert ["steps" in path.read_text() for path in saved] == [False, False]


def test_the_values_of_a_grid_are_written_down(diffuse):
    facts = diffuse.json("plot grid grid=karras,uniform schedule=ve steps=4")
    with open(Path(facts["folder"], "grid.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    ends = 80.0 ** (1 / 7), 0.002 ** (1 / 7)
    karras = np.linspace(*ends, 4) ** 7
    assert [float(row["karras"]) for row in rows] == pytest.approx(karras)
    assert facts["grids"]["karras"] == pytest.approx(karras)
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]


def test_edms_input_and_target_have_a_deviation_of_one(diffuse):
    line = "plot noise dataset=digits schedule=ve objective=edm range=[0,1] dry_run=true"
    for level in diffuse.json(line)["levels"]:
        # the mean of the data is not 0, so a deviation of 1 is what is left of both
        assert level["input_std"] == pytest.approx(1, abs=0.05)
        assert level["target_std"] == pytest.approx(1, abs=0.05)


def test_one_step_of_a_trained_network(trained, diffuse):
    facts = diffuse.json("plot denoise n=2 columns=4 weights=raw")
    assert check(facts) == {"denoise"}
    assert facts["folder"] == "outputs/plot/tiny/v001"
    assert [level["t"] for level in facts["levels"]] == [0.25, 0.5, 0.75, 1.0]
    errors = [level["mse"] for level in facts["levels"]]
    assert errors == sorted(errors)
    assert 0 < errors[0] < errors[-1]
    assert facts["noise"]["min"] < facts["noise"]["mean"] < facts["noise"]["max"]
    assert 0.1 < facts["mean_image_mse"] < 0.6
    record = json.loads(Path("outputs/plot/tiny/v001/run.json").read_text())
    assert record["weights"]["run"] == "outputs/train/tiny/v001"


def test_a_trajectory_of_a_trained_network(trained, diffuse):
    facts = diffuse.json("plot trajectory sampler=heun steps=5 n=2 columns=3 device=cpu")
    assert check(facts) == {"trajectory", "curves"}
    folder = Path(facts["folder"])
    assert Image.open(folder / "trajectory.gif").n_frames == 5
    with open(folder / "trajectory.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == facts["steps"] == 5
    assert [int(row["calls"]) for row in rows] == [2, 4, 6, 8, 9]
    assert facts["calls"] == 9
    change = np.array([float(row["change"] or 0) for row in rows])
    half = int(np.argmax(change.cumsum() >= change.sum() / 2)) + 1
    assert (facts["half_change_step"], facts["half_change_share"]) == (half, half / 5)


def test_what_to_guide_away_from_is_refused_where_nothing_is_guided(trained, diffuse):
    line = "plot trajectory guide=early steps=2 device=cpu"
    said = "guide=early: it does nothing at guidance=1; say guidance=2, too"
    assert diffuse.error(line) == said
    assert not (trained.parents[2] / "plot").exists()
    assert diffuse(f"{line} guidance=2 dry_run=true") == 0


@pytest.mark.parametrize(
    ("line", "expected"),
    {
        "plot schedul": "what: unknown choice 'schedul'; did you mean 'schedule'?",
        "plot schedule schedule=linear,cosin": "did you mean 'cosine'?",
        "plot schedule schedule=linear,cosine schedule.betamx=1": "did you mean 'schedule.betamax'",
        "plot grid grid=karras,logsnr grid.spacing=x": "this grid has none, uniform would",
        "plot schedule schedule=linear,cosine schedule.betamax=2": "betamax must be in (0, 1)",
        "plot schedule schedule=linear, n=1": "schedule",
        "plot schedule schedule=linear,cosine seed=1,2": "seed=1,2: add --multirun",
        "plot noise schedule=linear,cosine": "schedule=linear,cosine: add --multirun",
        "plot schedule dataset=digits": "`plot schedule` does not use it; it uses schedule",
        "plot denoise range=[0,1]": "range=[0,1]: `plot denoise` does not use it",
        "plot denoise": "no training run with a checkpoint in outputs: start with diffuse train",
        "plot trajectory run=other": "run: no run 'other'",
        "plot trajectory sampler=rk45": "choose another one",
        "plot trajectory sampler=ddim sampler.eta=2": "eta must be in [0, 1]",
        "plot noise columns=0": "columns must be at least 1",
        "plot grid schedule=linear steps=1001": "steps must be at most T = 1000",
    }.items(),
)
def test_what_cannot_be_drawn_is_one_line_and_leaves_nothing(line, expected, diffuse, tmp_path):
    assert expected in diffuse.error(line)
    assert not list(tmp_path.iterdir())


def test_tab_offers_the_pictures():
    assert completion.words("diffuse plot no") == [
        "noise",
        "noise_law",
        "noise_law=",
        "noise_level=",
    ]
    assert "trajectory" not in completion.words("diffuse train ")
