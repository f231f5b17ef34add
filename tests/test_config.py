"""From a yaml to a call: every yaml must fit its function, and no name reaches outside its room."""

import dataclasses
import inspect
import sys
import types
from pathlib import Path

import pytest
import torch
from closed_forms import CONF, nodes
from omegaconf import OmegaConf

from diffuse import config, meanings, schemas, values
from diffuse.config import build
from diffuse.errors import ConfigError

CALLS = [(group, name) for group in sorted(config.ROOMS) for name in nodes(group)]
every_yaml = pytest.mark.parametrize(("group", "name"), CALLS)


def wavy(x, eta: float, mode: "Mode", noise: float = 1.0, table: tuple[int, ...] = ()):
    """Stands in for a function of a room."""
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be in [0, 1], got {eta}")
    return x, eta, mode, noise, table


Mode = __import__("typing").Literal["high", "low"]


@pytest.fixture(autouse=True)
def room(monkeypatch):
    """A room of our own behind the group `sampler`, with things in it that are not for everyone."""
    module = types.ModuleType("diffuse.samplers")
    wavy.__module__ = "diffuse.samplers"
    module.wavy, module.os, module.Path, module._hidden = wavy, sys, Path, wavy
    monkeypatch.setitem(sys.modules, "diffuse.samplers", module)
    yield
    config.trust(None)


@every_yaml
def test_every_yaml_of_a_group_is_a_call_that_its_function_accepts(group, name, monkeypatch):
    monkeypatch.delitem(sys.modules, "diffuse.samplers")
    node = nodes(group)[name]
    if group == "dataset":  # some keys are the source's, some are open_dataset's own
        from diffuse.data import check_dataset

        check_dataset(node)
    else:
        config.bind(group, node)


@pytest.mark.parametrize(("group", "name"), [call for call in CALLS if call[0] != "dataset"])
def test_a_default_stands_in_the_yaml_and_not_in_the_function_too(group, name, monkeypatch):
    monkeypatch.delitem(sys.modules, "diffuse.samplers")
    call = config.bind(group, nodes(group)[name])
    ours = call.func.__module__.startswith("diffuse.")  # torch's own have defaults
    parameters = inspect.signature(call.func).parameters
    twice = [key for key in call.keywords if parameters[key].default is not inspect.Parameter.empty]
    assert not (ours and twice)


def test_every_group_has_a_yaml():
    assert {group for group, _ in CALLS} == set(config.ROOMS)


@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*.yaml")), ids=str)
def test_an_experiment_is_at_most_fifteen_lines(path):
    assert len(path.read_text().splitlines()) <= 15


NODE = {"name": "wavy", "eta": 0.5, "mode": "low", "meta": {"steps": 50}}


def test_build_calls_the_function_with_what_the_yaml_says_and_leaves_meta_out():
    assert build("sampler", NODE, "x") == ("x", 0.5, "low", 1.0, ())
    assert build("sampler", OmegaConf.create(NODE), "x", noise=2.0)[3] == 2.0


def test_an_interpolation_is_filled_in_before_the_call():
    cfg = OmegaConf.create({"sampler": {**NODE, "eta": "${seed}"}, "seed": 1})
    assert build("sampler", cfg.sampler, "x")[1] == 1


def test_bind_fills_in_the_keywords_and_waits():
    assert config.bind("sampler", NODE)("x")[:2] == ("x", 0.5)
    assert config.bind("sampler", NODE, "x")(x="x")[0] == "x"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"etaa": 1}, ["wavy", "unexpected argument 'etaa'", "did you mean 'eta'?", "noise"]),
        ({"eta": 2}, ["eta must be in [0, 1], got 2"]),
        ({"eta": "abc"}, ["eta must be a number, got 'abc'"]),
        ({"eta": None}, ["eta must be a number, got None"]),
        ({"eta": True}, ["eta must be a number, got True"]),
        ({"mode": "hgh"}, ["mode: unknown choice 'hgh'", "did you mean 'high'?"]),
        ({"table": 3}, ["table must be a list, got 3"]),
        ({"table": [1, "b"]}, ["table[1] must be an integer, got 'b'"]),
        ({"name": "wavi"}, ["unknown name 'wavi'", "did you mean 'wavy'?"]),
        ({"name": None}, ["needs a name"]),
        ({"name": "os"}, ["unknown name 'os'"]),
        ({"name": "Path"}, ["unknown name 'Path'"]),
        ({"name": "_hidden"}, ["unknown name '_hidden'"]),
        ({"_target_": "os.system"}, ["'_target_' is refused"]),
        ({"x": 3}, ["x"]),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line_that_names_the_group(change, words):
    with pytest.raises(ConfigError) as caught:
        build("sampler", {**NODE, **change}, "x")
    message = str(caught.value)
    assert message.startswith("sampler: ")
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_a_missing_key_is_found_before_the_call():
    with pytest.raises(ConfigError, match="missing a required argument: 'eta'"):
        build("sampler", {"name": "wavy", "mode": "low"}, "x")
    with pytest.raises(ConfigError, match="missing a required argument: 'eta'"):
        config.bind("sampler", {"name": "wavy", "mode": "low"}, "x")


def test_what_the_program_sets_cannot_be_set_in_the_config():
    with pytest.raises(ConfigError, match="eta is set by the program"):
        build("sampler", NODE, "x", eta=1)
    with pytest.raises(ConfigError, match="x is set by the program"):
        config.bind("sampler", {**NODE, "x": 1}, "x")


def test_a_bug_inside_a_function_is_not_taken_for_a_config_error(monkeypatch):
    def broken(x):
        raise TypeError("a bug")

    broken.__module__ = "diffuse.samplers"
    monkeypatch.setattr(sys.modules["diffuse.samplers"], "broken", broken, raising=False)
    with pytest.raises(TypeError, match="a bug"):
        build("sampler", {"name": "broken"}, "x")


def test_an_optimizer_of_torch_is_found_by_its_own_name():
    weights = [torch.zeros(1, requires_grad=True)]
    assert isinstance(
        build("optimizer", {"name": "SGD", "lr": 0.1}, weights), torch.optim.Optimizer
    )
    with pytest.raises(ConfigError, match=r"unknown name 'adamw'; did you mean 'Adam"):
        build("optimizer", {"name": "adamw"}, weights)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package/mine.py").write_text(
        "from os import system\ndef half(x, eta):\n    return eta / 2\n"
    )
    monkeypatch.chdir(tmp_path)
    yield {"name": "my_package.mine:half", "eta": 1.0}
    for name in [name for name in sys.modules if name.startswith("my_package")]:
        del sys.modules[name]


def test_code_from_outside_is_imported_only_if_its_package_is_trusted(elsewhere):
    with pytest.raises(ConfigError, match="trust=my_package"):
        build("sampler", elsewhere, "x")
    assert "my_package.mine" not in sys.modules
    config.trust("other,my_package")
    assert build("sampler", elsewhere, "x") == 0.5
    with pytest.raises(ConfigError, match="has no 'system'; choices: half"):
        build("sampler", {"name": "my_package.mine:system", "eta": 1.0}, "x")
    config.trust(None)
    with pytest.raises(ConfigError, match="trust=my_package"):
        build("sampler", elsewhere, "x")


def test_a_keyword_that_code_from_outside_only_refuses_when_it_is_called_is_one_line(elsewhere):
    with open("my_package/nets.py", "w") as file:
        file.write("import torch\nclass Net(torch.nn.Module):\n    pass\n")
    config.trust("my_package")
    with pytest.raises(ConfigError, match=r"^model: my_package.nets:Net: .* argument 'depth'"):
        build("model", {"name": "my_package.nets:Net", "depth": 3})


@pytest.mark.parametrize(
    "name", ["os:system", "diffuse.errors:nearest", "a b:c", ":x", "x:", "a:b.c"]
)
def test_no_other_module_can_be_reached_by_a_colon(name):
    config.trust("my_package")
    with pytest.raises(ConfigError):
        build("sampler", {"name": name}, "x")


def training(**given):
    return {**dict.fromkeys(meanings.UNITS), **given}


def test_the_length_of_a_training_is_said_once_and_is_four_minutes_if_not_said():
    assert meanings.length(training()) == ("minutes", 4.0)
    assert meanings.length(training(epochs=2.5)) == ("epochs", 2.5)
    with pytest.raises(
        ConfigError, match=r"train\.steps=3 and train\.images=5: say the length once"
    ):
        meanings.length(training(steps=3, images=5))


@pytest.mark.parametrize("name", ["a", "quickstart", "cifar10-cosine", "v1.2_x", "0", "x" * 100])
def test_a_name_of_letters_digits_and_a_few_signs_is_accepted(name):
    values.check_name(name)


BAD_NAMES = ["", ".", "..", "a/b", "../x", "a b", "-a", ".a", "a..b", "ü", "a\n", "x" * 101, "a\\b"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_could_leave_its_folder_is_refused(name):
    with pytest.raises(ConfigError):
        values.check_name(name)


@pytest.mark.parametrize(
    ("name", "choices", "expected"),
    [
        ("mine", {"experiment": "quick", "dataset": "digits", "schedule": "cosine"}, "mine"),
        (None, {"experiment": "a/quick", "dataset": "digits"}, "a-quick"),
        (None, {"dataset": "digits", "schedule": "cosine"}, "digits-cosine"),
        (None, {"dataset": "digits"}, "digits"),
        (None, {"sampler": "ddim"}, None),
    ],
)
def test_a_run_is_named_by_the_user_the_experiment_or_what_it_is_about(name, choices, expected):
    assert meanings.run_name(OmegaConf.create({"name": name}), choices) == expected


@pytest.mark.parametrize(
    ("choice", "where", "expected"),
    [
        ("folder", {"root": "/data/my cats"}, "my-cats-cosine"),
        ("parquet", {"root": "cats.parquet"}, "cats-cosine"),
        ("hub", {"id": "ylecun/mnist", "root": None}, "mnist-cosine"),
        ("folder", {"root": None}, "folder-cosine"),
        ("folder", {"root": ".."}, "folder-cosine"),
        ("fashion_mnist", {"root": "/data/cats"}, "fashion_mnist-cosine"),
    ],
)
def test_a_run_on_data_of_ones_own_is_called_as_that_is(choice, where, expected):
    cfg = OmegaConf.create({"name": None, "dataset": where})
    assert meanings.run_name(cfg, {"dataset": choice, "schedule": "cosine"}) == expected


LINES = {
    "diffuse train seed=1": config.Job("train", ["seed=1"]),
    "diffuse plot noise n=2 --json": config.Job("plot", ["what=noise", "n=2"], json=True),
    "diffuse eval 'metrics=[fid, kid]' --config-dir 'my own' --json": config.Job(
        "eval", ["metrics=[fid, kid]"], json=True, config_dir="my own"
    ),
}


@pytest.mark.parametrize("line", LINES)
def test_a_job_says_what_was_typed_as_a_shell_takes_it(line):
    assert LINES[line].line == line


@pytest.mark.parametrize("schema", schemas.SCHEMAS.values())
def test_no_schema_holds_a_default_since_the_yaml_does(schema):
    assert all(entry.default == "???" for entry in dataclasses.fields(schema))


def test_config_imports_no_torch():
    import subprocess

    code = "import sys, diffuse.config, diffuse.schemas; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=CONF.parent).returncode == 0
