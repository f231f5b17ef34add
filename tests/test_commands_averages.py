"""Averages of several half-lives, from training to the images; what stays; what is refused."""

import contextlib
import re
import shutil

import pytest

from diffuse import checkpoints, cli, runs
from diffuse.averages import file_name, files
from diffuse.values import AVERAGE

LINE = "train.steps=4 train.ema=[0.5,0.9,0.99995]"


def last(run):
    return checkpoints.newest(run / "checkpoints")


@pytest.fixture(scope="module")
def _several(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    with contextlib.chdir(folder):
        assert cli.main(f"train {tiny} {LINE}".split()) == 0
    return folder / "outputs"


@pytest.fixture
def several(_several, diffuse, tmp_path):
    """A training with three averages, copied to where `diffuse` runs."""
    shutil.copytree(_several, tmp_path / "outputs", symlinks=True)
    return tmp_path / "outputs/train/tiny/v001"


def test_the_name_of_a_file_tells_its_decay_to_the_digit():
    assert [file_name(d) for d in (0.0, 1e-5, 0.5, 0.999, 0.9999, 0.99995, 0.999999)] == [
        "ema_0.0000", "ema_0.00001", "ema_0.5000", "ema_0.9990", "ema_0.9999", "ema_0.99995",
        "ema_0.999999",
    ]  # fmt: skip
    assert files([0.999]) == {"ema": "ema", "ema_0.9990": "ema"}
    for decay in (0.0, 1e-5, 1.5e-7, 0.999999):
        assert re.fullmatch(AVERAGE, file_name(decay))
        assert float(file_name(decay).removeprefix("ema_")) == decay


def test_the_first_is_what_one_alone_would_be_and_the_others_lie_beside_it(several, diffuse):
    names = {path.name for path in last(several).iterdir()}
    assert {"ema.safetensors", "ema_0.9000.safetensors", "ema_0.99995.safetensors"} < names
    assert "ema_0.5000.safetensors" not in names
    checkpoints.verify(last(several))
    assert diffuse.train("train.steps=4") == 0  # of 0.5
    one = several.with_name("v002")
    for name in ("model.safetensors", "ema.safetensors", "optimizer.safetensors"):
        assert (last(one) / name).read_bytes() == (last(several) / name).read_bytes()
    assert (one / "metrics.jsonl").read_bytes() == (several / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("weights", "file"),
    [
        ("ema", "ema"),
        ("ema_0.5", "ema"),
        ("ema_0.9", "ema_0.9000"),
        ("ema_0.9000", "ema_0.9000"),
        ("ema_0.99995", "ema_0.99995"),
        ("raw", "model"),
    ],
)
def test_each_can_be_sampled_from(weights, file, several, diffuse):
    facts = diffuse.json(f"sample n=2 steps=2 weights={weights}")
    assert facts["weights"]["sha256"] == checkpoints.sha256(last(several), file)
    assert facts["weights"]["name"] == weights


def test_each_can_be_evaluated(several, diffuse):
    line = "eval n=8 steps=2 encoder=pixels kid_subsets=2 kid_subset_size=4 weights=ema_0.9"
    record = diffuse.json(line)
    assert record["weights"]["sha256"] == checkpoints.sha256(last(several), "ema_0.9000")


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("ema_0.7", "ema_0.7; choices: ema, ema_0.5, ema_0.9, ema_0.99995, raw"),
        ("ema_1", "weights: unknown choice 'ema_1'"),
        ("rawe", "did you mean 'raw'?"),
    ],
)
def test_one_that_is_not_there_is_exit_2_with_those_that_are(weights, words, several, diffuse):
    assert words in diffuse.error(f"sample n=2 steps=2 weights={weights}")


def test_other_half_lives_are_another_training(tiny, several, diffuse):
    message = diffuse.error(f"train {tiny} train.steps=6 train.ema=[0.5,0.9] resume=auto")
    assert "train.ema: [0.5, 0.9, 0.99995] there, [0.5, 0.9] here" in message


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("train.keep=1", [12]),
        ("train.keep=1 train.keep_every=2", [4, 8, 12]),
        ("train.keep=2 train.keep_every=3", [6, 10, 12]),
        ("train.keep=1 train.keep_every=1", [2, 4, 6, 8, 10, 12]),
        ("train.keep=1 train.keep_every=2 train.save_every=null", [12]),
    ],
)
def test_besides_the_newest_every_nth_checkpoint_stays(line, kept, diffuse, tmp_path):
    line = f"train.steps=12 train.save_every=2 train.sample_every=null {line}"
    assert diffuse.train(line) == 0
    run = tmp_path / "outputs/train/tiny/v001"
    assert checkpoints.steps(run / "checkpoints") == kept
    assert runs.read(run)["status"] == "done"


BAD = {
    "train.micro_batch=5": "train.micro_batch=5 does not divide train.batch=16; nearest: 4 and 8",
    "train.micro_batch=32": "does not divide train.batch=16; nearest: 16",
    "train.on_nan=rollback train.save_every=null": "which is null; say one, or use",
    "train.ema=[]": "train.ema must be in [0, 1), or a list of such numbers, got []",
    "train.ema=abc": "train.ema must be in [0, 1)",
    "train.ema=[0.9,0.9]": "is listed twice",
    "resume.allow=[optimizer.lrr]": "did you mean 'optimizer.lr'?",
    "resume.allow=optimizer.lr": "resume_allow cannot be 'optimizer.lr'",
    "init_from=nothing": "no run 'nothing'",
}


def test_one_decay_is_the_same_in_a_list(diffuse):
    assert diffuse.train("train.steps=2 train.ema=0.9") == 0
    assert diffuse.train("train.steps=4 train.ema=[0.9] resume=must") == 0, diffuse.err
    assert diffuse.train("train.steps=6 train.ema=0.9 resume=must") == 0, diffuse.err
    assert diffuse.train("train.steps=8 train.ema=[0.8] resume=must") == 2
    assert "train.ema: 0.9 there, 0.8 here" in diffuse.err


@pytest.mark.parametrize(("line", "words"), BAD.items(), ids=BAD.keys())
def test_a_bad_value_is_one_line_exit_2_and_no_folder(tiny, line, words, diffuse, tmp_path):
    assert words in diffuse.error(f"train {tiny} {line}")
    assert not list(tmp_path.iterdir())
