"""A key, password or token is in no file and no log of a run."""

import logging

import pytest
from injected import forked
from sentinel import SENTINEL, holding

from diffuse import cli, runs, secrets
from diffuse.errors import ConfigError


@pytest.fixture(autouse=True)
def _secret(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", SENTINEL)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")  # no secret, in spite of its name
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    "word",
    [
        f"hypothesis={SENTINEL}",
        f"name=a{SENTINEL}",
        f"dataset.root=https://example.org/x?token={SENTINEL}",
        f"dataset.root=https://me:{SENTINEL}@example.org/x",
        f"+tracker.api_key={SENTINEL}",
        f"tracker={{'api_key': {SENTINEL}}}",
        "hypothesis=${oc.env:WANDB_API_KEY}",
        "hypothesis=WANDB_API_KEY=another0ne",
        f"--outputs=https://me:{SENTINEL}@example.org/x",
    ],
)
def test_a_secret_that_is_typed_is_refused_and_written_nowhere(word, tiny, diffuse, tmp_path):
    message = diffuse.error(f"train {tiny} train.steps=1 {word}")
    assert "secret" in message
    assert SENTINEL not in message
    assert not list(tmp_path.iterdir())


def test_a_secret_that_an_experiment_reads_is_refused(tiny, diffuse, tmp_path):
    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/leak.yaml").write_text(
        "# @package _global_\nhypothesis: ${oc.env:WANDB_API_KEY}\n"
    )
    message = diffuse.error(f"train {tiny} --config-dir mine experiment=leak")
    assert "secret" in message
    assert SENTINEL not in message
    assert not (tmp_path / "outputs").exists()


def test_a_secret_in_an_error_is_kept_out_of_the_log_and_the_record(tmp_path):
    folder = runs.claim(tmp_path, "train", "a")
    run = runs.Run.start(folder, "train", "", [])

    def fail():
        with run.logged(), run.watched():
            logging.getLogger("diffuse").warning("the key is %s", SENTINEL)
            raise ConfigError(f"bad key {SENTINEL}")

    with pytest.raises(ConfigError):
        fail()
    assert holding(tmp_path) == []
    assert "the key is $WANDB_API_KEY" in (folder / "log.txt").read_text()
    assert runs.read(folder)["reason"] == "ConfigError: bad key $WANDB_API_KEY"
    (folder / "control.txt").write_text(SENTINEL)
    assert holding(tmp_path) == [folder / "control.txt"]


def test_what_is_no_secret_stays(monkeypatch):
    monkeypatch.setenv("GOOGLE_CREDENTIALS", "/home/me/key.json")
    assert secrets.redacted("false /home/me/key.json") == "false /home/me/key.json"


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["train", "eval"])
def test_wandb_with_a_key_leaves_it_in_no_file(verb, tiny, trained, tmp_path):
    lines = {
        "train": f"train {tiny} train.steps=2 tracker=wandb",
        "eval": "eval n=16 steps=2 device=cpu encoder=pixels tracker=wandb",
    }
    # in a process of its own: wandb remembers a key for as long as it lives
    assert forked(lambda: cli.main(lines[verb].split()), tmp_path / "said") == 0
    assert list(tmp_path.rglob("*.wandb"))
    assert holding(tmp_path) == []  # nor in what was said
