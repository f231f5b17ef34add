"""Keys and passwords: how one is recognised, and how it is kept out of what is written."""

import logging
import os
import re

WORDS = re.compile(r"api[_-]?key|token|secret|passw(?:or)?d|credential", re.IGNORECASE)
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
    for name, value in in_environment().items():
        text = text.replace(value, f"${name}")
    return text


class Formatter(logging.Formatter):
    """Writes no secret, whoever said it and in whichever traceback."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))
