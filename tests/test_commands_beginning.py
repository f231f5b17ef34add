"""`init_from=` begins with another run's weights; `resume.allow=` lets a key differ."""

import pytest
import torch
from leftovers import rows
from omegaconf import OmegaConf

from diffuse import checkpoints, runs


def tensors(run, step, name):
    return checkpoints.load_tensors(checkpoints.at(run / "checkpoints", step), name)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


STILL = "train.steps=1 optimizer.lr=0 train.sample_every=null name=second"  # nothing is learnt


@pytest.mark.parametrize(
    ("words", "step", "name"),
    [
        ("init_from=tiny", 4, "ema"),
        ("init_from=tiny/v001@2", 2, "ema"),
        ("init_from=outputs/train/tiny/v001@2 init_weights=raw", 2, "model"),
        ("init_from=tiny init_weights=ema_0.5", 4, "ema"),
    ],
)
def test_a_new_run_begins_with_the_weights_that_are_named(words, step, name, trained, diffuse):
    assert diffuse.train(f"{STILL} seed=3 {words}") == 0
    second = trained.parents[1] / "second/v001"
    given = tensors(trained, step, name)
    assert same(tensors(second, 1, "model"), given)
    assert same(tensors(second, 1, "ema"), given)
    facts = runs.read(second)["init_from"]
    assert (facts["run"], facts["step"]) == ("outputs/train/tiny/v001", step)
    path = checkpoints.at(trained / "checkpoints", step)
    assert facts["sha256"] == checkpoints.sha256(path, name)
    assert diffuse.train(f"{STILL} seed=3") == 0
    assert not same(tensors(second.with_name("v002"), 1, "model"), given)


@pytest.mark.slow
def test_a_plan_says_what_would_be_begun_with_and_in_which_parts(trained, diffuse):
    line = "train.steps=1 name=second init_from=tiny@2 train.micro_batch=4 dry_run=true"
    assert diffuse.train(line) == 0
    assert "outputs/train/tiny/v001, step 2" in diffuse.out
    assert "16 images in parts of 4" in diffuse.out
    assert not (trained.parents[1] / "second").exists()


def test_its_best_checkpoint_can_be_named(trained, diffuse):
    assert diffuse.train(f"{STILL} init_from=tiny@best") == 0
    second = runs.read(trained.parents[1] / "second/v001")
    assert second["init_from"]["step"] == runs.read(trained)["best"]["step"]


def test_its_optimizer_and_steps_are_fresh_and_data_and_schedule_may_be_others(trained, diffuse):
    line = "train.steps=2 name=second schedule=linear train.batch=8 dataset.subset=32"
    assert diffuse.train(f"{line} init_from=tiny") == 0
    second = trained.parents[1] / "second/v001"
    assert [row["step"] for row in rows(second) if "loss" in row] == [1, 2]
    moments = tensors(second, 2, "optimizer")
    assert {t.item() for name, t in moments.items() if name.endswith("/step")} == {2.0}


def test_a_run_that_began_so_is_continued_from_its_own_weights(trained, diffuse):
    line = "name=second init_from=tiny train.sample_every=null"
    assert diffuse.train(f"{line} train.steps=3 resume=auto") == 0
    assert diffuse.train(f"{line} train.steps=5 resume=auto") == 0
    second = trained.parents[1] / "second/v001"
    assert (runs.read(second)["step"], runs.read(second)["init_from"]["step"]) == (5, 4)
    assert not same(tensors(second, 5, "model"), tensors(trained, 4, "ema"))


WRONG = {
    "model.width=16 model.blocks=2": "model.width is 8 in outputs/train/tiny/v001, 16 here",
    "model=course model.attention=[]": "init_from: model.",
    "init_from=tiny@3": "has no checkpoint 3; choices: 2, 4",
    "init_from=tinny": "no run 'tinny'",
    "init_weights=ema_0.7": "has no average ema_0.7; choices: ema, ema_0.5, raw",
}


@pytest.mark.parametrize(("line", "words"), WRONG.items(), ids=WRONG.keys())
def test_what_cannot_be_begun_with_is_one_line_and_exit_2(tiny, line, words, trained, diffuse):
    assert words in diffuse.error(f"train {tiny} name=second init_from=tiny {line}")
    assert not (trained.parents[1] / "second").exists()


def test_other_channels_or_classes_are_found_when_the_data_is_there(
    tiny, trained, diffuse, tmp_path
):
    from PIL import Image

    for label in "ab":
        (tmp_path / "mine" / label).mkdir(parents=True)
        for k in range(8):
            path = tmp_path / "mine" / label / f"{k}.png"
            Image.new("RGB", (8, 8), (k, 0, 0)).save(path)
    line = tiny.replace("dataset=digits dataset.subset=64", "dataset=folder dataset.root=mine")
    message = diffuse.error(f"train {line} name=second init_from=tiny")
    assert "init_from: the weights of outputs/train/tiny/v001 do not fit these images" in message


def test_a_key_that_is_let_through_differs_and_the_config_says_so(trained, diffuse):
    before = OmegaConf.load(trained / "config.yaml")
    line = "train.steps=6 resume=auto optimizer.lr=0.5 resume.allow=[optimizer.lr]"
    assert diffuse.train(line) == 0
    assert "resume.allow: optimizer.lr: " in diffuse.err
    after = OmegaConf.load(trained / "config.yaml")
    assert after.optimizer.lr == 0.5 != before.optimizer.lr
    rates = {row["step"]: row["lr"] for row in rows(trained) if "lr" in row}
    assert rates[5] > 10 * rates[2]
    assert runs.read(trained)["step"] == 6
    assert diffuse.train("train.steps=7 resume=auto optimizer.lr=0.5") == 0


def test_a_whole_group_can_be_let_through_and_its_settings_count(trained, diffuse):
    line = "train.steps=5 resume=auto resume.allow=[optimizer,train.warmup]"
    assert diffuse.train(f"{line} optimizer.weight_decay=0.3 train.warmup=0") == 0
    state = checkpoints.load_state(checkpoints.at(trained / "checkpoints", 5))
    assert state["optimizer"]["param_groups"][0]["weight_decay"] == 0.3


@pytest.mark.slow
def test_without_a_difference_letting_through_changes_no_byte(trained, diffuse):
    other = trained.with_name("v002")
    assert diffuse.train("train.steps=4") == 0
    assert diffuse.train("train.steps=6 resume=tiny/v002 resume.allow=[optimizer,train.batch]") == 0
    assert diffuse.train("train.steps=6 resume=tiny/v001") == 0
    for name in ("model", "ema", "optimizer"):
        assert same(tensors(trained, 6, name), tensors(other, 6, name))


REFUSED = {
    "optimizer.lr=0.5 train.batch=8": "(train.batch: 16 there, 8 here)",
    "optimizer=adam": "(optimizer.name: AdamW there, Adam here)",
    "model.width=16 resume.allow=[model]": "does not fit this config",
    "resume.allow=[train.log_every]": "nothing fixed is called 'train.log_every'",
}


@pytest.mark.parametrize(("line", "words"), REFUSED.items(), ids=REFUSED.keys())
def test_all_else_is_refused_as_ever(tiny, line, words, trained, diffuse):
    before = (trained / "config.yaml").read_text()
    allow = "resume.allow=[optimizer.lr]"
    message = diffuse.error(f"train {tiny} train.steps=6 resume=auto {allow} {line}")
    assert words in message
    assert (trained / "config.yaml").read_text() == before
