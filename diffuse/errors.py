"""What can go wrong, in the words a user reads, with the exit code a script reads."""

from collections.abc import Iterable
from difflib import get_close_matches


class DiffuseError(Exception):
    """One line: where, what was given, what is allowed. `exit_code` is part of the interface."""

    exit_code = 1


class ConfigError(DiffuseError):
    """A key, choice, value or run that does not exist or does not fit."""

    exit_code = 2


class DataError(DiffuseError):
    """Data or a checkpoint that is missing, truncated or altered."""

    exit_code = 3


class DivergedError(DiffuseError):
    """A loss, gradient or image that is no longer finite."""

    exit_code = 4


class NoSpaceError(DiffuseError):
    """The disk is full."""

    exit_code = 5


def reason(error: BaseException, most: int | None = 200) -> str:
    """What an error of somebody else's says, in one line that is not too long."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def nearest(word: str, choices: Iterable[str]) -> str:
    """Did you mean...? The closest choice if one is close, then all of them."""
    choices = sorted(map(str, choices))
    close = get_close_matches(str(word), choices, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}choices: {', '.join(choices) or 'none'}"
