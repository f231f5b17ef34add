"""What the first process of a training found, the others have to find too."""

from dataclasses import replace

import pytest

from diffuse import checkpoints
from diffuse.commands.training.beginning import Beginning
from diffuse.commands.training.preparing import Found
from diffuse.data import open_dataset
from diffuse.errors import DataError


@pytest.fixture
def splits():
    return [open_dataset({"name": "digits", "subset": 9}, split) for split in ("train", "test")]


@pytest.fixture
def found(trained, splits):
    checkpoint = checkpoints.at(trained / "checkpoints", 4)
    facts = {"sha256": checkpoints.sha256(checkpoint, "ema")}
    return Found(
        {}, trained, checkpoint, checkpoints.digest(checkpoint),
        Beginning(checkpoint, "ema", facts), tuple(split.sha256 for split in splits),
    )  # fmt: skip


def test_a_process_that_sees_other_files_than_the_first_one_stops(found, splits):
    found.check(*splits)
    with pytest.raises(DataError, match="other images than the first process has"):
        found.check(*reversed(splits))
    with pytest.raises(DataError, match="step_00000004 differs from the one the first process"):
        replace(found, manifest="0" * 64).check(*splits)
    with pytest.raises(DataError, match="is not a whole checkpoint"):
        replace(found, checkpoint=found.checkpoint.with_name("step_00000009")).check(*splits)
    other = replace(found.initial, facts={"sha256": "0" * 64})
    with pytest.raises(DataError, match="holds other weights than a moment ago"):
        replace(found, initial=other).check(*splits)
