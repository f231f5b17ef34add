"""What of a sweep is damaged costs that and nothing else."""

import errno
import json
import sys
from pathlib import Path

import pytest

from diffuse import runs
from diffuse.cli import sweep_jobs, sweep_records
from diffuse.errors import ConfigError

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


DAMAGES = [b"", b"\xff{}", b"null", b"[]", b'{"jobt": []}', b'{"jobs": [7]}', b'{"jobs": [[7]]}']


@pytest.mark.parametrize("content", DAMAGES)
def test_a_damaged_list_of_jobs_is_passed_over_and_named_only_by_who_names_it(
    content, jobs, command, capsys
):
    jobs.broken = {2}
    assert jobs.of(LINE)[0] == 1
    assert jobs.of(LINE)[0] == 1
    newest = FOLDER.with_name("v002")
    (newest / "sweep.json").write_bytes(content)
    capsys.readouterr()
    assert f"{newest}/sweep.json is damaged" in command.error(f"{LINE} resume=mine/v002")
    assert jobs.of(f"{LINE} resume=auto") == (1, [2])
    said = capsys.readouterr().err
    assert f"warning: resume: {newest}/sweep.json is damaged" in said
    assert f"continuing {FOLDER}" in said
    (FOLDER / "sweep.json").write_bytes(content)
    assert jobs.of(f"{LINE} resume=must") == (2, [])
    jobs.broken = set()
    for resume in ("none", "auto"):  # a new sweep, then that one
        assert jobs.of(f"{LINE} resume={resume}")[0] == 0
    assert sorted(FOLDER.parent.glob("v*")) == [FOLDER.with_name(f"v00{k}") for k in (1, 2, 3)]


def test_a_sweep_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / ".lock").mkdir()  # who is root may write anywhere else
    with (
        pytest.raises(ConfigError, match=rf"resume: {tmp_path} cannot be written to: Is a dir"),
        sweep_records.locked(tmp_path / ".lock", tmp_path),
    ):
        pass


def test_a_disk_too_full_for_a_file_of_hydra_is_said_and_no_job_is_called_killed(
    jobs, capsys, monkeypatch
):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("hydra._internal.core_plugins.basic_sweeper.OmegaConf.save", full)
        assert jobs.of(LINE) == (5, [])
    said = capsys.readouterr().err
    assert f"error: no space in {FOLDER}: No space left on device" in said
    assert "killed" not in said
    assert jobs.of(f"{LINE} resume=auto") == (0, [1, 2])


@pytest.mark.parametrize("content", [b"", b"[]", b'{"code": 0}'])
def test_a_job_whose_end_cannot_be_read_never_said_it(content, tmp_path):
    (tmp_path / "job.json").write_bytes(content)
    assert sweep_jobs.outcome(tmp_path) is None
