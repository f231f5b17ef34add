"""`--config-dir`: what a job says of itself can be copied with it."""

import pytest

from diffuse import cli


@pytest.fixture
def mine(command, tmp_path):
    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/own.yaml").write_text("# @package _global_\nn: 9\n")
    return command


@pytest.mark.parametrize("words", ["--config-dir mine", "--config-dir=mine", "-cd mine"])
def test_the_line_of_a_job_has_it(words, mine):
    assert cli.main(f"train {words} experiment=own seed=3 --json".split()) == 0
    line = "diffuse train experiment=own seed=3 --config-dir mine --json"
    assert (mine.job.config_dir, mine.job.line) == ("mine", line)
    assert cli.main(line.split()[1:]) == 0
    assert (mine.cfg.n, mine.job.line) == (9, line)
    assert cli.main(["train", "seed=3"]) == 0
    assert (mine.job.config_dir, mine.job.line) == (None, "diffuse train seed=3")


@pytest.mark.slow
def test_so_has_that_of_each_job_of_a_sweep(mine):
    assert cli.main(["train", "-m", "experiment=own", "seed=1,2", "--config-dir", "mine"]) == 0
    lines = [job.line for _, job in mine.calls]
    assert lines == [f"diffuse train experiment=own seed={k} --config-dir mine" for k in (1, 2)]
