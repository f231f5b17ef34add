"""Which trainings a word means, by links, names and sweeps."""

import shutil
from pathlib import Path

import pytest

from diffuse import run_folders, runs
from diffuse.errors import ConfigError


def start(folder):
    folder.mkdir(parents=True)
    runs.Run.start(folder, "train", "", [], name="a")
    return folder


def test_a_name_that_is_a_link_to_another_disk_is_a_name(tmp_path):
    there = start(tmp_path / "disk/mine/v001")
    (tmp_path / "outputs/train").mkdir(parents=True)
    link = tmp_path / "outputs/train/mine"
    link.symlink_to(there.parent)
    for ref in ("mine", "mine/v001", str(link), str(link / "v001")):
        assert run_folders.find(tmp_path / "outputs", ref) == link / "v001"


def test_only_latest_is_followed_wherever_it_stands(tmp_path):
    start(tmp_path / "train/a/v001/0")
    (tmp_path / "train/a/latest").symlink_to("v001")
    assert run_folders.find(tmp_path, "a/latest/0") == tmp_path / "train/a/v001/0"
    (tmp_path / "train/b").symlink_to("a")
    assert run_folders.find(tmp_path, "b/latest/0") == tmp_path / "train/b/v001/0"


def test_a_sweep_means_all_its_jobs_in_their_order(tmp_path):
    jobs = [start(tmp_path / f"train/a/v001/{k}") for k in range(11)]
    for ref in ("a", "a/v001", str(tmp_path / "train/a/v001")):
        assert run_folders.meant(tmp_path, ref) == jobs
    assert run_folders.meant(tmp_path, "a/v001/3") == [jobs[3]]
    assert run_folders.meant(tmp_path, "b") == []
    assert run_folders.typed(tmp_path, jobs[10]) == "a/v001/10"


def test_where_one_run_is_wanted_a_sweep_is_refused_with_what_could_be_done(tmp_path):
    for k in range(25):
        start(tmp_path / f"train/a/v001/{k}")
    with pytest.raises(ConfigError) as caught:
        run_folders.find(tmp_path, "a", "add --multirun to do all, or ")
    assert str(caught.value) == (
        "run: a is a sweep of 25 jobs: add --multirun to do all, or name one: run=a/v001/0"
    )


def test_latest_that_a_copy_has_made_a_folder_means_the_newest_version(tmp_path):
    start(tmp_path / "train/a/v001")
    shutil.copytree(start(tmp_path / "train/a/v002"), tmp_path / "train/a/latest")
    assert run_folders.find(tmp_path, "a/latest") == tmp_path / "train/a/v002"
    assert run_folders.find(tmp_path, "a") == tmp_path / "train/a/v002"


def test_a_name_may_be_the_path_of_its_folder_however_it_is_spelled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for version in ("v001", "v002"):
        Path(f"outputs/train/a/{version}/checkpoints").mkdir(parents=True)
    Path("elsewhere").mkdir()
    outputs = Path("outputs")
    Path("outputs/eval/a/v001").mkdir(parents=True)
    words = ("a", "outputs/train/a", "./outputs/train/a/", "elsewhere/../outputs/train/a")
    for word in (*words, str(tmp_path / "outputs/train/a"), f"../{tmp_path.name}/outputs/train/a"):
        [found] = run_folders.meant(outputs, word)
        assert found.samefile("outputs/train/a/v002"), word
    assert run_folders.meant(outputs, "outputs/train") == []
    runs.Run.start(Path("outputs/eval/a/v001"), "eval", "", [], name="a")
    assert run_folders.meant(outputs, "outputs/eval/a") == []
