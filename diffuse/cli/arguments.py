"""What was typed after `diffuse <verb>`: flags and overrides in any order, made fit for Hydra."""

import os
import re
from dataclasses import dataclass, field

from diffuse import secrets
from diffuse.cli import usage
from diffuse.errors import ConfigError, nearest
from diffuse.meanings import LENGTHS

# flag -> the name Hydra knows it by, and whether a value follows ("?": only if it is one of INFO)
FLAGS = {
    "-h": ("--help", ""),
    "--help": ("--help", ""),
    "--json": ("--json", ""),
    "-m": ("--multirun", ""),
    "--multirun": ("--multirun", ""),
    "-r": ("--run", ""),
    "--run": ("--run", ""),
    "-c": ("--cfg", "value"),
    "--cfg": ("--cfg", "value"),
    "-p": ("--package", "value"),
    "--package": ("--package", "value"),
    "--resolve": ("--resolve", ""),
    "-i": ("--info", "?"),
    "--info": ("--info", "?"),
    "-cd": ("--config-dir", "value"),
    "--config-dir": ("--config-dir", "value"),
    "--hydra-help": ("--hydra-help", ""),
}
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
CFG = ("job", "hydra", "all")

KEY = re.compile(r"(?:~|\+\+?)?([\w./@:-]+)=(.*)", re.DOTALL)
SECRET = secrets.WORDS
SECRET_VARIABLE = re.compile(rf"oc\.env:[^}}]*(?:{SECRET.pattern})", re.IGNORECASE)

ALWAYS_TEXT = ("hypothesis", "name", "outputs")  # a sweep over these makes no sense
NO_PATHS = ("hypothesis", "name", "label")
TEXT = ("run", "resume", "init_from", "noise_level", "trust", "images", "reference", "label")
TEXT_ENDINGS = ("root", "path", "file", "folder")  # of a dotted key, e.g. dataset.root
OF_A_SWEEP = ("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper")
SHORT = {"resume.allow": "resume_allow", "eval.seeds": "seeds"}  # what may be typed for a key
INFINITE = re.compile(r"(?<=[=,[ -])\.inf(?=[],]|$)")  # as yaml and our pages have it
PLAIN = re.compile(r"[\w./@:-]*", re.ASCII)  # means itself in Hydra's grammar
QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
CALL = re.compile(r"(?:choice|shuffle|sort|range|interval|glob)\(.*\)", re.DOTALL)  # as is this


@dataclass
class Arguments:
    """A command line taken apart."""

    flags: dict[str, str] = field(default_factory=dict)  # "--cfg" -> "job"; "" without a value
    typed: list[str] = field(default_factory=list)  # overrides, as typed
    overrides: list[str] = field(default_factory=list)  # the same, as Hydra has to read them
    implied: list[str] = field(default_factory=list)  # of these, what follows from what was typed

    @property
    def multirun(self) -> bool:
        return "--multirun" in self.flags

    def value(self, key: str) -> str | None:
        """What was typed for a key, the last one if it was typed twice."""
        matches = [KEY.fullmatch(override) for override in self.typed]
        values = [match[2] for match in matches if match and match[1] == key]
        return values[-1] if values else None


def parse(verb: str, argv: list[str]) -> Arguments:
    """Take the words after the verb apart; refuse what can be seen to be wrong without a config."""
    arguments = Arguments()
    words, compared = list(argv), []
    while words:
        word = words.pop(0)
        if word.startswith("-") and word != "-":
            _take_flag(word, words, arguments.flags, verb)
        elif verb == "plot" and "=" not in word and arguments.value("what") is None:
            arguments.typed.append(f"what={word}")
        elif verb == "compare" and "=" not in word:
            compared.append(quote(word))
        else:
            arguments.typed.append(word)
    if compared:
        arguments.typed.append(f"runs=[{','.join(compared)}]")
    _refuse_flags_together(arguments.flags)
    if arguments.multirun and verb in usage.NEVER_SWEPT:
        raise ConfigError(f"--multirun: {usage.NEVER_SWEPT[verb]}")
    for word in arguments.typed:
        _refuse_secret(word)
        _refuse_other_words(word, verb)
        if word.lstrip("+").startswith(OF_A_SWEEP) and not arguments.multirun:
            raise ConfigError(f"{word} is about a sweep, it goes with --multirun only")
    arguments.typed = _last_of_each(arguments.typed)
    free = [
        _quoted(_in_full(word), arguments.multirun)
        for word in arguments.typed
        if not _is_absent_group(word, verb)
    ]
    arguments.implied = _other_lengths(arguments) + _other_steps(verb, arguments)
    arguments.overrides = free + arguments.implied
    return arguments


def _take_flag(word: str, words: list[str], flags: dict[str, str], verb: str) -> None:
    flag, equals, value = word.partition("=")
    key, page = flag.lstrip("-"), usage.root(verb)
    known = (*page.keys, *page.groups)
    if flag not in FLAGS or (flag == "--run" and key in known):  # Hydra has a flag --run
        if SECRET.search(flag) or secrets.found(word):
            raise ConfigError(_no_secrets(_harmless(key)))
        if key in known:
            value = value or (words or ["..."])[0]
            value = "..." if secrets.found(value) else value
            raise ConfigError(f"unknown flag {flag!r}; did you mean {key}={value}, no dashes?")
        shown = [name for name in usage.flag_names(verb) if name.startswith("--")]
        raise ConfigError(f"unknown flag {flag!r}; {nearest(flag, shown)}")
    name, takes = FLAGS[flag]
    if equals and not takes:
        raise ConfigError(f"{flag} takes no value")
    if takes == "value" and not equals:
        if not words:
            raise ConfigError(f"{flag} needs a value")
        value = words.pop(0)
    if takes == "?" and not equals:
        value = words.pop(0) if words and words[0] in INFO else "defaults-tree"
    if secrets.found(value):
        raise ConfigError(_no_secrets(flag))
    for known, choices in (("--cfg", CFG), ("--info", INFO)):
        if name == known and value not in choices:
            raise ConfigError(f"{flag}: unknown choice {value!r}; {nearest(value, choices)}")
    flags[name] = value


def topic(verb: str, words: list[str]) -> str | None:
    """What `--help` is asked about: a group, or one choice of it."""
    left, groups = list(words), usage.root(verb).groups
    while left:
        word = left.pop(0)
        if FLAGS.get(word, ("", ""))[1] == "value":
            left = left[1:]
        elif not word.startswith("-") and ("=" not in word or word.partition("=")[0] in groups):
            return word
    return None


def _refuse_flags_together(flags: dict[str, str]) -> None:
    modes = [
        flag for flag in ("--run", "--multirun", "--cfg", "--info", "--hydra-help") if flag in flags
    ]
    if len(modes) > 1:
        raise ConfigError(f"{' and '.join(modes)} cannot go together")
    if "--resolve" in flags and "--cfg" not in flags:
        raise ConfigError("--resolve goes with --cfg only")


def _no_secrets(key: str) -> str:
    return (
        f"{key}: a secret does not belong on the command line or in a config, where it would be "
        "saved; put it in the environment (WANDB_API_KEY) or in ~/.netrc"
    )


def _refuse_secret(word: str) -> None:
    """A typed value ends up in config.yaml and overrides.yaml, so a key or password must not."""
    key, _, value = word.partition("=")
    if "=" in word and _is_secret(key):
        raise ConfigError(_no_secrets(key.lstrip("+~")))
    if value.lstrip().startswith(("{", "[")):
        for inner in re.findall(r"([\w-]+)[\"']?\s*:", value):
            if _is_secret(inner):
                raise ConfigError(_no_secrets(f"{key}.{inner}"))
    if SECRET_VARIABLE.search(value):
        raise ConfigError(_no_secrets(f"{key}: the value names a secret variable"))
    if what := secrets.found(word):
        raise ConfigError(_no_secrets(f"{_harmless(key)}: it holds {what}"))


def _is_secret(key: str) -> bool:
    """Does a part of it end as the name of one: tracker.token, not model.num_tokens?"""
    return any(secrets.LAST.search(part) for part in key.split("."))


def _harmless(key: str) -> str:
    """What comes before the first =, which of a word without one is all of it."""
    return "a word" if secrets.found(key) else key


def _refuse_other_words(word: str, verb: str) -> None:
    match = KEY.fullmatch(word)
    if not match and not word.startswith("~"):
        hint = usage.nearest_key(word.partition("=")[0], verb)
        raise ConfigError(f"{word!r} is not of the form key=value; {hint}")


def _is_absent_group(word: str, verb: str) -> bool:
    """`experiment=null` says what is the default; Hydra has no word for it."""
    match = KEY.fullmatch(word)
    groups = usage.root(verb).groups
    if not match or match[1] not in groups or match[2] not in ("null", ""):
        return False
    if groups[match[1]] != "null":
        options = nearest(match[2], usage.choices(match[1]))
        raise ConfigError(f"{match[1]}: cannot be {match[2] or 'empty'}; {options}")
    return True


def _last_of_each(words: list[str]) -> list[str]:
    """Without what is typed again: a sweep would take either as a setting of its own."""
    keys = [_in_full(match[1]) if (match := KEY.fullmatch(word)) else word for word in words]
    return [word for k, word in enumerate(words) if keys[k] not in keys[k + 1 :] or word[0] == "~"]


def _in_full(word: str) -> str:
    """The key as it stands in the config."""
    key, equals, value = word.partition("=")
    return SHORT.get(key, key) + equals + value


def _quoted(word: str, multirun: bool) -> str:
    """Quote free text, so that commas, brackets, spaces and `=` in it survive Hydra's grammar."""
    match = KEY.fullmatch(word)
    if not match:
        return word
    key, value = match[1], match[2]
    always = key in ALWAYS_TEXT
    if not (always or key in TEXT or key.rpartition(".")[2] in TEXT_ENDINGS):
        return INFINITE.sub("inf", word)
    if value in ("", "null") or is_quoted(value):
        return word
    start = word[: match.start(2)]
    if multirun and not always and CALL.fullmatch(value):
        return word
    if multirun and not always and "," in value:  # a sweep over runs, paths or classes
        return start + ",".join(as_word(from_home(part)) for part in parts_of(value))
    return start + quote(value if key in NO_PATHS else from_home(value))


def parts_of(values: str) -> list[str]:
    """Texts with commas between them; one that is quoted from end to end may have some itself."""
    return re.findall(rf"(?:^|,)((?:{QUOTED})(?=,|$)|[^,]*)", values, re.DOTALL)


def as_word(text: str) -> str:
    """A text as it can stand among others: quoted only if it has to be, and is not."""
    return text if PLAIN.fullmatch(text) or is_quoted(text) else quote(text)


def from_home(path: str) -> str:
    """A shell leaves the ~ of key=~/folder as it is."""
    return os.path.expanduser(path) if path.startswith("~/") else path


def quote(text: str) -> str:
    """A quoted string of Hydra's grammar that means this text; `${...}` in it stays a reference."""
    # backslashes count only before a quote
    text = re.sub(r"(\\*)(?='|\Z)", lambda run: run[1] * 2, text)
    text = text.replace("'", r"\'")
    return f"'{text}'"


def is_quoted(value: str) -> bool:
    """Already one quoted string, by someone who knows Hydra."""
    return bool(re.fullmatch(QUOTED, value, re.DOTALL))


def _other_lengths(arguments: Arguments) -> list[str]:
    """One typed length beats whatever length an experiment set; two are a contradiction."""
    typed = [key for key in LENGTHS if arguments.value(key) not in (None, "null")]
    if len(typed) > 1:
        said = " and ".join(f"{key}={arguments.value(key)}" for key in typed)
        raise ConfigError(f"{said}: say the length once")
    return [f"{key}=null" for key in LENGTHS if typed and key not in typed]


def _other_steps(verb: str, arguments: Arguments) -> list[str]:
    """Typed calls of the network beat the steps of an experiment or a smoke run."""
    calls, steps = (arguments.value(key) for key in ("nfe", "steps"))
    counted = {"nfe", "steps"} <= {*usage.root(verb).keys}
    return ["steps=null"] if counted and calls not in (None, "null") and steps is None else []
