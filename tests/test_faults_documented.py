"""docs/reliability.md names tests, and they exist; those that are slow are called so."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs/reliability.md").read_text()
NAMED = set(re.findall(r"`(test_\w+)`", PAGE))


def defined(pattern):
    found = [re.findall(r"^def (test_\w+)", p.read_text(), re.M) for p in TESTS.rglob(pattern)]
    return {name for names in found for name in names}


def test_every_test_that_the_page_names_exists():
    assert len(NAMED) > 20
    assert defined("test_*.py") >= NAMED
    assert "test_that_nobody_wrote" not in defined("test_*.py")


ROWS = [line for line in PAGE.splitlines() if line.startswith("| ")][1:]


def test_every_promise_names_a_test():
    assert len(ROWS) > 10
    assert all(re.search(r"`test_\w+`[^|]*\|$", row) for row in ROWS)


def is_slow(node):
    """Is a test slow, or one of its cases?"""
    marks = " ".join(map(ast.unparse, getattr(node, "decorator_list", [])))
    return "pytest.mark.slow" in marks


def test_a_row_says_slow_where_one_of_its_tests_is():
    trees = [ast.parse(path.read_text()) for path in TESTS.rglob("test_*.py")]
    slow = {node.name for tree in trees for node in tree.body if is_slow(node)}
    for row in ROWS:
        named = set(re.findall(r"`(test_\w+)`", row))
        assert ("(slow)" in row) == bool(named & slow), row
