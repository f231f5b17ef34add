"""The scripts beside the package still fit it: nothing else runs those that measure."""

import runpy
import sys

import pytest
from places import ROOT

SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("bench_*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_finds_every_name_that_it_imports(name, monkeypatch, capsys):
    script = ROOT / "scripts" / name
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    monkeypatch.syspath_prepend(script.parent)  # as Python does
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(script), run_name="__main__")
    assert left.value.code == 0
    assert "usage: " in capsys.readouterr().out


@pytest.mark.slow
def test_one_that_measures_in_little_time_measures(start):
    script = ROOT / "scripts/bench_metrics.py"
    words = ["--rounds", "1", "--n", "80", "--only", "intervals"]
    process = start([sys.executable, str(script), *words])
    said, wrong = process.communicate(timeout=300)
    assert process.returncode == 0, wrong
    assert "usage: " not in said
