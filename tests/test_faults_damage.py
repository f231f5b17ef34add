"""A flipped bit or a missing end in any file of a checkpoint: found, named, passed over."""

import json
import random
import shutil
import time

import pytest
import torch
from injected import flip

from diffuse import checkpoints, files, restored, runs
from diffuse.errors import DataError


def make(folder):
    tensors = {"w": torch.arange(8.0)}
    return checkpoints.save(folder, 1, {"model": tensors}, {"step": 1})


@pytest.mark.parametrize("name", ["MANIFEST.json", "state.json", "model.safetensors"])
def test_a_flipped_bit_in_any_byte_is_found(name, tmp_path):
    path = make(tmp_path)
    for byte in range((path / name).stat().st_size):
        bit = 8 * byte + byte % 8
        flip(path / name, bit)
        with pytest.raises(DataError):
            checkpoints.verify(path)
        flip(path / name, bit)
    checkpoints.verify(path)


def test_safetensors_alone_would_load_a_flipped_bit(tmp_path):
    """The control: the format has no checksum."""
    path = make(tmp_path)
    size = (path / "model.safetensors").stat().st_size
    flip(path / "model.safetensors", 8 * size - 2)
    loaded = checkpoints.load_tensors(path, "model")["w"]
    assert not torch.equal(loaded, torch.arange(8.0))


def moved(path):
    """To another disk, with a link to where it is now."""
    path.symlink_to(shutil.move(path, path.parents[1] / f"other {time.monotonic_ns()}"))


def lost(path):
    moved(path)
    shutil.rmtree(path.readlink())


def a_file(path):
    shutil.rmtree(path)
    path.write_text("what a broken disk says")


@pytest.mark.parametrize("change", [moved, lost, a_file])
def test_in_place_of_a_link_or_a_file_a_checkpoint_is_saved_and_either_is_deleted(change, tmp_path):
    folder = tmp_path / "checkpoints"
    path = make(folder)
    (path / "state.json").write_bytes(b"")
    change(path)
    assert make(folder) == path
    assert not path.is_symlink()
    checkpoints.verify(path)
    change(path)
    checkpoints.save(folder, 2, {}, {})
    checkpoints.purge(folder, keep=1)
    assert sorted(p.name for p in folder.iterdir()) == ["latest", "step_00000002"]
    others = [len([*other.iterdir()]) for other in tmp_path.glob("other *")]
    assert others == ([3, 3] if change is moved else [])  # what was linked to stays


@pytest.mark.parametrize("text", ["{}", "[]", "null", "7", '{"state.json": 3}', "\xff", ""])
def test_a_manifest_that_says_nothing_is_none(text, tmp_path):
    path = make(tmp_path)
    (path / "MANIFEST.json").write_bytes(text.encode("latin1"))
    with pytest.raises(DataError, match=r"no readable MANIFEST\.json"):
        checkpoints.verify(path)


TENSORS = ["model.safetensors", "ema.safetensors", "optimizer.safetensors"]
ALL = [*TENSORS, "state.json", "MANIFEST.json"]


@pytest.mark.parametrize("name", ALL)
def test_auto_falls_back_and_names_the_file_and_an_explicit_checkpoint_is_exit_3(
    name, tiny, trained, diffuse
):
    newest = trained / "checkpoints/step_00000004"
    flip(newest / name, random.Random(name).randrange(8 * (newest / name).stat().st_size))
    message = diffuse.error("sample run=tiny checkpoint=4 n=1 steps=1 device=cpu", 3)
    assert str(newest.relative_to(trained.parents[3])) in message
    assert name in message or name == "MANIFEST.json"
    assert diffuse.train("train.steps=5 resume=auto") == 0
    assert f"{newest.name}" in diffuse.err
    assert "looking for an older checkpoint" in diffuse.err
    steps = [json.loads(line)["step"] for line in (trained / "metrics.jsonl").open()]
    assert set(steps) >= {1, 2, 3, 4, 5}
    assert runs.read(trained)["step"] == 5


@pytest.mark.parametrize("lines", [0, 3, 20, 40])
@pytest.mark.parametrize("command", ["train {tiny} train.steps=5 resume=auto", "sample run=tiny"])
def test_a_config_that_is_cut_at_the_end_of_a_line_is_named(lines, command, trained, diffuse, tiny):
    path = trained / "config.yaml"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:lines]))
    said = diffuse.error(command.format(tiny=tiny), 3)
    assert "config.yaml is damaged" in said


EDITED = {"lr: 0.001": "lr: 0.003", "range: [-1.0, 1.0]": "range: [-3.0, 1.0]"}


@pytest.mark.parametrize("word", EDITED)
@pytest.mark.parametrize("command", ["train resume=tiny train.steps=5", "sample run=tiny n=1"])
def test_a_config_that_was_edited_is_refused_and_one_of_before_it_was_sealed_is_not(
    word, command, trained, diffuse
):
    path = trained / "config.yaml"
    whole, before = path.read_text(), (trained / "run.json").read_bytes()
    assert word in whole
    path.write_text(whole.replace(word, EDITED[word]))
    assert f"{path.name} is damaged, or was edited" in diffuse.error(command, 3)
    assert (trained / "run.json").read_bytes() == before
    for text in (f"{whole}\n", whole.partition("\n")[2]):
        path.write_text(text)
        assert diffuse(command) == 0, diffuse.err


def test_a_flipped_bit_in_a_config_is_found_or_changes_nothing(trained):
    """Those of its first lines, each, and one of seven after them; of a mark that is hurt, none."""
    path = trained / "config.yaml"
    whole, size = restored.config_of(trained), path.stat().st_size
    places = [*range(100), *range(100, size, 7)]
    found = 0
    for byte in places:
        flip(path, bit := 8 * byte + byte % 8)
        try:
            changed = restored.config_of(trained)
        except DataError:
            found += 1
        else:
            assert changed == whole
        flip(path, bit)
    assert found >= len(places) - len(files.SEAL)


def test_without_its_first_line_another_learning_rate_would_be_taken(trained):
    """The control: a yaml has no checksum."""
    path = trained / "config.yaml"
    path.write_text(path.read_text().partition("\n")[2].replace("lr: 0.001", "lr: 0.003"))
    assert restored.saved_config(trained).optimizer.lr == 0.003


@pytest.mark.parametrize("lines", [1, 10, 60])
def test_a_config_whose_last_lines_are_cut_off_is_named(lines, trained):
    path = trained / "config.yaml"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-lines]))
    with pytest.raises(DataError, match=r"config\.yaml is damaged"):
        restored.saved_config(trained)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_a_file_that_is_cut_is_named_and_the_older_checkpoint_is_the_newest(
    share, name, trained, caplog
):
    folder = trained / "checkpoints"
    path = folder / "step_00000004" / name
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert checkpoints.newest(folder) == folder / "step_00000002"
    [said] = [record.getMessage() for record in caplog.records]
    assert name in said
    assert said.endswith("looking for an older checkpoint")


def test_a_damaged_row_or_run_json_stops_nobody(trained, diffuse):
    path = trained / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": null}\n{"step": "8"}\n\xff{"st')
    other = trained.parent / "v002"
    other.mkdir()
    (other / "run.json").write_bytes(b'\xff{"schema": 1}')
    assert diffuse.train("train.steps=5 resume=tiny/v001") == 0
    assert [json.loads(line) for line in path.open()][-1]["step"] == 5


@pytest.mark.parametrize("content", ["null", "[]", "7", '{"started": null}'])
def test_a_run_json_that_is_no_table_hides_no_other_run(content, trained, diffuse):
    other = trained.with_name("v002")
    (other / "checkpoints").mkdir(parents=True)
    (other / "run.json").write_text(content)
    assert diffuse("sample n=1 steps=1 device=cpu") == 0, diffuse.err
    assert diffuse.train("train.steps=5 resume=auto") == 0, diffuse.err
    assert runs.read(trained)["step"] == 5


@pytest.mark.parametrize(
    ("damage", "resume", "steps"),
    [
        (b"", "auto", 5), (b'{"schema": 1, "na', "auto", 4), (None, "auto", 4),
        (None, "auto", 5), (b"", "tiny/v001", 5), (b"[]", "auto", 5),
    ],
)  # fmt: skip
def test_whole_checkpoints_are_of_use_without_a_whole_run_json(
    damage, resume, steps, trained, diffuse
):
    path = trained / "run.json"
    before = runs.read(trained)
    path.unlink() if damage is None else path.write_bytes(damage)
    assert diffuse.train(f"train.steps={steps} resume={resume}") == 0, diffuse.err
    assert "run.json is damaged or gone: it begins anew" in diffuse.err
    after = runs.read(trained)
    assert (after["status"], after["step"], after["seed"]) == ("done", steps, before["seed"])
    assert after["images_seen"] == steps * 16
    if steps == 5:
        assert after.keys() >= before.keys() - {"best"}
    else:
        assert diffuse.train("train.steps=4 resume=auto") == 0
        assert "has 4 steps, 4 are asked for" in diffuse.out
    assert not trained.with_name("v002").exists()


def test_images_seen_count_batches_of_another_size_without_a_whole_run_json(tiny, trained, diffuse):
    (trained / "run.json").unlink()
    line = f"train {tiny} train.steps=4 resume=auto train.batch=8 resume.allow=[train.batch]"
    assert diffuse(line) == 0, diffuse.err
    assert runs.read(trained)["images_seen"] == 4 * 16
