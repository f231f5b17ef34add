"""SIGKILL, for real, at every call that a save or a start makes to the system."""

import json
import os
import shutil
import signal

import pytest
import torch
import yaml
from hydra.core.hydra_config import HydraConfig
from injected import every_kill, killed_at
from leftovers import undisturbed, what_is_left
from PIL import Image

from diffuse import checkpoints, cli, files, run_folders
from diffuse.cli import arguments, composing
from diffuse.errors import DataError


def save(folder, step):
    tensors = {"w": torch.full((50,), float(step))}
    return checkpoints.save(folder, step, {"model": tensors}, {"step": step})


def save_and_purge(folder):
    save(folder, 2)
    checkpoints.purge(folder, keep=1)


def in_place(folder):
    """A control: no temporary folder."""
    path = save(folder.parent / f"{folder.name} other", 2)
    (folder / path.name).mkdir()
    for file in sorted(path.iterdir(), key=lambda file: file.name != checkpoints.MANIFEST):
        with open(folder / path.name / file.name, "wb") as copy:
            copy.write(file.read_bytes())


def purge_and_save(folder):
    """A control: room is made before it is needed."""
    shutil.rmtree(checkpoints.at(folder, 1))
    save(folder, 2)


def bad_states(act, tmp_path):
    """The kills of a save after step 1 that leave less than they should; and how many there are."""
    bad = []

    def prepare(call):
        save(tmp_path / str(call), 1)
        return tmp_path / str(call)

    def look(folder):
        try:
            newest = checkpoints.newest(folder)
            step = checkpoints.load_state(newest)["step"]
            assert step in (1, 2)
            assert checkpoints.load_tensors(newest, "model")["w"][0] == step
            for there in checkpoints.steps(folder):
                checkpoints.verify(checkpoints.at(folder, there))
            checkpoints.verify((folder / "latest").resolve())
            save(folder, 3)  # the next start goes on
            checkpoints.purge(folder, keep=1)
            assert checkpoints.steps(folder) == [3]
            assert not list(folder.glob(".tmp-*"))
        except (AssertionError, DataError, TypeError) as error:
            bad.append((folder.name, str(error)))

    return bad, every_kill(act, prepare, look)


def test_a_save_killed_at_any_call_leaves_a_whole_checkpoint_and_the_next_start_tidies_up(tmp_path):
    bad, calls = bad_states(save_and_purge, tmp_path)
    assert bad == []
    assert calls > 15


def test_to_purge_before_saving_would_fail_that_proof(tmp_path):
    bad, _ = bad_states(purge_and_save, tmp_path)
    assert bad


def test_a_save_in_place_would_leave_a_newest_folder_that_is_none(tmp_path):
    bad, _ = bad_states(in_place, tmp_path)
    assert bad


def old_or_new(act, tmp_path):
    """What a file says after `act`, which replaces "old" by "new", was killed at any call."""
    seen = set()

    def prepare(call):
        path = tmp_path / str(call)
        path.write_text("old")
        return path

    every_kill(act, prepare, lambda path: seen.add(path.read_text()))
    return seen


def test_a_small_file_killed_while_it_is_replaced_is_the_old_or_the_new_one(tmp_path):
    assert old_or_new(lambda path: files.replace(path, "new"), tmp_path) == {"old", "new"}

    def rewrite(path):
        with open(path, "w") as file:
            os.fsync(file.fileno())  # a moment at which it is empty
            open(os.devnull).close()
            file.write("new")

    (tmp_path / "control").mkdir()
    assert "" in old_or_new(rewrite, tmp_path / "control")


def test_a_link_left_by_a_killed_process_of_our_number_is_in_nobodys_way(tmp_path):
    (tmp_path / "a").mkdir()
    files._beside(tmp_path / "latest").symlink_to("nowhere")
    files.point(tmp_path / "latest", "a")
    assert (tmp_path / "latest").resolve(strict=True) == tmp_path / "a"
    assert len(list(tmp_path.iterdir())) == 2


LINE = "train.steps=4 train.save_every=1 train.keep=1 train.sample_every=3 model.dropout=0.1"
SHORT = "train.steps=2 train.save_every=1 train.keep=1 train.sample_every=2 model.dropout=0.1"


def newest(folder):
    """What is left of the newest training there."""
    return what_is_left(run_folders.latest(folder / "outputs", "train", "tiny"))


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """What a training without a break leaves behind."""
    return undisturbed(f"{tiny} {LINE}", tmp_path_factory.mktemp("whole"))


def kill_and_resume(call, train, folder):
    """Kill a training at a call that names its run folder, then let `resume=auto` finish it."""
    code = killed_at(call, train, "outputs")
    assert code in (0, -signal.SIGKILL)
    every_file_is_whole(folder / "outputs")
    assert train() == 0
    run = run_folders.latest(folder / "outputs", "train", "tiny")
    assert not list(run.rglob(".tmp-*"))
    return code


def every_file_is_whole(folder):
    for path in folder.rglob("config.yaml"):
        assert yaml.load(path.read_text(), yaml.CSafeLoader)["name"] == "tiny"
    for path in folder.rglob("run.json"):
        assert json.loads(path.read_text())["name"] == "tiny"
    for path in folder.rglob("*.png"):
        Image.open(path).load()


@pytest.mark.parametrize("call", [6, 25, 41, 60])
def test_a_training_killed_anywhere_is_finished_to_the_same_bytes(
    call, tiny, whole, diffuse, tmp_path
):
    words = f"train {tiny} {LINE} resume=auto".split()
    assert kill_and_resume(call, lambda: cli.main(words), tmp_path) == -signal.SIGKILL
    assert newest(tmp_path) == whole


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 2])
def test_a_training_killed_at_every_call_is_finished_to_the_same_bytes(
    first, tiny, diffuse, tmp_path, monkeypatch
):
    """The odd ones and the even ones; what is typed is read once for all of them."""
    (tmp_path / "whole").mkdir()
    whole = undisturbed(f"{tiny} {SHORT}", tmp_path / "whole")
    parsed = arguments.parse("train", f"{tiny} {SHORT} resume=auto".split())
    cfg = composing.compose("train", parsed)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", cfg)
    for call in range(first, 400, 2):
        shutil.rmtree(tmp_path / "outputs", ignore_errors=True)
        code = kill_and_resume(
            call, lambda: cli.run_command("train", parsed, cfg, parsed.typed), tmp_path
        )
        assert newest(tmp_path) == whole, call
        if code == 0:
            break
    assert call > 40
