"""Reuse: the lessons' counts of calls, and that the first call is always made."""

import pytest
from closed_forms import nodes

from diffuse.config import build
from diffuse.errors import ConfigError
from diffuse.reuse import decreasing, none, skip

NODES = nodes("reuse")


@pytest.mark.parametrize(("name", "made"), [("none", 1000), ("skip", 367), ("decreasing", 296)])
def test_of_a_thousand_calls_as_many_are_made_as_in_the_lessons(name, made):
    assert sum(build("reuse", NODES[name], calls=1000)) == made


def test_decreasing_has_the_lessons_count_in_every_hundred():
    made = decreasing(1000, last=100)[::-1]  # the last call first
    counts = [sum(made[k : k + 100]) for k in range(0, 1000, 100)]
    assert counts == [100, 50, 34, 25, 20, 17, 15, 13, 12, 10]


@pytest.mark.parametrize("name", NODES)
def test_a_plan_has_a_word_for_every_call_and_the_first_is_made(name):
    for calls in range(60):
        made = build("reuse", NODES[name], calls=calls)
        assert len(made) == calls
        assert all(made[:1])


def test_skip_makes_every_nth_call_and_all_of_the_last():
    assert skip(10, every=3, last=2) == [bool(int(c)) for c in "1001001011"]
    assert skip(9, every=3, last=0) == [bool(int(c)) for c in "101001001"]
    assert skip(5, every=1, last=0) == skip(5, every=9, last=5) == none(5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "skip", "every": 0, "last": 3}, "every must be at least 1"),
        ({"name": "skip", "every": 2, "last": -1}, "got 2 and -1"),
        ({"name": "decreasing", "last": 0}, "last must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_planned_is_refused(change, words):
    with pytest.raises(ConfigError, match=f"reuse: .*{words}"):
        build("reuse", change, calls=10)
