"""The scripts beside the package still fit it: nothing else runs those that measure."""

import sys

import pytest
from places import ROOT

LINES = [f"{path.name} --help" for path in sorted((ROOT / "scripts").glob("bench_*.py"))]
LINES += ["bench_metrics.py --rounds 1 --n 80 --only intervals"]


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_a_script_finds_every_name_that_it_imports(line, start):
    name, *words = line.split()
    process = start([sys.executable, str(ROOT / "scripts" / name), *words])
    said, wrong = process.communicate(timeout=300)
    assert process.returncode == 0, wrong
    assert ("usage: " in said) == ("--help" in words)
