"""Keys and passwords: how one is recognised, and how it is kept out of what is written."""

import logging
import os
import re
from collections.abc import Iterator
from typing import Any

from diffuse.errors import ConfigError

# anywhere in a name; and as a part of one on its own, as in OPENAI_KEY, but not in keep or patch
STEMS = (
    r"(?:api|access)[_-]?key|token|secret|passw(?:or)?d|passphrase|passcode|credential|private"
    r"|authorization|bearer"
)
PARTS = r"(?<![a-z0-9])(?:key|pat|auth|pass|pwd|pw)(?![a-z0-9])"
WORDS = re.compile(f"{STEMS}|{PARTS}", re.IGNORECASE)
COUNT = r"(?:[\d.]{1,7}|true|false|none|null)(?![\w.])"
CARRIERS = re.compile(
    rf"(?:{STEMS})(?:=\S|:\s*(?=\S*\d)\S{{6}})"  # secret=..., password: a1...
    # secret_2=..., but max_tokens=2048 is a count, and a tokenizer no token
    rf"|(?:{STEMS})(?:s|\d+|[_-][\w-]*)(?:=(?!{COUNT})\S|:\s*(?!{COUNT})(?=\S*\d)\S{{6}})"
    r"|authorization:\s*\S|bearer\s+[\w.~+/-]{8}"
    rf"|--(?:{STEMS})\s+\S"
    r"|[_-](?:key|pat|auth|pass|pwd|pw)=\S"
    r"|[?&](?:[\w.-]*[_.-])?(?:key|pat|auth|pass|pwd|pw|sig|signature)=\S"  # in an address: ?sig=
    r"|://[^/\s@]+@|://[^\s:@/]*:[^\s@]+@",  # user:password@host
    re.IGNORECASE,
)
ISSUED = re.compile(  # how the services that people train with begin their keys
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{8}|gh[pousr]_[A-Za-z0-9]{8}|github_pat_\w{8}|glpat-[\w-]{8}"
    r"|sk-[\w-]{8}|wandb_v1_\w{8}|AKIA[0-9A-Z]{12}|xox[abprs]-[\w-]{8})"
    r"|hooks\.slack\.com/services/\w"
)
LAST = re.compile(rf"(?:{STEMS}|{PARTS})$", re.IGNORECASE)
ADDRESS = re.compile(r"(://[^\s:@/]*:)(\S+)@")  # user:password@host, and a password may have an @
# where one stands in what somebody else says: what is before it, and the whole of it
ALONE = re.compile(r"(://)[^/\s@:]{8,}(?=@)")  # token@host
WHOLE = re.compile(rf"(?:{ISSUED.pattern})[\w/-]*")
ASKED = re.compile(  # ?key=...&sig=...
    rf"([?&](?:[\w.-]*(?:{STEMS})[\w.-]*"
    r"|(?:[\w.-]*[_.-])?(?:key|pat|auth|pass|pwd|pw|sig|signature))"
    r"=)[^\s&'\"#<>)$][^\s&'\"#<>)]*",
    re.IGNORECASE,
)
BESIDE = re.compile(  # Bearer ..., --token ...
    r"((?:\bbearer|authorization['\"]?\s*[:=]\s*['\"]?\w+"
    rf"|(?<![\w-])--[\w-]*(?:{STEMS}))\s+)([\w.~+/-]{{8,}}=*)",
    re.IGNORECASE,
)
NAMED = re.compile(
    rf"(?P<before>(?P<name>{STEMS}|(?<=[_-])(?:key|pat|auth|pass|pwd|pw)(?![a-z0-9]))"
    r"(?:s|[_-][\w-]*)?(?P<sign>['\"]?\s*=|['\"]\s*:|:)\s*['\"]?)"
    r"(?P<value>(?<=['\"])[^\s'\"]+|[^\s'\",;&<>(){}[\]]+)",
    re.IGNORECASE,
)
HARMLESS = re.compile(  # a count, yes or no, a scheme, code, what is blacked out already
    r"[\d.]{1,7}|true|false|none|null|basic|bearer|lambda|[a-z_]+\.[a-z_.]*|[$.*].*", re.IGNORECASE
)
SHORT = 6  # characters of a value whose name alone says that it is a secret
SHORTEST = 8  # characters of a secret: TOKENIZERS_PARALLELISM=false is none


def in_environment() -> dict[str, str]:
    """Variable -> value of every secret that this process was given, without what is blank around.

    Paths are none. Of an address it is the password in it: HF_ENDPOINT=https://me:password@mirror.
    """
    stripped = {name: value.strip() for name, value in os.environ.items()}
    whole = {
        name: value
        for name, value in stripped.items()
        if WORDS.search(name) and len(value) >= SHORTEST and not value.startswith(("/", "~"))
    }
    inside = {name: ADDRESS.search(value) for name, value in os.environ.items()}
    passwords = {name: address[2] for name, address in inside.items() if address}
    long = {name: w for name, w in passwords.items() if len(w) >= SHORTEST and "/" not in w}
    return long | whole


def redacted(text: str) -> str:
    """The text with $NAME where the value of a secret variable was, and ... for any other one."""
    values = in_environment().items()
    for name, value in sorted(values, key=lambda item: -len(item[1])):  # one may hold another
        text = text.replace(value, f"${name}")
    text = ALONE.sub(r"\1...", ADDRESS.sub(r"\1...@", text))
    text = WHOLE.sub(lambda found: "..." if _is_made_up(found[0]) else found[0], text)
    text = BESIDE.sub(lambda found: f"{found[1]}..." if _is_made_up(found[2]) else found[0], text)
    return NAMED.sub(_without_value, ASKED.sub(r"\1...", text))


def _is_made_up(value: str) -> bool:
    """Is it no word of a language, nor the name of a package such as hf_transfer?"""
    return len(value) >= 2 * SHORTEST or bool(re.search(r"\d|[a-z][A-Z]", value))


def _without_value(found: re.Match[str]) -> str:
    """`name=value` or `name: value` with ... for a value that its name says is a secret."""
    value, told = found["value"], found["sign"] != ":"
    known = HARMLESS.fullmatch(value) or value.lower() == found["name"].lower()
    if len(value) < SHORT or known or not (told or re.search(r"\d", value)):
        return found[0]
    return f"{found['before']}..."


def found(text: str) -> str:
    """What secret a text holds, in words that do not tell it; nothing if it holds none."""
    for name, value in in_environment().items():
        if value in text:
            return f"the value of ${name}"
    return "a key, token or password" if CARRIERS.search(text) or ISSUED.search(text) else ""


def refuse(config: str, values: Any) -> None:
    """ConfigError if a config that is going to be saved holds a secret: its text, and its values.

    Of the values it is the name that tells, at its end: `token`, not `tokenizer` or `key_dim`.
    """
    if what := found(config) or next(_named(values), ""):
        raise ConfigError(f"the config would be saved with a secret in it: {what}")


def _named(values: Any, name: str = "") -> Iterator[str]:
    """The names of values in dicts and lists that say of themselves that they are secrets."""
    inside = values.items() if isinstance(values, dict) else ()
    inside = enumerate(values) if isinstance(values, list) else inside
    for key, value in inside:
        path = f"{name}.{key}" if name else str(key)
        if isinstance(value, str) and len(value) >= SHORT and LAST.search(str(key)):
            yield f"the value of {path}"
        yield from _named(value, path)


class Formatter(logging.Formatter):
    """Writes no secret, whoever said it and in whichever traceback."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))
