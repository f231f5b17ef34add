"""Which names and addresses hold a secret, which only seem to, and where one is blacked out."""

import logging

import pytest
from sentinel import SENTINEL, holding

from diffuse import cli, secrets, stderr
from diffuse.cli import arguments
from diffuse.errors import ConfigError

VARIABLES = [
    *("OPENAI_KEY", "DB_PASSPHRASE", "GH_PAT", "SLACK_WEBHOOK_AUTH", "DB_PASS", "MYSQL_PWD", "KEY"),
    *("SSH_PRIVATE", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "my-auth", "NETRC_CREDENTIALS"),
]
HARMLESS = ["KEYBOARD", "MONKEY", "KEEP", "PATCH", "PATIENCE", "GIT_AUTHOR_NAME", "XAUTHORITY"]


@pytest.mark.parametrize("name", VARIABLES)
def test_the_value_of_a_variable_with_such_a_name_is_refused_and_blacked_out(name, monkeypatch):
    monkeypatch.setenv(name, SENTINEL)
    assert secrets.redacted(f"bad {SENTINEL}!") == f"bad ${name}!"
    for word in (f"hypothesis=it is {SENTINEL}", f"name={SENTINEL}", f"+{SENTINEL}=1"):
        with pytest.raises(ConfigError, match="a secret does not belong") as refused:
            arguments.parse("train", [word])
        assert SENTINEL not in str(refused.value)


@pytest.mark.parametrize("name", HARMLESS)
def test_a_name_that_only_sounds_like_it_is_none(name, monkeypatch):
    monkeypatch.setenv(name, SENTINEL)
    assert secrets.redacted(SENTINEL) == SENTINEL


def test_of_two_secrets_in_one_another_no_end_is_left_over(monkeypatch):
    monkeypatch.setenv("A_KEY", SENTINEL[:12])
    monkeypatch.setenv("B_KEY", SENTINEL)
    assert secrets.redacted(SENTINEL) == "$B_KEY"


WITH_ONE = [
    *(f"https://example.org/x?a=1&{key}=abc" for key in ("key", "sig", "Signature", "auth", "pwd")),
    "https://example.org/x?X-Amz-Signature=0f3c",
    "https://example.org/x?api.key=abc",
    "https://me@example.org/x",
    "export OPENAI_KEY=abc",
    "my-auth=abc",
    "DB_PASSPHRASE=abc",
    *("hf_abcdEFGH1234", "sk-proj-abcdefgh", "ghp_abcdefgh12", "wandb_v1_abcdefgh"),
    *("AKIAABCDEFGHIJKLMNOP", "https://hooks.slack.com/services/T0/B0", "https://me:a/b@host/x"),
    *("my password: hunter22", "call it --token abc", "{Authorization: abc}", "Bearer abcdefgh.ij"),
]


@pytest.mark.parametrize("value", WITH_ONE)
def test_an_address_or_text_that_carries_one_is_refused(value):
    for word in (f"dataset.root={value}", f"hypothesis={value}", f"+hydra.job.env_set.A={value}"):
        with pytest.raises(ConfigError, match="a secret does not belong"):
            arguments.parse("train", [word, "--multirun"])


@pytest.mark.parametrize("word", ["+tracker.key=abc", "tracker={name: wandb, auth: abc}", "+pat=a"])
def test_a_key_of_such_a_name_is_refused(word):
    with pytest.raises(ConfigError, match="a secret does not belong"):
        arguments.parse("train", [word])


LOOSE = [
    *(f"hf_{SENTINEL}", f"--hf_{SENTINEL}", f"--cfg hf_{SENTINEL}", f"--cfg=hf_{SENTINEL}"),
    *(
        f"{word}https://me:{SENTINEL}@host/x{more}"
        for word in ("", "--outputs=", "--outputs ", "--config-dir ", "--config-dir=")
        for more in ("", " seed=1")
    ),
]


@pytest.mark.parametrize("words", LOOSE)
def test_one_that_is_no_setting_at_all_is_not_said_again(words, diffuse):
    assert diffuse(f"train {words}") == 2
    assert SENTINEL not in diffuse.out + diffuse.err
    assert "did you mean outputs=seed=1" not in diffuse.err


ORDINARY = [
    *("+model.num_tokens=4", "+model.token_dim=64", "hypothesis=does max_tokens=2048 help"),
    *("dataset.tokenizer=whole-words", "model={name: a:b, use_tokens: true}"),
    *("train.keep=5", "train.keep_every=2", "model.attention=[1]", "model.patch=2", "model=quick"),
    *("hypothesis=tokens: are they longer", "hypothesis=ask-something-long", "name=risk-averse"),
    *("encoder.name=my_secret:Net", "dataset.root=/data/half_hf_x", "hypothesis=the pass: second"),
    *("name=keyframes", "hypothesis=the key: attention = all, a patch is a token", "seed=1,2"),
    *("hypothesis=monkey=1, passes=3", "dataset.root=https://example.org/x?keyword=b&page=2"),
    *("dataset.root=data/private/key.zip", "hydra.job.env_copy=[OPENAI_KEY]", "hydra.verbose=true"),
    *("hydra/launcher=submitit_slurm", "hydra.launcher.additional_parameters={partition: a}"),
    *("run=tiny@best", "dataset.root=${oc.env:HOME}/key", "outputs=${oc.env:PATHS_AUTHORED}"),
]


@pytest.mark.parametrize("word", ORDINARY)
def test_ordinary_words_pass(word):
    assert arguments.parse("train", [word, "--multirun"]).typed == [word]


@pytest.mark.slow
def test_no_config_of_ours_sounds_like_a_secret(diffuse):
    """Every experiment, as it would be saved."""
    from diffuse import yamls
    from diffuse.cli import composing, usage

    for experiment in usage.choices("experiment"):
        parsed = arguments.parse("train", [f"experiment={experiment}"])
        text = yamls.as_yaml(composing.finished("train", composing.compose("train", parsed)))
        assert secrets.found(text) == ""
        assert not [line for line in text.splitlines() if secrets.WORDS.search(line.split(":")[0])]


def test_an_address_that_an_experiment_holds_is_refused(tiny, diffuse, tmp_path):
    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/leak.yaml").write_text(
        f"# @package _global_\nhypothesis: https://example.org/x?sig={SENTINEL}\n"
    )
    for sweep in ("", " --multirun seed=1,2"):
        message = diffuse.error(f"train {tiny} --config-dir mine experiment=leak{sweep}")
        assert "a secret in it" in message
        assert SENTINEL not in message
        assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("full", ["0", "1"])
def test_an_error_that_nobody_foresaw_tells_none(full, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", SENTINEL)
    monkeypatch.setenv("HYDRA_FULL_ERROR", full)
    with pytest.raises(ValueError, match="401") as caught:
        raise ValueError(f"401 for {SENTINEL}")
    assert stderr.report(caught.value) == 1
    err = capsys.readouterr().err
    assert SENTINEL not in err
    assert "error: unexpected ValueError: 401 for $WANDB_API_KEY" in err
    assert ("Traceback" in err) == (full == "1")


SAID = {  # by somebody else's code: what is left of it
    "401 for https://host/api?api_key=Zq81abcdef&page=2": "https://host/api?api_key=...&page=2",
    "{'Authorization': 'Bearer qwerty123456'}": "{'Authorization': 'Bearer ...'}",
    '{"Authorization": "Basic dXNlcjpwYXNz"}': '"Basic ..."',
    "cannot clone https://ghp_abcd1234EFGH@github.com/x": "clone https://...@github.com/x",
    "https://5f3a9cdeadbeef@host/1": "https://...@host/1",
    "token hf_abcdefghij1234 is invalid": "token ... is invalid",
    "SAS ?sv=1&sig=ab%2Fcd=": "?sv=1&sig=...",
    "headers={'api_key': 'Zq81a,b;c'}": "{'api_key': '...'}",
    "my password: hunter22, DB_PASS=correcthorse": "my password: ..., DB_PASS=...",
    "curl --token abc123def": "curl --token ...",
    "POST https://hooks.slack.com/services/T0/B0/xyz1": "POST https://...",
}
PLAIN = [
    *(
        "use hf_transfer",
        "num_tokens=64, key_dim=128",
        "token=None, private=False",
        "--token to me",
    ),
    *(
        "login(password=self.password, token=token)",
        "sorted(x, key=lambda p: p)",
        "sort_key=lambda",
    ),
    *("Missing key(s) in state_dict: token_embed.weight", "size mismatch for class_token: copying"),
    *(
        "git+ssh://git@github.com/x",
        "bearer of news",
        "WANDB_API_KEY=$WANDB_API_KEY",
        "?key=$A_KEY",
    ),
]


@pytest.mark.parametrize("text", SAID)
def test_what_an_error_of_others_says_is_blacked_out_without_a_variable_of_it(text):
    said = secrets.redacted(text)
    assert SAID[text] in said
    assert secrets.redacted(said) == said


@pytest.mark.parametrize("text", [*PLAIN, *ORDINARY])
def test_words_that_only_look_like_it_stay(text):
    assert secrets.redacted(text) == text


@pytest.mark.parametrize("blank", ["\r", "\n", " "])
def test_what_is_blank_around_a_value_is_no_part_of_the_secret(blank, monkeypatch):
    monkeypatch.setenv("MYSVC_API_KEY", f"{SENTINEL}{blank}")
    assert secrets.redacted(f"bad {SENTINEL}!") == "bad $MYSVC_API_KEY!"
    assert secrets.redacted(f"bad {SENTINEL}{blank}!") == f"bad $MYSVC_API_KEY{blank}!"
    assert secrets.found(f"name={SENTINEL}")


LEAKING = """
class leaking:
    def start(self, folder, name, config):
        import os
        raise OSError("401 Unauthorized: " + os.environ["WANDB_API_KEY"])
    def log(self, step, values): pass
    def image(self, step, name, path): pass
    def finish(self): pass
"""


def test_a_tracker_that_says_its_key_is_blacked_out_on_stderr_too(diffuse, tmp_path, monkeypatch):
    (tmp_path / "leaking_trackers.py").write_text(LEAKING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", SENTINEL)
    line = "train.steps=1 tracker.name=leaking_trackers:leaking trust=leaking_trackers"
    assert diffuse.train(line) == 0, diffuse.err
    assert "401 Unauthorized: $WANDB_API_KEY" in diffuse.err
    assert SENTINEL not in diffuse.err + diffuse.out
    assert holding(tmp_path / "outputs") == []


def test_a_plain_formatter_would_tell_it(monkeypatch):
    """The control."""
    monkeypatch.setenv("WANDB_API_KEY", SENTINEL)
    record = logging.makeLogRecord({"msg": SENTINEL})
    assert logging.Formatter().format(record) == SENTINEL
    assert secrets.Formatter().format(record) == "$WANDB_API_KEY"


@pytest.mark.parametrize("line", ["hf_abcdEFGH1234", "train --help hf_abcdEFGH1234"])
def test_one_that_is_typed_for_a_command_or_a_topic_is_not_said_again(line, capsys):
    assert cli.main(line.split()) == 2
    assert "hf_" not in "".join(capsys.readouterr())


def test_a_password_in_an_address_that_the_environment_holds_is_blacked_out(monkeypatch):
    """As http.client says it: `nonnumeric port: 'password@host'`."""
    monkeypatch.setenv("HF_ENDPOINT", f"https://me:{SENTINEL}@mirror.example")
    assert secrets.redacted(f"port: '{SENTINEL}@mirror'") == "port: '$HF_ENDPOINT@mirror'"
    for password in ("a/b1", "p@ssword123", "short"):
        said = f"cannot reach http://me:{password}@host/x, {SENTINEL[:4]}"
        assert secrets.redacted(said) == f"cannot reach http://me:...@host/x, {SENTINEL[:4]}"
    monkeypatch.setenv("HF_ENDPOINT", "https://me:digits@mirror.example")
    assert not secrets.found("dataset: digits"), "a short word is in many a config"


@pytest.mark.parametrize(
    "values",
    [{"tracker": {"auth": "abcdef"}}, {"of": [{"password": "secret"}]}, {"api_key": "abcdef"}],
)
def test_a_value_with_such_a_name_is_refused_wherever_a_config_has_it(values):
    with pytest.raises(ConfigError, match=r"the value of (tracker\.auth|of\.0\.password|api_key)$"):
        secrets.refuse("", values)


def test_a_name_with_nothing_behind_it_or_a_number_is_none():
    """Of networks of somebody's own, too."""
    secrets.refuse("", {"auth": None, "password": "", "private": True, "keep": "abcdef", "n": [1]})
    secrets.refuse("", {"num_tokens": 64, "key_dim": 64, "image_key": "image", "token": 5})
    secrets.refuse("", {"tokenizer": "byte pairs", "token_mixer": "pooling", "key_norm": "layers"})
