"""What `resume=` takes: the checkpoint that is named or none, the newest whole one with `auto`."""

import json
import os
import shutil
from pathlib import Path

import pytest
from injected import flip
from leftovers import RUN, what_is_left
from omegaconf import OmegaConf
from PIL import Image

from diffuse import checkpoints, runs

NEWEST = f"{RUN}/checkpoints/step_00000004"


def damage(run, *steps):
    for step in steps:
        flip(checkpoints.at(run / "checkpoints", step) / "optimizer.safetensors", 4321)


def everything(run):
    return {p.relative_to(run): p.read_bytes() for p in run.rglob("*") if p.is_file()}


SLOW = [
    pytest.param(word, marks=pytest.mark.slow) for word in ("tiny/v001", "tiny@4", "tiny/latest")
]


@pytest.mark.parametrize("named", ["tiny", RUN, NEWEST, *SLOW])
@pytest.mark.parametrize("key", ["resume", "name=second init_from"])
def test_a_run_or_checkpoint_that_is_named_and_damaged_is_exit_3(
    key, named, tiny, trained, diffuse
):
    damage(trained, 4)
    before = everything(trained)
    message = diffuse.error(f"train {tiny} train.steps=6 {key}={named}", code=3)
    assert f"{NEWEST}/optimizer.safetensors is damaged" in message
    assert ("resume=auto would go on from step_00000002" in message) == (key == "resume")
    assert everything(trained) == before
    assert not trained.parents[1].joinpath("second").exists()


@pytest.mark.slow
@pytest.mark.parametrize("named", [NEWEST, f"{NEWEST}/", "tiny/v001/checkpoints/latest", "tiny@4"])
def test_the_newest_checkpoint_can_be_named_and_is_the_same_as_its_run(named, trained, diffuse):
    other = trained.with_name("v002")
    shutil.copytree(trained, other, symlinks=True)
    assert diffuse.train(f"train.steps=6 resume={named.replace('tiny@4', 'tiny/v001@4')}") == 0
    assert diffuse.train("train.steps=6 resume=tiny/v002") == 0
    assert what_is_left(trained) == what_is_left(other)


@pytest.mark.slow
def test_an_older_checkpoint_is_continued_only_if_all_newer_ones_are_damaged(
    tiny, trained, diffuse
):
    before, older = everything(trained), NEWEST.replace("4", "2")
    message = diffuse.error(f"train {tiny} train.steps=6 resume={older}")
    assert "is not the newest checkpoint of its run, step_00000004 is" in message
    assert f"init_from={older} begins a new run with it" in message
    assert "has no checkpoint 3; choices: 2, 4" in diffuse.error(f"train {tiny} resume=tiny@3")
    assert everything(trained) == before
    assert diffuse.train(f"train.steps=6 name=second init_from={older}") == 0
    assert runs.read(trained.parents[1] / "second/v001")["init_from"]["step"] == 2
    damage(trained, 4)
    assert diffuse.train(f"train.steps=6 resume={older}") == 0
    steps = [json.loads(row)["step"] for row in (trained / "metrics.jsonl").open()]
    assert sorted(set(steps)) == [1, 2, 3, 4, 5, 6]
    checkpoints.verify(checkpoints.at(trained / "checkpoints", 4))


def test_a_run_named_by_its_link_is_the_one_that_the_link_led_to(trained, diffuse):
    assert diffuse.train("train.steps=5 resume=outputs/train/tiny/latest") == 0
    assert f"continuing {RUN}\n" in diffuse.err


def version_without(trained, name, status):
    """A version beside it, without a checkpoint."""
    folder = trained.with_name(name)
    folder.mkdir()
    facts = runs.read(trained) | {"status": status, "pid": 2**22 + 1}
    runs.write_json(folder / "run.json", facts)
    return folder


@pytest.mark.parametrize("resume", ["auto", "must"])
def test_versions_that_cannot_be_continued_are_passed_over_in_one_line(resume, trained, diffuse):
    second = trained.with_name("v002")
    shutil.copytree(trained, second, symlinks=True)
    damage(second, 2, 4)
    version_without(trained, "v010", "diverged")
    assert diffuse.train(f"train.steps=6 resume={resume}") == 0
    (line,) = [line for line in diffuse.err.splitlines() if "continued instead" in line]
    for word in ("v010 has no checkpoint (diverged)", "v002: all of its checkpoints are damaged"):
        assert word in line
    assert runs.read(trained)["step"] == 6
    assert sorted(p.name for p in trained.parent.glob("v*")) == ["v001", "v002", "v010"]


def test_with_nothing_to_continue_it_says_why_and_begins_anew(tiny, trained, diffuse):
    damage(trained, 2, 4)
    message = diffuse.error(f"train {tiny} resume=must", code=3)
    assert "v001: all of its checkpoints are damaged" in message
    assert diffuse.train("train.steps=1 resume=auto") == 0
    assert "v001: all of its checkpoints are damaged): a new run" in diffuse.err
    assert trained.with_name("v002").exists()


def test_a_version_that_is_just_being_trained_is_not_passed_over(tiny, trained, diffuse):
    young = version_without(trained, "v002", "running")
    runs.write_json(young / "run.json", runs.read(young) | {"pid": os.getppid(), "process": ""})
    message = diffuse.error(f"train {tiny} train.steps=6 resume=auto")
    assert "v002 is being trained by another process" in message


FOLDER = "train.sample_every=null dataset=folder dataset.subset=null"


@pytest.fixture
def pictures(tmp_path):
    """Draws some in a folder data set."""

    def draw(count, split):
        for label in "ab":
            (tmp_path / "mine" / split / label).mkdir(parents=True, exist_ok=True)
            for k in range(count):
                path = tmp_path / "mine" / split / label / f"{k}.png"
                Image.new("L", (8, 8), 9 * k + (label == "a")).save(path)

    draw(16, "train")
    draw(8, "test")
    return draw


@pytest.mark.parametrize(
    ("split", "key"),
    [("train", "sha256"), pytest.param("test", "test_sha256", marks=pytest.mark.slow)],
)
def test_other_images_in_the_same_place_are_refused_unless_let_through(
    split, key, pictures, tiny, diffuse, tmp_path
):
    line = f"{tiny} {FOLDER} dataset.root=mine".replace("dataset=digits dataset.subset=64", "")
    assert diffuse(f"train {line} train.steps=2") == 0, diffuse.err
    assert diffuse(f"train {line} train.steps=3 resume=auto") == 0, diffuse.err
    run = tmp_path / RUN
    old = runs.read(run)["data"]
    pictures(21, split)
    before = everything(run)
    message = diffuse.error(f"train {line} train.steps=4 resume=auto")
    assert f"dataset ({key} {old[key][:12]} there, " in message
    assert everything(run) == before
    allow = "resume.allow=[dataset]"
    assert diffuse(f"train {line} train.steps=4 resume=auto {allow}") == 0, diffuse.err
    new = runs.read(run)["data"]
    assert [name for name in ("sha256", "test_sha256") if new[name] != old[name]] == [key]
    assert diffuse(f"train {line} train.steps=5 resume=auto") == 0, diffuse.err


def test_a_run_that_does_not_know_its_images_is_continued(trained, diffuse):
    facts = runs.read(trained)
    del facts["data"]
    runs.write_json(trained / "run.json", facts)
    assert diffuse.train("train.steps=5 resume=auto") == 0
    assert len(runs.read(trained)["data"]["sha256"]) == 64


@pytest.mark.slow
def test_another_number_format_is_another_training_unless_it_is_let_through(tiny, trained, diffuse):
    line = "train.steps=5 resume=auto precision=bf16"
    assert "precision: fp32 there, bf16 here" in diffuse.error(f"train {tiny} {line}")
    assert diffuse.train(f"{line} resume.allow=[precision]") == 0
    assert runs.read(trained)["precision"] == "bf16"
    assert OmegaConf.load(trained / "config.yaml").precision == "bf16"
    assert diffuse.train("train.steps=6 resume=auto precision=auto") == 0
    assert runs.read(trained)["precision"] == "bf16"


def test_minutes_that_a_continued_run_does_not_count_are_said_to_be_ignored(trained, diffuse):
    assert diffuse.train("train.minutes=5 resume=auto") == 0
    assert "train.minutes=5 says how long a new run is; this one keeps its 4 steps" in diffuse.err
    assert "train.steps= extends it" in diffuse.err
    assert runs.read(trained)["step"] == 4


@pytest.mark.slow
def test_a_job_of_a_sweep_falls_back_by_itself(diffuse, tmp_path):
    line = "-m seed=1,2 name=swept"
    assert diffuse.train(f"{line} train.steps=4") == 0
    job = tmp_path / "outputs/train/swept/v001/1"
    damage(job, 4)
    assert diffuse.train(f"{line} train.steps=6 resume=auto") == 0, diffuse.err
    assert "looking for an older checkpoint" in diffuse.err
    assert runs.read(job)["step"] == 6
    assert not job.parent.with_name("v002").exists()


def test_a_copy_that_has_followed_links_is_trained_on(trained, diffuse, tmp_path):
    """`cp -rL`, `scp -r` and shutil.copytree make `latest` a folder."""
    shutil.copytree(tmp_path / "outputs", tmp_path / "copy")
    name = tmp_path / "copy/train/tiny"
    links = name / "latest", name / "v001/checkpoints/latest"
    assert all(link.is_dir() and not link.is_symlink() for link in links)
    assert diffuse.train("train.steps=6 resume=auto outputs=copy") == 0, diffuse.err
    assert "checkpoints/latest was a copied folder, not a link" in diffuse.err
    assert links[1].readlink() == Path("step_00000006")
    assert diffuse.train("train.steps=2 outputs=copy") == 0, diffuse.err
    assert links[0].readlink() == Path("v002")
    assert checkpoints.newest(name / "latest-copied-1/checkpoints").name == "step_00000004"


def test_a_damaged_sum_of_the_images_in_run_json_does_not_keep_the_same_images_out(
    trained, diffuse
):
    facts = runs.read(trained)
    facts["data"]["sha256"] = facts["data"]["sha256"].replace("a", "b")
    runs.write_json(trained / "run.json", facts)
    assert diffuse.train("train.steps=5 resume=auto") == 0, diffuse.err
    assert (
        runs.read(trained)["data"]["sha256"]
        == checkpoints.load_state(checkpoints.at(trained / "checkpoints", 5))["data"]["sha256"]
    ), "it is mended, too"
