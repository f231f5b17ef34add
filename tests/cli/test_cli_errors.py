"""What never reaches a command: one line, exit 2, nothing left behind."""

import shlex

import pytest

from diffuse import cli
from diffuse.errors import nearest

WRONG = {
    "trian": "unknown command 'trian'; did you mean 'train'?",
    "--verison": "unknown flag '--verison'",
    "help trian": "unknown command 'trian'; did you mean 'train'?",
    "--help trian": "unknown command 'trian'; did you mean 'train'?",
    "--help --verbose": "unknown flag '--verbose'",
    "train schedul=cosine": "unknown key 'schedul'; did you mean 'schedule'?",
    "train schedule=cosin": "schedule: unknown choice 'cosin'; did you mean 'cosine'?",
    "train dataset=cifar": "dataset: unknown choice 'cifar'; did you mean 'cifar10'?",
    "train dataset=nowhere/": "dataset: unknown choice 'nowhere/'; choices: cifar10, ",
    "train schedule=./a/cosine": "schedule: unknown choice './a/cosine'; did you mean 'cosine'?",
    "train experiment=quikstart": "unknown choice 'quikstart'; did you mean 'quickstart'?",
    "train debug=smok": "did you mean 'smoke'?",
    "train train.stps=3": "unknown key 'train.stps'; did you mean 'train.steps'?",
    "pareto sampler=ddim": "unknown group 'sampler'; did you mean the key 'samplers'?",
    "eval eval.seeds=0": "seeds must be at least 1, got 0",
    "train batch=3": "did you mean 'train.batch'?",
    "train schedule.betamax=0.1": "this schedule has none, linear and scaled_linear would",
    "train schedule=linear schedule.betamx=0.1": "did you mean 'schedule.betamax'?",
    "train +sed=3": "unknown key 'sed'; did you mean 'seed'?",
    "train ++train.stps=3": "unknown key 'train.stps'; did you mean 'steps'?",
    "train ~seed": "seed needs a value",
    "train schema=sample": "schema",
    "train steps=abc": "steps must be an integer, got 'abc'",
    "train train.minutes=long": "train.minutes must be a number, got 'long'",
    "train dry_run=maybe": "dry_run must be true or false, got 'maybe'",
    "train seed=null": "seed cannot be null",
    "train foo": "'foo' is not of the form key=value",
    "train stps": "did you mean 'steps'?",
    "sample steps": "'steps' is not of the form key=value; say its value, like steps=50",
    "train train.batch": "say its value, like train.batch=64",
    "sample sampler=ddmi": "did you mean 'ddim'?",
    "version": "unknown command 'version'; did you mean '--version'?",
    "train betamax=0.01": "unknown key 'betamax'; did you mean 'schedule.betamax'?",
    "sample eta=1": "unknown key 'eta'; did you mean 'sampler.eta'?",
    "sample resume=auto": "it goes with --multirun only; the same words go on with what is drawn",
    "plot data resume=auto": "unknown key 'resume'; it goes with --multirun only",
    "train range=0,1": "or write a list: range=[0,1]",
    "train =3": "'=3' is not of the form key=value",
    "train n=[1": "cannot read 'n=[1'",
    "train n=1,2": "n=1,2: add --multirun",
    "sample --run=small": "unknown flag '--run'; did you mean run=small, no dashes?",
    "train --multirn": "'--multirun'? choices: --cfg, --config-dir, --help, --info, --json, --mul",
    "sample --config-dir mine --help smpler": "no group 'smpler' here; did you mean 'sampler'?",
    "train --jsn": "unknown flag '--jsn'; did you mean '--json'?",
    "sample --steps 5": "unknown flag '--steps'; did you mean steps=5, no dashes?",
    "sample --sampler=heun": "did you mean sampler=heun, no dashes?",
    "train --cfg": "--cfg needs a value",
    "train --cfg jb": "--cfg: unknown choice 'jb'; did you mean 'job'?",
    "train --multirun --info": "--multirun and --info cannot go together",
    "train --resolve": "--resolve goes with --cfg only",
    "train tracker=null": "tracker: cannot be null; choices: none, wandb",
    "train --experimental-rerun x": "unknown flag '--experimental-rerun'",
    "train --config-name sample": "unknown flag '--config-name'",
    "train --config-dir nowhere": "no folder 'nowhere'",
    "train steps=0": "steps must be at least 1, got 0",
    "sample n=-1": "n must be at least 1, got -1",
    "eval n=0": "n must be at least 4, got 0",
    "eval n=99999999999999": "n must be at most 100,000,000, got 99,999,999,999,999",
    "train seed=-1": "seed must be between 0",
    "train range=[1,0]": "range must be two ascending numbers like [-1, 1], got [1, 0]",
    "train range=[0]": "range must be two ascending numbers",
    "train range=[a,b]": "range[0] must be a number, got 'a'",
    "train range=3": "range cannot be 3",
    "train train.minutes=0": "train.minutes must be more than 0",
    "train train.minutes=nan": "train.minutes must be more than 0",
    "train train.steps=0": "train.steps must be at least 1",
    "train train.batch=0": "train.batch must be at least 1",
    "train train.ema=1": "train.ema must be in [0, 1)",
    "train train.lr_schedule=cosin": "did you mean 'cosine'?",
    "train device=cud": "did you mean 'cuda'?",
    "sample weights=foo": "weights: unknown choice 'foo'; choices: ema, ema_0.999, raw",
    "sample save=jpg": "save: unknown choice 'jpg'",
    "sample checkpoint=bst": "checkpoint must be null, a step number or best",
    "train name=a/b": "name: 'a/b' will not do",
    "train name=..": "name: '..' will not do",
    "train outputs=${nope}": "outputs: Interpolation key 'nope' not found",
    "completion fish": "completion: unknown shell 'fish'",
}


def test_of_many_choices_the_closest_are_named():
    runs = [f"run{k}" for k in range(30)]
    assert nearest("x", runs[:20]) == f"choices: {', '.join(sorted(runs[:20]))}"
    said = nearest("run2", runs)
    assert said.startswith("did you mean 'run2'? choices: run2, ")
    assert said.endswith(" and 20 more")
    assert said.count(",") == 9


@pytest.mark.parametrize("line", WRONG)
def test_bad_input_ends_in_one_line_and_leaves_nothing(line, command):
    assert WRONG[line] in command.error(line)
    assert command.calls == []
    assert command.left_behind() == []


PATHS = ["photos/", "./photos", "photos", "my photos/a", "Früchte", "images.parquet"]


@pytest.mark.parametrize("word", PATHS)
def test_a_path_in_place_of_a_data_set_is_told_how_to_be_one(word, command, tmp_path, capsys):
    kind = "parquet" if word.endswith("parquet") else "folder"
    (tmp_path / "images.parquet").touch()
    for path in ("photos", "my photos/a", "Früchte"):
        (tmp_path / path).mkdir(parents=True)
    for verb in ("train", "encoder"):
        assert cli.main([verb, f"dataset={word}"]) == 2
        said, root = capsys.readouterr().err, shlex.quote(f"dataset.root={word}")
        assert said.startswith((f"error: dataset: unknown choice {word!r}; ", "error: cannot read"))
        assert said.endswith(f"; of images of your own: dataset={kind} {root}\n")


def test_a_name_with_a_space_is_refused(command, capsys):
    assert cli.main(["train", "name=a b"]) == 2
    assert "name: 'a b' will not do" in capsys.readouterr().err


EXPERIMENTS = {
    "train:\n  stps: 3\n": "experiment/bad: unknown key 'train.stps'; did you mean 'train.steps'?",
    "sed: 3\n": "experiment/bad: unknown key 'sed'; did you mean 'seed'?",
    "n: many\n": "experiment/bad: n must be an integer, got 'many'",
    "n: 0\n": "n must be at least 1, got 0",
    "train: [\n": "bad.yaml, line 3: ",
    "defaults:\n  - override /schedule: cosin\n": "schedule: unknown choice 'cosin'",
    "defaults:\n  - override /schedul: cosine\n": "unknown group 'schedul'; did you mean",
    "trust: os\n": "trust=os counts on the command line only",
    "train: {steps: 3, minutes: 4}\n": "say the length once",
}


@pytest.mark.parametrize("text", EXPERIMENTS)
def test_a_mistake_inside_an_experiment_is_found_and_named(text, command, tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/bad.yaml").write_text("# @package _global_\n" + text)
    message = command.error("train --config-dir . experiment=bad")
    assert EXPERIMENTS[text] in message
    assert command.calls == []


SECRET = "s3cr3tvalue"


@pytest.mark.parametrize(
    "word",
    [
        "wandb_api_key=@",
        "+tracker.api_key=@",
        "tracker.token=@",
        "++password=@",
        "tracker={name: wandb, api_key: @}",
        "--api-key=@",
        "dataset.root=https://me:@@example.org/x",
    ],
)
def test_a_secret_is_refused_and_never_repeated(word, command, capsys):
    assert cli.main(["train", word.replace("@", SECRET, 1)]) == 2
    out, err = capsys.readouterr()
    assert SECRET not in out + err
    assert "secret" in err
    assert command.left_behind() == []


@pytest.mark.parametrize("word", ["hypothesis=the token: a secret password", "name=tokens"])
def test_talking_about_secrets_is_allowed(word, command):
    assert cli.main(["train", word]) == 0
