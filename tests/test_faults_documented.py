"""docs/reliability.md names tests, and they exist."""

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


def test_every_promise_names_a_test():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 10
    assert all(re.search(r"`test_\w+`[^|]*\|$", row) for row in rows)
