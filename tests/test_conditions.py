"""Where code of one's own comes from, so that a number is known by the code that made it."""

import functools
import importlib

from diffuse import conditions

CODE = """
import functools
import torch

def plain(x):
    return x

@torch.no_grad()
def decorated(x):
    return x

@functools.lru_cache
def cached(x):
    return x
"""


def test_a_decorated_function_comes_from_the_file_that_it_is_written_in(tmp_path, monkeypatch):
    path = tmp_path / "their_code.py"
    path.write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    theirs = importlib.import_module("their_code")
    before = [conditions.of_others(thing) for thing in (theirs.decorated, theirs.cached)]
    assert [conditions.source(theirs.plain)] * 2 == [
        found[f"their_code.{name}"]["their_code.py"]
        for name, found in zip(("decorated", "cached"), before, strict=True)
    ]
    path.write_text(CODE.replace("return x", "return -x"))
    after = [conditions.of_others(thing) for thing in (theirs.decorated, theirs.cached)]
    assert [old != new for old, new in zip(before, after, strict=True)] == [True, True]


def test_a_decorator_of_ones_own_counts_with_what_it_is_around(tmp_path, monkeypatch):
    path = tmp_path / "their_code.py"
    path.write_text(CODE)
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper/around.py").write_text(
        "import functools\n"
        "def around(f):\n"
        "    @functools.wraps(f)\n"
        "    def inner(*args):\n"
        "        return f(*args)\n"
        "    return inner\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    around = importlib.import_module("deeper.around").around
    theirs = importlib.import_module("their_code")
    found = conditions.sources(around(theirs.decorated))
    assert found.keys() == {"deeper/around.py", "their_code.py"}
    assert conditions.sources(around(conditions.key)).keys() == {"deeper/around.py"}
    assert conditions.sources(functools.cache(conditions.key)) == {}
