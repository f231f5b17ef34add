"""Keys and passwords: how one is recognised, and how it is kept out of what is written."""

import logging
import os
import re

from diffuse.errors import ConfigError

# anywhere in a name; and as a part of one on its own, as in OPENAI_KEY, but not in keep or patch
STEMS = r"api[_-]?key|token|secret|passw(?:or)?d|passphrase|credential|private"
PARTS = r"(?<![a-z0-9])(?:key|pat|auth|pass|pwd)(?![a-z0-9])"
WORDS = re.compile(f"{STEMS}|{PARTS}", re.IGNORECASE)
CARRIERS = re.compile(
    rf"(?:{STEMS})[\w-]*=\S"  # in a text: secret=..., OPENAI_KEY=...
    r"|[_-](?:key|pat|auth|pass|pwd)=\S"
    r"|[?&](?:[\w.-]*[_.-])?(?:key|pat|auth|pass|pwd|sig|signature)=\S"  # in an address: ?sig=...
    r"|://[^/\s@]+@",  # user:password@host
    re.IGNORECASE,
)
SHORTEST = 8  # characters of a secret: TOKENIZERS_PARALLELISM=false is none


def in_environment() -> dict[str, str]:
    """Variable -> value of every secret that this process was given; paths are none."""
    return {
        name: value
        for name, value in os.environ.items()
        if WORDS.search(name) and len(value) >= SHORTEST and not value.startswith(("/", "~"))
    }


def redacted(text: str) -> str:
    """The text with $NAME where the value of a secret variable was."""
    values = in_environment().items()
    for name, value in sorted(values, key=lambda item: -len(item[1])):  # one may hold another
        text = text.replace(value, f"${name}")
    return text


def found(text: str) -> str:
    """What secret a text holds, in words that do not tell it; nothing if it holds none."""
    for name, value in in_environment().items():
        if value in text:
            return f"the value of ${name}"
    return "a key, token or password" if CARRIERS.search(text) else ""


def refuse(config: str) -> None:
    """ConfigError if a config that is going to be saved holds a secret."""
    if what := found(config):
        raise ConfigError(f"the config would be saved with a secret in it: {what}")


class Formatter(logging.Formatter):
    """Writes no secret, whoever said it and in whichever traceback."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))
