"""No room on the disk: exit 5 with the path and the bytes, and what was there stays."""

import io
import json
import re
from types import SimpleNamespace

import matplotlib.font_manager  # noqa: F401 (else it would write its cache without room)
import numpy as np
import pytest
import torch
from injected import everything_in, without_room
from PIL import Image

from diffuse import checkpoints, cli, files, plots, runs
from diffuse.commands.drawing import saving
from diffuse.errors import NoSpaceError
from diffuse.plots import fid_trajectory, figures, trajectory

NOISE = torch.randint(0, 256, (64, 1, 8, 8), dtype=torch.uint8)
ROOM = 500  # bytes
POINT = SimpleNamespace(step=1, sigma=9.5, calls=1, denoised=(2.0, 1.0, 3.0), x=(2.0, 1.0, 3.0))
ROW = dict.fromkeys(trajectory.COLUMNS, 1.5)


def picture():
    return plots.grid(NOISE)


def sheet(folder):
    return figures.sheet(folder / "sheet", NOISE.view(8, 8, 1, 8, 8), "a title", [""] * 8)


KNOWS_CLASSES = SimpleNamespace(conditional=True, of_classes=True)


def result():
    labels = torch.zeros(64, dtype=torch.int64)
    return saving.Result(NOISE, labels, 1.0, 1.0, "", drawn=1, known=0, rate=None)


WRITERS = {
    "grid.png": lambda folder: plots.save(picture(), folder / "grid.png"),
    "walk.gif": lambda folder: plots.images.animation([picture()] * 3, 3, folder / "walk.gif"),
    "sheet.png": sheet,
    "fid_trajectory.csv": lambda folder: fid_trajectory.table([POINT] * 50, folder),
    "trajectory.csv": lambda folder: trajectory.table(SimpleNamespace(rows=[ROW] * 50), folder),
    "images.npy": lambda folder: saving.save(folder, "npy", KNOWS_CLASSES, result()),
    "images.npz": lambda folder: saving.save(folder, "npz", KNOWS_CLASSES, result()),
    "record.json": lambda folder: runs.write_json(folder / "record.json", ["x" * 1000]),
    "metrics.jsonl": lambda folder: runs.Run(folder).log(step=1, text="x" * 1000),
    "config.yaml": lambda folder: runs.Run.start(folder, "train", "x" * 1000, []),
    "step_00000001": lambda folder: checkpoints.save(folder, 1, {"w": {"w": NOISE}}, {}),
}


@pytest.mark.parametrize("name", WRITERS)
def test_whatever_has_no_room_is_named_with_its_bytes_and_no_half_file_stays(name, tmp_path):
    folder, said = tmp_path / "run", tmp_path / "said"
    folder.mkdir()

    def write():
        try:
            WRITERS[name](folder)
        except NoSpaceError as error:
            print(error)
            return error.exit_code

    assert without_room(ROOM, write, said) == 5, said.read_text()
    [size] = re.findall(rf"no space for .*{re.escape(name)} \(([\d,]+) bytes\)", said.read_text())
    assert int(size.replace(",", "")) > ROOM
    left = {} if name == "metrics.jsonl" else everything_in(folder)  # a half line is cut off later
    assert left == {}


def test_libraries_left_alone_would_hide_a_full_disk(tmp_path):
    """The control: without our own writing some of these errors say nothing of room."""
    hidden = []
    for write in (
        lambda path: np.save(path.with_suffix(".npy"), NOISE.numpy()),
        lambda path: Image.effect_noise((64, 64), 9).save(path, "GIF"),
    ):

        def child(write=write):
            try:
                write(tmp_path / "file.gif")
            except OSError as error:
                return 5 if error.errno in files.FULL else 6

        hidden.append(without_room(ROOM, child))
    assert 6 in hidden
    buffer = io.BytesIO()
    np.save(buffer, NOISE.numpy())
    assert len(buffer.getvalue()) > ROOM


@pytest.mark.parametrize("room", [200, 3_000, 40_000, 120_000])
def test_a_training_without_room_keeps_what_it_has_and_goes_on_when_there_is_some(
    room, tiny, diffuse, tmp_path
):
    assert diffuse.train("train.steps=2") == 0
    run = tmp_path / "outputs/train/tiny/v001"
    before = everything_in(run / "checkpoints/step_00000002")
    words = f"train {tiny} train.steps=4 resume=auto".split()
    said = tmp_path / "said"
    assert without_room(room, lambda: cli.main(words), said) == 5
    [line] = [x for x in said.read_text().splitlines() if x.startswith("error: ")]
    assert re.search(r"no space for outputs/train/tiny/v001\S* \([\d,]+ bytes\)", line)
    assert "Traceback" not in said.read_text()
    assert everything_in(run / "checkpoints/step_00000002") == before
    assert checkpoints.newest(run / "checkpoints").name == "step_00000002"
    assert not list(run.rglob(".*"))
    assert diffuse(" ".join(words)) == 0
    assert runs.read(run)["step"] == 4
    rows = [json.loads(line)["step"] for line in (run / "metrics.jsonl").open()]
    assert rows == sorted(rows)


@pytest.mark.parametrize(
    ("line", "room", "name"),
    [
        # its grid has 100 images, a shard 64
        ("sample save=npz n=512", 24_000, "images.npz"),
        ("sample n=4", 200, "config.yaml"),
        ("eval encoder=pixels n=16", 200, "config.yaml"),
    ],
)
def test_a_command_without_room_says_which_file(line, room, name, trained, tmp_path):
    said = tmp_path / "said"
    words = f"{line} steps=2 device=cpu".split()
    code = without_room(room, lambda: cli.main(words), said)
    assert code == 5, said.read_text()
    assert re.search(rf"error: no space for \S+/{name} \([\d,]+ bytes\)", said.read_text())


PICTURES = {
    "eval n=16 steps=2 metrics=[fid,memorisation]": "neighbours.png",
    "eval images=theirs.npy dataset=digits metrics=[fid,memorisation]": "neighbours.png",
    "pareto n=8 batch=8 samplers=[ddim] nfe=[2]": "pareto.png",
}


@pytest.mark.parametrize("line", PICTURES)
def test_a_picture_without_room_costs_no_number(line, trained, tmp_path):
    """Nothing else is larger than 7,000 bytes."""
    said = tmp_path / "said"
    np.save(tmp_path / "theirs.npy", NOISE[:20, 0].numpy())
    words = f"{line} encoder=pixels device=cpu".split()
    assert without_room(7_000, lambda: cli.main(words), said) == 5, said.read_text()
    assert re.search(rf"error: no space for \S+/{PICTURES[line]} \(", said.read_text())
    [path] = (tmp_path / "outputs" / line.split()[0]).glob("*/v001/record.json")
    assert {"fid", "cells"} & json.loads(path.read_text()).keys()
    assert runs.read(path.parent)["status"] == "failed"
