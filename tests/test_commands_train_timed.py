"""`diffuse train` where steps are timed before there is a folder, and one of them is not finite."""

import json

import pytest
from leftovers import RUN

from diffuse import runs


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("line", ["", "train.on_nan=rollback"])
def test_a_network_that_diverges_at_once_has_a_folder_that_says_why(
    line, step, diffuse, poison, tmp_path
):
    poison({step}, times=9)
    assert diffuse.train(line) == 4
    assert f"error: step {step}: loss nan" in diffuse.err
    run = tmp_path / RUN
    assert runs.read(run)["status"] == "diverged"
    assert json.loads((run / "diverged.json").read_text())["step"] == step


def test_a_dry_run_of_it_says_so_and_writes_nothing(tiny, diffuse, poison, tmp_path):
    poison({1})
    assert diffuse.error(f"train {tiny} dry_run=true", 4).startswith("step 1: loss nan")
    assert not list(tmp_path.iterdir())
