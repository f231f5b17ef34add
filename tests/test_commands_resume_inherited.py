"""`resume=<run>` alone goes on as that run was, and a try-out is in nobody's way."""

import json
import shlex

import pytest
from leftovers import at_step, stop
from omegaconf import OmegaConf
from PIL import Image

from diffuse import cli, runs
from diffuse.commands.training import loop


def config(run):
    return OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))


@pytest.mark.parametrize("named", ["tiny", "outputs/train/tiny/v001"])
def test_what_is_not_typed_is_as_it_was_in_the_run_that_is_named(named, trained, diffuse):
    before = config(trained)
    assert diffuse(f"train resume={named} train.steps=6") == 0, diffuse.err
    assert runs.read(trained)["step"] == 6
    after = config(trained)
    assert after.pop("resume") == named
    for now in ("device", "resume"):
        before.pop(now), after.pop(now, None)
    before["train"]["steps"] = 6
    assert after == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("model.width=16", "other settings (model.width: 8 there, 16 here); use those, or resume="),
        ("optimizer=muon", "optimizer.name: AdamW there, Muon here); use those, or resume=none"),
        ("train.batch=32", "batch: 16 there, 32 here); use those, or let it through with "),
        ("seed=1 range=[0,1]", "range: [-1, 1] there, [0, 1] here; seed: 0 there, 1 here); use "),
        ("seed=1 range=[0,1]", "or let them through with resume.allow=[range,seed], or resume=n"),
        ("range=[0,1] resume.allow=[seed]", "resume.allow=[seed,range]"),
        ("train.micro_batch=32", "train.micro_batch=32 does not divide train.batch=16"),
        ("experiment=quickstart", "dataset.name: digits there, fashion_mnist here"),
    ],
)
def test_what_is_typed_is_compared_with_it(words, said, trained, diffuse):
    assert said in diffuse.error(f"train resume=tiny {words}")
    assert runs.read(trained)["step"] == 4


@pytest.mark.parametrize(
    "words",
    ["train.micro_batch=5", pytest.param("devices=3 dry_run=true", marks=pytest.mark.slow)],
)
def test_parts_of_a_batch_are_those_of_the_run_not_of_the_default(words, tiny, diffuse):
    assert diffuse(f"train {tiny} name=odd train.batch=15 train.steps=2") == 0, diffuse.err
    assert diffuse(f"train resume=odd train.steps=3 {words}") == 0, diffuse.err
    said = diffuse.error("train resume=odd train.steps=4 train.micro_batch=4")
    assert "micro_batch=4 does not divide train.batch=15; nearest: 3 and 5" in said
    said = diffuse.error("train resume=auto name=odd train.steps=4 train.micro_batch=5")
    assert "micro_batch=5 does not divide train.batch=64" in said  # this command line says all


def test_the_words_that_a_run_was_stopped_with_continue_it(tiny, diffuse, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("import torch\n\nclass SGD(torch.optim.SGD):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    line = f"train {tiny} train.steps=5 outputs=els,where trust=mine optimizer.name=mine:SGD"
    line += "".join(f" ~optimizer.{key}" for key in ("betas", "eps", "weight_decay"))
    line += " train.on_nan=skip"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "fit", at_step(3, stop))
        assert diffuse(line) == 143, diffuse.err
    [hint] = [row for row in diffuse.err.splitlines() if "stopped at step" in row]
    words = shlex.split(hint.partition("diffuse ")[2].removesuffix(" continues"))
    assert words[1] == "resume=els,where/train/tiny/v001"
    assert cli.main(words) == 0
    assert runs.read(tmp_path / words[1].removeprefix("resume="))["step"] == 5


@pytest.mark.parametrize("root", ["Früchte", "_photos", "x" * 100])
def test_a_run_that_was_named_after_its_images_is_continued_by_its_name(
    root, tiny, diffuse, tmp_path
):
    (tmp_path / root).mkdir()
    for k in range(24):
        Image.new("L", (8, 8), k).save(tmp_path / root / f"{k}.png")
    words = tiny.replace("dataset=digits dataset.subset=64", f"dataset=folder dataset.root={root}")
    words = words.removesuffix(" name=tiny") + " train.sample_every=null model.conditional=false"
    assert diffuse(f"train {words} train.steps=1") == 0, diffuse.err
    run = f"outputs/train/{root}-cosine/v001"
    assert diffuse(f"train resume={run} train.steps=2") == 0, diffuse.err
    assert runs.read(tmp_path / run)["step"] == 2
    assert "name: 'ü' will not do" in diffuse.error(f"train resume={run} name=ü")


def test_a_job_of_a_sweep_is_continued_by_its_name(diffuse, tmp_path):
    assert diffuse.train("-m seed=1,2 name=swept train.steps=2") == 0, diffuse.err
    assert diffuse("train resume=swept/v001/1 train.steps=3") == 0, diffuse.err
    job = tmp_path / "outputs/train/swept/v001/1"
    assert (runs.read(job)["step"], runs.read(job)["seed"], config(job)["seed"]) == (3, 2, 2)


def test_a_try_out_is_not_gone_on_with_by_a_real_run_nor_the_other_way(tiny, diffuse, tmp_path):
    words = tiny.replace("train.batch=16 ", "").replace("train.warmup=2 ", "")
    for _ in range(2):  # a new one, as if there was no try-out
        assert diffuse(f"train {words} debug=smoke train.eval_every=null resume=auto") == 0
    assert "nothing to continue" not in diffuse.err
    line = f"train {words} train.steps=4 train.batch=16"
    assert "v001 is a try-out (debug=smoke)" in diffuse.error(f"{line} resume=must")
    assert diffuse(f"{line} resume=auto") == 0, diffuse.err
    assert "v001 is a try-out (debug=smoke)): a new run" in diffuse.err
    assert diffuse(f"{line} resume=auto train.steps=5") == 0, diffuse.err
    facts = [json.loads(path.read_text()) for path in tmp_path.rglob("run.json")]
    assert sorted((f["version"], f["smoke"], f["step"]) for f in facts) == [
        ("v001", True, 2),
        ("v002", False, 5),
    ]
