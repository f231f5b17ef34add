"""Run folders: claimed once, found again, and honest about how they ended."""

import json
import logging
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from injected import at_once

from diffuse import checkpoints, run_folders, runs
from diffuse.errors import ConfigError, DataError, DivergedError

RACE = """
import os, sys, time
from pathlib import Path
from diffuse import runs
outputs, control = Path(sys.argv[1]), sys.argv[2] == "control"

def max_plus_one(outputs):  # the control: look, then make
    parent = outputs / "train" / "name"
    number = max((int(p.name[1:]) for p in parent.glob("v*")), default=0) + 1
    time.sleep(0.02)
    folder = parent / f"v{number:03d}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder

print("ready", flush=True)
sys.stdin.readline()
for _ in range(4):
    folder = max_plus_one(outputs) if control else runs.claim(outputs, "train", "name")
    print(folder.name, flush=True)
    if not control:
        assert (outputs / "train/name/latest").resolve(strict=True).is_dir()
"""


def race(outputs, kind):
    """Eight processes that start at the same moment; the folders each of them got."""
    started = at_once(8, RACE, str(outputs), kind)
    got = [process.communicate()[0].split() for process in started]
    assert all(process.returncode == 0 for process in started)
    return [name for names in got for name in names]


def test_eight_starts_at_once_get_eight_folders_and_latest_is_always_one_of_them(tmp_path):
    (tmp_path / "train/name/v000").mkdir(parents=True)
    (tmp_path / "train/name/latest").symlink_to("v000")
    over, nowhere = threading.Event(), []

    def poll():
        while not over.is_set():
            if not (tmp_path / "train/name/latest").is_dir():
                nowhere.append(1)

    watching = threading.Thread(target=poll)
    watching.start()
    try:
        names = race(tmp_path, "claim")
    finally:
        over.set()
        watching.join()
    assert not nowhere
    assert sorted(names) == [f"v{k:03d}" for k in range(1, 33)]
    parent = tmp_path / "train/name"
    assert (parent / "latest").resolve().name == "v032"
    assert not [p for p in parent.iterdir() if p.name.startswith(".")]


def test_eight_starts_beside_a_copied_latest_put_it_aside_once(tmp_path):
    """It is a folder where the copy has followed links."""
    parent = tmp_path / "train/name"
    (parent / "v000").mkdir(parents=True)
    (parent / "latest").mkdir()
    (parent / "latest/run.json").write_text("{}")
    assert len({*race(tmp_path, "claim")}) == 32
    assert (parent / "latest").readlink() == Path("v032")
    assert [p.name for p in parent.glob("*copied*")] == ["latest-copied-1"]
    assert (parent / "latest-copied-1/run.json").read_text() == "{}"


def test_looking_before_making_would_share_folders(tmp_path):
    names = race(tmp_path, "control")
    assert len(set(names)) < len(names)


def test_a_folder_is_never_used_twice_and_versions_pass_a_thousand(tmp_path):
    assert runs.claim(tmp_path, "train", "a").name == "v001"
    (tmp_path / "train/a/v999").mkdir()
    (tmp_path / "train/a/vnext").mkdir()
    assert runs.claim(tmp_path, "train", "a").name == "v1000"
    assert runs.claim(tmp_path, "train", "a").name == "v1001"
    assert (tmp_path / "train/a/latest").readlink() == Path("v1001")


def test_where_no_folder_can_be_made_it_is_said(tmp_path):
    (tmp_path / "train").write_text("a file")
    with pytest.raises(ConfigError, match="cannot make a run folder in"):
        runs.claim(tmp_path, "train", "a")


def start(outputs, name, checkpoint=True, smoke=False, verb="train", **facts):
    folder = runs.claim(outputs, verb, name)
    facts = {"name": name, "smoke": smoke, **facts}
    run = runs.Run.start(folder, verb, "seed: 0\n", ["a=1", 'h="x"'], **facts)
    if checkpoint:
        checkpoints.save(folder / "checkpoints", 1, {"model": {"w": torch.ones(2)}}, {})
    return run


def test_a_run_says_what_it_is_and_what_it_depends_on(tmp_path):
    run = start(tmp_path, "a", seed=3)
    facts = runs.read(run.folder)
    keys = {"schema", "status", "command", "name", "version", "git", "versions", "seed", "started"}
    assert keys <= set(facts)
    assert (facts["status"], facts["command"], facts["version"]) == ("running", "train", "v001")
    assert facts["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert json.loads((run.folder / "overrides.yaml").read_text().splitlines()[1][2:]) == 'h="x"'
    run.finish("done", images_seen=5)
    facts = runs.read(run.folder)
    assert (facts["status"], facts["images_seen"]) == ("done", 5)
    assert facts["seconds"] >= 0


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("x"), "failed"),
        (KeyboardInterrupt(), "stopped"),
        (SystemExit(143), "stopped"),
        (DivergedError("nan"), "diverged"),
    ],
)
def test_however_a_run_ends_is_written_down(error, status, tmp_path):
    run = start(tmp_path, "a")
    with pytest.raises(type(error)), run.watched():
        raise error
    facts = runs.read(run.folder)
    assert facts["status"] == status
    assert type(error).__name__ in facts["reason"]


def test_the_log_keeps_what_was_said_and_the_traceback(tmp_path, caplog):
    run = start(tmp_path, "a")
    caplog.set_level(logging.DEBUG, logger="diffuse")

    def work():
        with run.logged():
            logging.getLogger("diffuse.test").info("hello")
            return 1 / 0

    with pytest.raises(ZeroDivisionError):
        work()
    logging.getLogger("diffuse.test").info("goodbye")
    text = (run.folder / "log.txt").read_text()
    assert "hello" in text
    assert "ZeroDivisionError" in text
    assert "goodbye" not in text


def test_a_continued_run_forgets_the_rows_it_will_write_again(tmp_path):
    run = start(tmp_path, "a")
    for step in (1, 2, 3, 4):
        run.log(step=step, loss=step / 10)
    with open(run.folder / "metrics.jsonl", "a") as file:
        for step in ("null", '"1"', "1.5", "true", "[]"):
            file.write(f'{{"step": {step}}}\n')
        file.write('{"step": 5, "lo')
    again = runs.Run.reopen(run.folder, "train")
    again.truncate_log(2)
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]


def test_what_is_no_finite_number_is_null_in_every_file(tmp_path):
    run = start(tmp_path, "a", options={"churn_max": math.inf})
    run.log(step=1, loss=math.nan)
    for name, word in {"run.json": "churn_max", "metrics.jsonl": "loss"}.items():
        text = (run.folder / name).read_text()
        assert f'"{word}": null' in text
        json.loads(text, parse_constant=pytest.fail)


def test_the_time_of_a_continued_run_is_the_sum(tmp_path):
    run = start(tmp_path, "a")
    run.started -= 100
    run.finish("stopped")
    again = runs.Run.reopen(run.folder, "train")
    assert runs.read(run.folder)["status"] == "running"
    again.finish("done")
    assert runs.read(run.folder)["seconds"] == pytest.approx(100, abs=5)


def test_a_run_is_found_by_path_name_and_version_and_the_newest_by_none_of_them(tmp_path):
    a1, a2, b1 = (start(tmp_path, name).folder for name in ("a", "a", "b"))
    assert run_folders.find(tmp_path, str(a1)) == a1
    assert run_folders.find(tmp_path, "a") == a2
    assert run_folders.find(tmp_path, "a/v001") == a1
    assert run_folders.find(tmp_path, "a/latest") == a2  # which is v002 whatever comes later
    assert run_folders.find(tmp_path, None) == b1


def test_a_job_of_a_sweep_is_found_by_its_number(tmp_path):
    folder = runs.claim(tmp_path, "train", "a")
    for k in ("0", "1"):
        (folder / k).mkdir()
        runs.Run.start(folder / k, "train", "", [], name="a")
    assert run_folders.find(tmp_path, "a/v001/0") == folder / "0"
    assert run_folders.find(tmp_path, "a/latest/0") == folder / "0"
    for ref in ("a", "a/v001"):
        with pytest.raises(ConfigError, match=r"a sweep of 2 jobs: name one: run=a/v001/0$"):
            run_folders.find(tmp_path, ref)


def test_the_newest_has_a_whole_checkpoint_and_is_no_smoke_run_unless_there_is_nothing_else(
    tmp_path,
):
    smoke = start(tmp_path, "smoke", smoke=True).folder
    assert run_folders.find(tmp_path, None) == smoke
    real = start(tmp_path, "real").folder
    start(tmp_path, "empty", checkpoint=False)
    start(tmp_path, "smoke", smoke=True)
    cut = start(tmp_path, "cut").folder
    (cut / "checkpoints/step_00000001/model.safetensors").write_bytes(b"")
    start(tmp_path, "pictures", verb="sample")
    assert run_folders.find(tmp_path, None) == real


def test_an_unknown_run_lists_those_there_are(tmp_path):
    with pytest.raises(ConfigError, match="start with diffuse train"):
        run_folders.find(tmp_path, None)
    start(tmp_path, "quickstart")
    start(tmp_path, "quickstart")
    with pytest.raises(ConfigError) as caught:
        run_folders.find(tmp_path, "quickstrt")
    assert "no run 'quickstrt'" in str(caught.value)
    assert "quickstart/v001, quickstart/v002" in str(caught.value)


def test_a_damaged_run_json_is_named_and_hides_no_other_run(tmp_path):
    good, bad = start(tmp_path, "good").folder, start(tmp_path, "bad").folder
    (bad / "run.json").write_text('{"schema": 1')
    with pytest.raises(DataError, match=r"bad/v001/run\.json is damaged"):
        runs.read(bad)
    with pytest.raises(DataError, match="is not a run folder"):
        runs.read(tmp_path)
    assert run_folders.find(tmp_path, None) == good
    newer = start(tmp_path, "bad").folder
    texts = ("{", "null", "[]", "7")
    hurts = [lambda path, text=text: path.write_text(text) for text in texts]
    for hurt in (*hurts, lambda path: path.unlink()):
        hurt(newer / "run.json")
        assert run_folders.find(tmp_path, "bad") == newer  # its checkpoint is whole
        assert run_folders.find(tmp_path, str(newer)) == newer
        assert run_folders.find(tmp_path, None) == good


def test_a_checkpoint_is_named_beside_its_run():
    assert run_folders.parted("a/v001@500") == ("a/v001", 500)
    assert run_folders.parted("a@best") == ("a", "best")
    assert run_folders.parted("a/v001/checkpoints/step_00000500") == ("a/v001", 500)
    assert run_folders.parted("a/v001/checkpoints/latest") == ("a/v001", None)
    assert run_folders.parted("a/v001") == ("a/v001", None)


def test_the_training_of_a_record_is_found_where_outputs_is_now(tmp_path):
    run = start(tmp_path / "new", "a").folder
    for there in ("outputs/train/a/v001", str(tmp_path / "old/train/a/v001")):
        assert run_folders.of_record(tmp_path / "new", {"run": there}) == run
    assert run_folders.of_record(tmp_path, {"run": str(run)}) == run
    assert run_folders.of_record(tmp_path, None) is None


def test_a_job_of_a_sweep_is_called_by_its_number():
    assert run_folders.title("outputs/train/a/v001") == "a"
    assert run_folders.title("outputs/train/a/v001/3") == "a/v001/3"


def test_a_run_is_alive_only_while_its_process_is(tmp_path):
    run = start(tmp_path, "a")
    assert runs.is_alive(run.folder)
    run.update(host="elsewhere")
    assert not runs.is_alive(run.folder)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    run.update(host=os.uname().nodename, pid=gone.pid)
    assert not runs.is_alive(run.folder)
    run.update(pid=os.getpid())
    run.finish("done")
    assert not runs.is_alive(run.folder)
