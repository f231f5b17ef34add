"""Help and completion: what a user reads and presses before anything runs."""

import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml
from places import ROOT

from diffuse import cli, schemas
from diffuse.cli import completion, usage
from diffuse.commands import VERBS


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_the_front_page_lists_every_command(words, capsys):
    assert cli.main(words) == 0
    page = capsys.readouterr().out
    assert all(
        re.search(rf"^  {verb} +{re.escape(about)}$", page, re.M) for verb, about in VERBS.items()
    )


@pytest.mark.parametrize("words", [["help", "plan"], ["--help", "plan"], ["-h", "plan", "n=3"]])
def test_help_of_a_command_is_its_page(words, capsys):
    assert cli.main(words) == 0
    page = capsys.readouterr().out
    assert cli.main(["plan", "--help"]) == 0
    assert capsys.readouterr().out == page


def test_help_of_completion_says_how_to_have_it(capsys):
    assert cli.main(["help", "completion"]) == 0
    assert "diffuse completion bash" in capsys.readouterr().out


def test_the_version_is_one_line(capsys):
    assert cli.main(["--version"]) == 0
    assert re.fullmatch(r"diffuse \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


@pytest.mark.parametrize("verb", VERBS)
def test_a_page_of_help_fits_a_terminal_and_names_every_key_group_and_choice(verb, capsys):
    assert cli.main([verb, "--help"]) == 0
    page = capsys.readouterr().out
    assert max(map(len, page.splitlines())) <= 80
    root = usage.root(verb)
    for key in root.keys:
        assert re.search(rf"^  {re.escape(key)} ", page, re.M), key
    for group in root.groups:
        row = re.search(rf"^  {group} +(.*(?:\n   +.*)*)", page, re.M)[1]
        assert set(row.replace("[", "").replace("]", "").split()) >= set(usage.choices(group))
    assert "Examples" in page
    assert "\033" not in page


GROUPS = [(verb, group) for verb in VERBS for group in usage.root(verb).groups]


@pytest.mark.parametrize(("verb", "group"), GROUPS)
def test_the_page_of_a_group_names_the_keys_that_each_choice_has(verb, group, capsys):
    assert cli.main([verb, "--help", group]) == 0
    page = capsys.readouterr().out
    assert max(map(len, page.splitlines())) <= 80
    for choice in usage.choices(group):
        part = page.split(f"\n{group}={choice}")[1].split(f"\n{group}=")[0]
        node = yaml.safe_load((usage.conf_folder() / group / f"{choice}.yaml").read_text())
        named = {line.split()[0] for line in part.splitlines() if line.startswith("  ")}
        whole = group in ("experiment", "debug")  # of the root's keys
        own = {*node} - ({"defaults"} if whole else {"defaults", "name", "meta"})
        inner = {f"{key}.{k}" for key in own if isinstance(node[key], dict) for k in node[key]} | {
            key for key in own if not isinstance(node[key], dict)
        }
        assert named >= {key if whole else f"{group}.{key}" for key in inner}


def test_the_page_of_one_choice_explains_what_another_of_the_same_function_says(capsys):
    assert cli.main(["train", "model=course", "--help"]) == 0
    page = capsys.readouterr().out
    assert "model=quick" not in page
    assert re.search(r"model.width +32 +channels of the first level\n", page)


def test_a_page_reads_what_an_experiment_says_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/one.yaml").write_text(
        "# @package _global_\ntrain: {ema: [0.9, 0.99], steps: 5}\n"
    )
    monkeypatch.setattr(usage, "conf_folder", lambda: tmp_path)
    keys = [(key.name, key.default) for key in usage._choice("mine", "one").keys]
    assert keys == [("train.ema", "[0.9, 0.99]"), ("train.steps", "5")]


@pytest.mark.parametrize(
    ("words", "said"),
    [("--help modle", "did you mean 'model'"), ("--help schedule=cosin", "did you mean 'cosine'")],
)
def test_help_for_what_there_is_not_is_an_error(words, said, capsys):
    assert cli.main(["train", *words.split()]) == 2
    assert said in capsys.readouterr().err


USED = {
    "compare": "<evaluation> <evaluation> ... [key=value ...] [flags]",
    "plot": "<picture> [key=value | group=choice ...] [flags]",
    "plan": "[key=value ...] [flags]",
    "train": "[key=value | group=choice ...] [flags]",
}


@pytest.mark.parametrize("verb", USED)
def test_a_page_begins_with_the_words_that_a_command_takes(verb, capsys):
    assert cli.main([verb, "--help"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"usage: diffuse {verb} {USED[verb]}"


@pytest.mark.parametrize("verb", VERBS)
def test_a_page_says_of_sweeps_what_can_be_swept(verb, capsys):
    assert cli.main([verb, "--help"]) == 0
    page = capsys.readouterr().out
    swept = verb not in usage.NEVER_SWEPT
    assert [words in page for words in ("--multirun", "of a sweep one list")] == [swept] * 2
    assert re.search(r"^  --json +the result as JSON.*; logs on stderr$", page, re.M)


def test_help_leaves_out_the_values_of_flags_and_keys(tmp_path, capsys):
    for words in (["--config-dir", str(tmp_path), "n=3"], ["n=3", "-cd", str(tmp_path)]):
        assert cli.main(["sample", *words, "--help", "sampler"]) == 0
        assert "usage: diffuse sample sampler=<choice>" in capsys.readouterr().out
    assert cli.main(["sample", "n=3", "--help"]) == 0
    assert "usage: diffuse sample [key=value" in capsys.readouterr().out


def field_names(schema, prefix=""):
    for key, kind in schema.__annotations__.items():
        if kind is schemas.Training:
            yield from field_names(kind, f"{key}.")
        elif kind is not schemas.Group:
            yield prefix + key


@pytest.mark.parametrize("verb", VERBS)
def test_the_page_the_yaml_and_the_schema_know_the_same_keys(verb):
    known = [key for base in schemas.SCHEMAS[verb].__mro__[:-1] for key in field_names(base)]
    assert sorted(known) == sorted(usage.root(verb).keys)


@pytest.mark.parametrize("verb", VERBS)
def test_every_example_on_a_page_composes(verb, monkeypatch, tmp_path):
    from diffuse.cli import arguments, composing

    for example in usage.root(verb).examples:
        program, word, *rest = example.split()
        assert (program, word) == ("diffuse", verb)
        parsed = arguments.parse(verb, rest)
        for overrides in composing.combinations(parsed):
            composing.finished(verb, composing.compose(verb, parsed, overrides))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("diffuse ", [*VERBS, "completion", "--help", "--version"]),
        ("diffuse tr", ["train"]),
        ("diffuse completion ", ["bash"]),
        ("diffuse train sche", ["schedule="]),
        ("diffuse train schedule=cos", ["schedule=cosine", "schedule=cosine_table"]),
        ("diffuse train seed=1 schedule=li", ["schedule=linear"]),
        ("diffuse sample clip=d", ["clip=dynamic"]),
        ("diffuse sample sampler.", ["sampler.eta=", "sampler.noise="]),
        ("diffuse train schedule=linear schedule.betama", ["schedule.betamax="]),
        ("diffuse train schedule=cosine schedule.betama", []),
        ("diffuse train train.epo", ["train.epochs="]),
        ("diffuse train -m debug=", ["debug=none", "debug=smoke"]),
        ("diffuse sample weights=", ["weights=ema", "weights=raw"]),
        ("diffuse sample --mu", ["--multirun"]),
        ("diffuse nonsense ", []),
        ("diffuse train hypothesis='a b", []),
        ("diffuse sample mod", []),
    ],
)
def test_tab_completes_commands_keys_groups_and_choices(line, expected):
    assert completion.words(line) == expected


def test_tab_completes_the_runs_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run in ("outputs/train/one/v001", "outputs/train/one/v002", "else/train/two/v001"):
        (tmp_path / run).mkdir(parents=True)
    assert completion.words("diffuse sample run=") == ["run=one", "run=one/v001", "run=one/v002"]
    assert completion.words("diffuse eval run=one/v001") == ["run=one/v001"]
    assert completion.words("diffuse eval outputs=else run=t") == ["run=two", "run=two/v001"]


def test_tab_completes_what_can_be_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run in ("train/one/v001", "eval/one/v001", "eval/other/v001", "eval/other/v002"):
        (tmp_path / "outputs" / run).mkdir(parents=True)
    assert completion.words("diffuse compare on") == ["one", "one/v001"]
    assert completion.words("diffuse compare one oth") == ["other", "other/v001", "other/v002"]
    assert completion.words("diffuse compare one other/v") == ["other/v001", "other/v002"]
    assert {"force=", "one", "other/v002"} <= set(completion.words("diffuse compare "))


def test_tab_offers_what_is_for_typing_and_nothing_internal():
    offered = completion.words("diffuse train ")
    assert {"schedule=", "seed=", "train.", "debug=", "experiment="} <= set(offered)
    assert not [word for word in offered if word.startswith(("hydra", "schema", "debug/"))]


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize("breaks", ["\" '><=;|&(:", "\" '><;|&("])
def test_the_printed_script_completes_in_a_real_bash(breaks, tmp_path):
    program = tmp_path / "diffuse"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m diffuse "$@"\n')
    program.chmod(0o755)
    line = "diffuse train schedule=lin"
    script = f"""
        PATH="{tmp_path}:$PATH"; eval "$(diffuse completion bash)"
        COMP_WORDBREAKS={shlex.quote(breaks)}; COMP_LINE='{line}'; COMP_POINT={len(line)}
        _diffuse diffuse; echo "${{COMPREPLY[@]}}"; complete -p diffuse"""
    answer = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    expected = "linear" if "=" in breaks else "schedule=linear"
    assert answer.stdout.splitlines() == [expected, "complete -o default -F _diffuse diffuse"]
