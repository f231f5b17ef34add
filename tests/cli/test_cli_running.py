"""What reaches a command, and what is said when it fails."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from places import ROOT

from diffuse import cli
from diffuse.cli import arguments, composing
from diffuse.commands import VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_a_bare_command_runs_with_its_defaults_and_hydra_leaves_nothing(verb, command, tmp_path):
    assert cli.main([verb]) == 0
    assert command.job.command == verb
    assert command.job.folder is None
    assert command.job.overrides == []
    assert command.left_behind() == []
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize("verb", VERBS)
def test_debug_smoke_shrinks_every_command(verb, command):
    assert cli.main([verb, "debug=smoke"]) == 0
    assert command.cfg.smoke is True
    assert cli.main([verb]) == 0
    assert command.cfg.smoke is False


def test_the_defaults_are_those_that_scripts_count_on(command):
    assert cli.main(["sample"]) == 0
    assert (command.cfg.sampler.name, command.cfg.n, command.cfg.weights) == ("ddim", 64, "ema")
    assert cli.main(["eval"]) == 0
    assert (command.cfg.sampler.name, command.cfg.n) == ("ddim", 2048)
    assert cli.main(["train"]) == 0
    assert command.cfg.name == "fashion_mnist-cosine"


def test_flags_and_overrides_come_in_any_order(command):
    assert cli.main(["train", "seed=3", "--json", "n=5"]) == 0
    assert (command.cfg.seed, command.cfg.n, command.job.json) == (3, 5, True)
    assert command.job.overrides == ["seed=3", "n=5"]
    assert cli.main(["sample", "n=1", "-m", "dry_run=true"]) == 0
    assert command.job.json is False


FREE = [
    "a, b",
    "[4]",
    "x=1",
    "it's",
    'say "so"',
    "back\\",
    "\\'",
    "\\\\'x\\",
    "(1) {2}",
    "50%",
    "~!@#",
]
FREE += [
    "a: b",
    " ",
    "why, in [2]: 'x=\"y\"'\\",
    "null and void",
    "null, or",
    "é",
    "1",
    "a\nb",
    "'a' or 'b'",
]


@pytest.mark.parametrize("text", FREE)
def test_a_quoted_text_means_itself_in_hydras_grammar(text):
    [word] = arguments.parse("train", [f"hypothesis={text}"]).overrides
    assert str(OverridesParser.create().parse_override(word).value()) == text


@pytest.mark.parametrize("flag", [[], ["--multirun"]])
def test_free_text_arrives_as_it_was_typed(flag, command):
    text = "why, in [2]: 'x=\"y\"'\\"
    assert cli.main(["train", "dry_run=true", f"hypothesis={text}", *flag]) == 0
    assert command.cfg.hypothesis == text


@pytest.mark.parametrize("verb", ["sample", "eval"])
def test_paths_keep_their_commas_brackets_and_spaces(verb, command):
    assert cli.main([verb, "run=my runs/a,b [1]=c", "outputs=out, [2]"]) == 0
    assert command.cfg.run == "my runs/a,b [1]=c"
    assert command.cfg.outputs == "out, [2]"


def test_a_path_from_home_is_one_wherever_it_is_typed_and_a_text_stays(command, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    words = ["outputs=~/out", "dataset=folder", "dataset.root=~/my images", "hypothesis=~/x"]
    assert cli.main(["train", *words, "resume=a/~/b"]) == 0
    cfg = command.cfg
    assert (cfg.outputs, cfg.dataset.root) == ("/home/me/out", "/home/me/my images")
    assert (cfg.hypothesis, cfg.resume) == ("~/x", "a/~/b")
    assert arguments.parse("sample", ["run='~/a'"]).overrides == ["run='~/a'"]  # quoted
    swept = arguments.parse("sample", ["-m", "run=~/a,b,~/c"]).overrides
    assert swept == ["run=/home/me/a,b,/home/me/c"]


def test_a_name_of_digits_stays_text_and_null_stays_null(command):
    assert cli.main(["train", "name=007"]) == 0
    assert command.cfg.name == "007"
    assert cli.main(["train", "name=null"]) == 0
    assert command.cfg.name == "fashion_mnist-cosine"


def test_of_what_is_typed_twice_the_last_one_counts_in_a_sweep_too(command):
    words = ["seed=1,2", "+optimizer.x=1", "seed=3", "++optimizer.x=2", "resume.allow=[a]"]
    parsed = arguments.parse("train", ["-m", *words, "resume_allow=[b]"])
    assert parsed.typed == ["seed=3", "++optimizer.x=2", "resume_allow=[b]"]
    assert cli.main(["train", "-m", "seed=1,2", "name=a", "seed=3"]) == 0
    assert [cfg.seed for cfg, _ in command.calls] == [3]


def test_the_word_after_plot_says_what_is_plotted(command):
    assert cli.main(["plot", "data", "dataset=digits"]) == 0
    assert command.cfg.what == "data"
    assert command.cfg.name == "digits"
    assert "did you mean 'data'?" in command.error("plot dat")


def test_a_typed_length_beats_the_experiment_and_two_contradict_each_other(command):
    assert cli.main(["train", "experiment=quickstart"]) == 0
    assert (command.cfg.train.minutes, command.cfg.name) == (4, "quickstart")
    assert cli.main(["train", "experiment=quickstart", "train.steps=7"]) == 0
    assert (command.cfg.train.steps, command.cfg.train.minutes) == (7, None)
    assert command.job.overrides == ["experiment=quickstart", "train.steps=7"]
    assert "say the length once" in command.error("train train.steps=7 train.epochs=2")


def test_no_experiment_can_be_said_aloud(command):
    assert cli.main(["train", "experiment=null"]) == 0
    assert command.job.choices.get("experiment") is None


def test_an_experiment_beats_the_defaults_and_the_command_line_beats_both(command, tmp_path):
    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/own.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /schedule: linear\nn: 9\nseed: 5\n"
    )
    line = ["train", "--config-dir", "mine", "experiment=own", "seed=6"]
    assert cli.main(line) == 0
    assert (command.cfg.n, command.cfg.seed, command.cfg.name) == (9, 6, "own")
    assert command.cfg.schedule.name == "linear"
    assert command.job.choices["schedule"] == "linear"


def test_interpolations_are_filled_in(command):
    assert cli.main(["train", "model.width=${n}", "n=48"]) == 0
    assert OmegaConf.to_container(command.cfg, resolve=False)["model"]["width"] == 48


def test_the_process_is_left_as_it_was_found(command):
    argv, environment, handlers = sys.argv, dict(os.environ), logging.getLogger().handlers[:]
    seen = []
    command.answer = lambda cfg, job: seen.append((sys.argv, dict(os.environ)))
    assert cli.main(["train"]) == 0
    assert cli.main(["train", "foo"]) == 2
    assert seen == [(argv, environment)]
    assert (sys.argv, dict(os.environ)) == (argv, environment)
    assert logging.getLogger().handlers == handlers


def test_paths_can_be_swept_over_but_a_hypothesis_is_one_text():
    parsed = arguments.parse("sample", ["-m", "run=a,b", "hypothesis=a,b"])
    jobs = composing.combinations(parsed)
    assert [job[0] for job in jobs] == ["run=a", "run=b"]
    assert arguments.parse("sample", ["run=a,b"]).overrides == ["run='a,b'"]


def test_classes_are_swept_over_by_name_by_number_and_by_hydras_own_words():
    def labels(word):
        jobs = composing.combinations(arguments.parse("sample", ["-m", word]))
        return [job[0].partition("=")[2].strip("'") for job in jobs]

    assert labels("label=0,Größe (a & b)") == ["0", "Größe (a & b)"]
    assert labels("label=range(3)") == labels("label=range(0,3)") == ["0", "1", "2"]
    assert labels("label=~/x") == ["~/x"]


def test_what_is_quoted_already_is_left_alone():
    assert arguments.parse("train", ["hypothesis='a, b'"]).overrides == ["hypothesis='a, b'"]
    assert arguments.parse("train", ["hypothesis='a' or 'b'"]).overrides == [
        r"hypothesis='\'a\' or \'b\''"
    ]


def test_the_printed_config_is_the_config_that_would_run(command, capsys):
    assert cli.main(["train", "--cfg", "job", "seed=9", "optimizer.lr=1e-5"]) == 0
    printed = OmegaConf.create(capsys.readouterr().out)
    assert cli.main(["train", "seed=9", "optimizer.lr=1e-5", "name=x"]) == 0
    ran = OmegaConf.to_container(command.cfg)
    assert {**OmegaConf.to_container(printed), "name": "x"} == ran


def run(*words, **environment):
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "diffuse", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def test_no_torch_is_imported_until_a_command_runs():
    for words in (["--help"], ["train", "--help"], ["train", "--cfg", "job"], ["train", "foo"]):
        answer = run(*words)
        assert answer.returncode == (2 if "foo" in words else 0)
        imported = {line.rpartition("|")[2].strip() for line in answer.stderr.splitlines()}
        assert "diffuse.cli" in imported
        assert not imported & {"torch", "torchvision", "datasets", "wandb", "matplotlib"}
        assert ("hydra" in imported) == ("job" in words)
