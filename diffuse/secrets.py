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
CARRIERS = re.compile(
    rf"(?:{STEMS})[\w-]*(?:=\S|:\s*(?=\S*\d)\S{{6}})"  # secret=..., OPENAI_KEY=..., password: a1...
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
SHORT = 6  # characters of a value whose name alone says that it is a secret
SHORTEST = 8  # characters of a secret: TOKENIZERS_PARALLELISM=false is none


def in_environment() -> dict[str, str]:
    """Variable -> value of every secret that this process was given; paths are none.

    Of an address it is the password in it: HF_ENDPOINT=https://me:password@mirror.
    """
    whole = {
        name: value
        for name, value in os.environ.items()
        if WORDS.search(name) and len(value) >= SHORTEST and not value.startswith(("/", "~"))
    }
    inside = {name: ADDRESS.search(value) for name, value in os.environ.items()}
    passwords = {name: address[2] for name, address in inside.items() if address}
    long = {name: w for name, w in passwords.items() if len(w) >= SHORTEST and "/" not in w}
    return long | whole


def redacted(text: str) -> str:
    """The text with $NAME where the value of a secret variable was, no address with a password."""
    values = in_environment().items()
    for name, value in sorted(values, key=lambda item: -len(item[1])):  # one may hold another
        text = text.replace(value, f"${name}")
    return ADDRESS.sub(r"\1...@", text)


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
