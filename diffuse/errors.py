"""What can go wrong, in the words a user reads, with the exit code a script reads."""

from collections.abc import Iterable
from difflib import get_close_matches

INTERRUPTED, CLOSED_PIPE, TERMINATED = 130, 141, 143  # exit codes of signals, as shells report them
MANY, SHOWN = 20, 10  # choices: of more than so many, so many are named


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


def first_line(error: BaseException | str) -> str:
    """The first line of what an error says that is not empty; of none the error's name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip()


def closest(word: str, choices: Iterable[str], cutoff: float) -> str | None:
    """The one most like it, if one is: of the same letters, if that is all that is wrong."""
    found = get_close_matches(word, choices, n=MANY, cutoff=cutoff)  # best first
    same = [choice for choice in found if sorted(choice) == sorted(word)]
    return next(iter([*same, *found]), None)


def nearest(word: str, choices: Iterable[str]) -> str:
    """Did you mean...? The closest choice if one is close, then all, or the ten closest of many."""
    choices = sorted(map(str, choices))
    close = closest(str(word), choices, 0.5)
    hint = f"did you mean {close!r}? " if close else ""
    shown = choices if len(choices) <= MANY else get_close_matches(str(word), choices, SHOWN, 0.0)
    more = f" and {len(choices) - len(shown):,} more" if len(shown) < len(choices) else ""
    return f"{hint}choices: {', '.join(shown) or 'none'}{more}"
