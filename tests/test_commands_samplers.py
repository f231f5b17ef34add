"""Samplers, grids, wrappers and objectives by their words on the command line."""

import json

import pytest
import yaml
from closed_forms import CONF, nodes

from diffuse import config, planning

STEPPING = [n for n, node in nodes("sampler").items() if node["meta"].get("steps")]
PREDICTED = [n for n, node in nodes("sampler").items() if node["meta"].get("needs")]


def facts(trained, verb="sample", number=1):
    return json.loads((trained.parents[2] / f"{verb}/tiny/v{number:03d}/run.json").read_text())


@pytest.mark.parametrize("name", [name for name in STEPPING if name not in PREDICTED])
def test_every_sampler_draws_in_the_calls_that_are_asked_for_on_the_grid_of_its_yaml(
    name, trained, diffuse
):
    drawn = diffuse.json(f"sample n=3 nfe=5 sampler={name} device=cpu")
    assert drawn["nfe"] == drawn["sampler"]["nfe"] == 5
    chosen = yaml.safe_load((CONF / f"sampler/{name}.yaml").read_text()).get("defaults")
    grid = chosen[0]["override /grid@_global_.grid"] if chosen else "uniform"
    assert drawn["sampler"]["grid"]["name"] == grid
    assert drawn["sampler"]["choice"] == name


def test_a_typed_grid_beats_the_one_of_the_sampler(trained, diffuse):
    drawn = diffuse.json("sample n=1 steps=3 sampler=heun grid=logsnr")
    assert drawn["sampler"]["grid"]["name"] == "logsnr"
    assert drawn["nfe"] == 5


def test_an_experiments_sampler_brings_its_grid_and_an_experiments_grid_beats_it(
    trained, diffuse, tmp_path
):
    folder = tmp_path / "mine/experiment"
    folder.mkdir(parents=True)
    head = "# @package _global_\ndefaults:\n  - override /sampler: heun\n"
    (folder / "one.yaml").write_text(head)
    (folder / "two.yaml").write_text(head + "  - override /grid: quadratic\n")
    for name, grid in (("one", "karras"), ("two", "quadratic")):
        assert diffuse(f"train --cfg job --config-dir mine experiment={name}") == 0
        assert yaml.safe_load(diffuse.out)["grid"]["name"] == grid


def test_an_adaptive_sampler_reports_the_calls_it_took(trained, diffuse):
    drawn = diffuse.json("sample n=3 sampler=rk45 device=cpu")
    assert drawn["nfe"] % 6 == 1
    assert drawn["nfe"] > 6
    assert (drawn["sampler"]["steps"], drawn["sampler"]["grid"]) == (None, None)
    loose = diffuse.json("sample n=3 sampler=rk45 sampler.rtol=0.1 sampler.atol=0.1 device=cpu")
    assert loose["nfe"] < drawn["nfe"]


def test_fewer_calls_may_be_asked_for_with_reuse(trained, diffuse):
    drawn = diffuse.json("sample n=1 nfe=20 reuse=skip reuse.last=2 batch=1 device=cpu")
    assert drawn["nfe"] == 20
    assert drawn["sampler"]["steps"] > 50
    assert drawn["sampler"]["reuse"]["name"] == "skip"


@pytest.mark.parametrize("clip", ["none", "range", "dynamic", "0.4"])
def test_every_way_to_hold_estimates_is_recorded(clip, trained, diffuse):
    drawn = diffuse.json(f"sample n=2 steps=3 clip={clip} device=cpu")
    assert drawn["sampler"]["clip"] == clip


def highest():
    """Of every schedule there is; of some a network sees a part only."""
    for name, node in nodes("schedule").items():
        yield name, config.build("schedule", node).range[1]
    yield "few levels", 10.0


@pytest.mark.parametrize(("schedule", "top"), [*highest()])
def test_estimates_are_held_in_the_range_where_an_error_grows_with_the_noise(schedule, top):
    for name, node in nodes("objective").items():
        objective = config.build(
            "objective", {**node, **({"sigma_data": 0.7} if "edm" in name else {})}
        )
        assert planning.held("auto", objective, top) == ("range" if name == "eps" else "none")
        assert planning.held("dynamic", objective, top) == "dynamic"


def test_so_they_are_when_images_are_drawn(diffuse):
    for objective, clip in (("eps", "range"), ("flow", "none")):
        line = f"train.steps=2 train.sample_every=null objective={objective} name={objective}"
        assert diffuse.train(line) == 0
        assert diffuse.json(f"sample n=2 device=cpu run={objective}")["sampler"]["clip"] == clip


BAD = {
    "sampler=heun nfe=10": "nfe=10: heun makes 9 with steps=5 and 11 with steps=6; use one",
    "sampler=heun nfe=2": "nfe=2: heun makes 1 with steps=1 and 3 with steps=2; use one of these",
    "sampler=rk45 steps=5": "steps=5: rk45 chooses its own steps; set sampler.rtol=",
    "sampler=rk45 nfe=50": "nfe=50: rk45 chooses its own steps",
    "sampler=rk45 reuse=skip": "reuse: rk45 chooses its own steps",
    "steps=3 nfe=4": "steps=3 and nfe=4: say one of them",
    "nfe=0": "nfe must be at least 1",
    "clip=rang": "clip: unknown choice 'rang'; did you mean 'range'?",
    "clip=-1": "clip must be more than 0, got -1",
    "reuse=skip reuse.every=0": "reuse: every must be at least 1",
    "grid.rho=5": "unknown key 'grid.rho'; this grid has none, karras would",
    "grid=karras grid.rho=0": "grid: rho must be more than 0",
    "grid.spacing=traling": "grid: spacing must be one of trailing, leading, linspace",
    "sampler=lms sampler.order=7": "sampler: order must be in [1, 4], got 7",
}


@pytest.mark.parametrize("line", BAD)
def test_an_impossible_combination_says_what_to_use_instead(line, trained, diffuse):
    before = sorted(trained.parents[2].rglob("*"))
    assert BAD[line] in diffuse.error(f"sample n=1 {line}")
    assert sorted(trained.parents[2].rglob("*")) == before


ONE_STEP = """
import torch

@torch.no_grad()
def one_step(denoise, x, sigmas, randn):
    denoised = denoise(x, sigmas[0]) if len(sigmas) > 1 else x
    yield denoised, denoised
"""


def test_calls_that_no_number_of_steps_makes_are_refused(trained, diffuse, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "their_sampler.py").write_text(ONE_STEP)
    (tmp_path / "mine/sampler").mkdir(parents=True)
    (tmp_path / "mine/sampler/one.yaml").write_text("name: their_sampler:one_step\n")
    line = "sample n=1 --config-dir mine sampler=one trust=their_sampler"
    refused = diffuse.error(f"{line} nfe=2")
    assert "one_step makes 1 even with steps=2048; use steps= instead" in refused
    assert diffuse.json(f"{line} nfe=1")["nfe"] == 1


def test_more_steps_than_a_table_has_are_refused(diffuse):
    assert diffuse.train("train.steps=2 schedule=linear schedule.T=20") == 0
    assert "at most T = 20" in diffuse.error("sample n=1 steps=21")
    assert "at most T = 20" in diffuse.error("sample n=1 nfe=21")
    assert diffuse.json("sample n=1 sampler=ddpm")["nfe"] == 20  # all that there are


@pytest.mark.parametrize(
    "line",
    [
        "objective=x0 weighting=snr schedule=sigmoid noise_law=triangular",
        "objective=flow schedule=flow noise_law=logit_normal weighting=min_snr sampler=heun",
        "objective=eps schedule=scaled_linear weighting=p2 sampler=dpmpp_2m",
        "objective=v schedule=cosine_table schedule.zero_snr=true grid=karras",
        "objective=edm schedule=ve noise_law=lognormal sampler=ipndm start=moments",
    ],
)
def test_the_whole_space_trains_draws_and_is_evaluated(line, diffuse):
    assert diffuse.train(f"train.steps=2 {line}") == 0, diffuse.err
    record = diffuse.json("eval n=8 steps=3 device=cpu kid_subsets=2 kid_subset_size=4")
    assert record["fid"]["value"] > 0


def test_what_is_measured_of_the_data_is_kept_and_a_resumed_run_keeps_to_it(
    tiny, diffuse, tmp_path
):
    words = "objective=edm weighting=edm schedule=ve noise_law=lognormal"
    assert diffuse.train(f"train.steps=2 {words}") == 0, diffuse.err
    saved = yaml.safe_load((tmp_path / "outputs/train/tiny/v001/config.yaml").read_text())
    deviation = saved["objective"]["sigma_data"]
    assert deviation == saved["weighting"]["sigma_data"]
    assert diffuse("plot data dataset=digits dataset.subset=64 dry_run=true --json") == 0
    assert deviation == pytest.approx(json.loads(diffuse.out)["std"], abs=1e-4)
    assert diffuse.train(f"train.steps=4 resume=must {words}") == 0, diffuse.err
    other = f"train.steps=6 resume=must {words} objective.sigma_data=0.1"
    refused = diffuse.error(f"train {tiny} {other}")
    assert f"objective.sigma_data: {deviation} there, 0.1 here" in refused
    assert "model" not in refused


def test_eps_is_refused_where_the_last_level_has_no_signal(diffuse, tmp_path):
    line = "train objective=eps schedule=linear schedule.zero_snr=true"
    assert "use objective=v or x0" in diffuse.error(line)
    assert not (tmp_path / "outputs").exists()


def test_two_samplers_with_the_very_same_images_are_named(trained, diffuse):
    assert diffuse("sample n=4 steps=5 sampler=dpmpp_2m grid=karras device=cpu") == 0
    assert "bit-identical" not in diffuse.err
    assert diffuse("sample n=4 steps=5 sampler=dpmpp_2m_sde sampler.eta=0 device=cpu") == 0
    assert "dpmpp_2m_sde and dpmpp_2m drew bit-identical images" in diffuse.err
    assert "outputs/sample/tiny/v001" in diffuse.err


def test_aliases_that_say_so_and_repetitions_are_not(trained, diffuse):
    assert diffuse("sample n=4 steps=5 grid=karras device=cpu") == 0
    assert diffuse("sample n=4 steps=5 sampler=euler device=cpu") == 0
    assert facts(trained)["fingerprint"] == facts(trained, number=2)["fingerprint"]
    assert "bit-identical" not in diffuse.err
    assert diffuse("sample n=4 steps=1 sampler=heun device=cpu") == 0
    assert diffuse("sample n=4 steps=1 sampler=dpmpp_2m device=cpu") == 0  # one step: all agree
    assert "bit-identical" not in diffuse.err


@pytest.mark.slow
def test_a_sweep_ends_with_a_row_for_each_of_its_jobs(trained, diffuse):
    settings = "n=8 steps=2 device=cpu kid_subsets=2 kid_subset_size=4"
    assert diffuse(f"eval {settings} -m sampler=ddim,heun") == 0
    title, header, first, second = diffuse.out.splitlines()[-4:]
    assert title.startswith("eval outputs/eval/eval-sweep/v001")
    assert header.split() == ["FID", "(95%)", "real", "n", "NFE", "images/s"]
    record = json.loads((trained.parents[2] / "eval/eval-sweep/v001/1/record.json").read_text())
    assert first.split()[:2] == ["0:", "sampler=ddim"]
    assert second.split()[:3] == ["1:", "sampler=heun", f"{record['fid']['value']:.3f}"]
    assert diffuse("sample n=1 -m nfe=3,5 --json") == 0
    assert "sample outputs" not in diffuse.out  # JSON alone, one object a job


def test_a_sweep_in_which_a_job_cannot_be_is_refused_before_the_first_one_runs(trained, diffuse):
    before = sorted(trained.parents[2].rglob("*"))
    line = diffuse.error("eval n=8 nfe=4 -m sampler=ddim,heun")
    assert line.startswith("nfe=4: heun makes 3 with steps=2 and 5 with steps=3")
    assert line.endswith("(in the job sampler=heun)")
    assert sorted(trained.parents[2].rglob("*")) == before
