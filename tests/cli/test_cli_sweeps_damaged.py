"""What of a sweep is damaged costs that and nothing else."""

import json
import sys
from pathlib import Path

import pytest

from diffuse import runs

FOLDER = Path("outputs/train/mine/v001")
LINE = "train -m seed=1,2 name=mine"


@pytest.mark.parametrize(
    ("name", "facts"),
    [("run.json", {"sesonds": 1.0}), ("run.json", {"seconds": "1"}), ("record.json", {})],
)
def test_a_damaged_number_of_a_job_costs_its_row_of_the_table_only(name, facts, jobs, capsys):
    def summary(folder):
        of = json.loads((folder / name).read_text())
        return {"time": f"{of['seconds']:.1f} s"}

    sys.modules["diffuse.commands.train"].summary = summary
    assert jobs.of(LINE)[0] == 0
    for number in range(2):
        for file in {"run.json", name}:
            runs.write_json(FOLDER / str(number) / file, {"status": "done", "seconds": 5.0})
    runs.write_json(FOLDER / "0" / name, {"status": "done", **facts})
    capsys.readouterr()
    assert jobs.of(f"{LINE} resume=auto") == (0, [])
    out, err = capsys.readouterr()
    assert [line.split() for line in out.splitlines()[1:]] == [
        ["time"], ["0:", "seed=1"], ["1:", "seed=2", "5.0", "s"],
    ]  # fmt: skip
    assert f"warning: {FOLDER}/0/{name} is damaged: " in err
