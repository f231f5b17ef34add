"""Reuse: which of a sampler's calls of the network are made; at the others the last eps serves.

The answer is a list of bools, the first call first. The lessons' skip sampling.
"""


def none(calls: int) -> list[bool]:
    """Every call is made."""
    return [True] * calls


def skip(calls: int, every: int, last: int) -> list[bool]:
    """Every n-th call, and all of the last k: of 1,000 calls, 367 with every=3, last=50."""
    if every < 1 or last < 0:
        raise ValueError(f"every must be at least 1 and last at least 0, got {every} and {last}")
    return _first([left % every == 0 or left < last for left in reversed(range(calls))])


def decreasing(calls: int, last: int) -> list[bool]:
    """Every n-th call, where n falls by one each `last` calls: of 1,000, 296 with last=100.

    With k calls left it is made if k + last + 1 is a multiple of (k + last + 1) // last: the
    lessons' rule, whose stride is 10 at the start of 1,000 calls and 1 among the last hundred.
    """
    if last < 1:
        raise ValueError(f"last must be at least 1, got {last}")
    shifted = [left + last + 1 for left in reversed(range(calls))]
    return _first([k % (k // last) == 0 for k in shifted])


def _first(made: list[bool]) -> list[bool]:
    return [True, *made[1:]] if made else made
