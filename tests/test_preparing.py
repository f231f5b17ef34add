"""What the first process of a training found, the others have to find too."""

from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from diffuse import checkpoints
from diffuse.commands.training.beginning import Beginning
from diffuse.commands.training.preparing import Found, follow
from diffuse.data import open_dataset
from diffuse.errors import DataError

DATA = {"name": "digits", "subset": 9}


@pytest.fixture
def splits():
    return [open_dataset(DATA, split) for split in ("train", "test")]


@pytest.fixture
def found(trained, splits):
    checkpoint = checkpoints.at(trained / "checkpoints", 4)
    facts = {"sha256": checkpoints.sha256(checkpoint, "ema")}
    cfg = OmegaConf.create({"trust": [], "device": "cpu", "dataset": DATA})
    return Found(
        cfg, trained, checkpoint, checkpoints.digest(checkpoint),
        Beginning(checkpoint, "ema", facts), tuple(split.sha256 for split in splits),
    )  # fmt: skip


class Told:
    """Another process than the first one, which says what it has found."""

    def __init__(self, found):
        self.found = found

    def agree(self, value):
        return self.found


def test_a_process_that_sees_other_files_than_the_first_one_stops(found, splits):
    found.check(*splits)
    others = {
        "other images than the first process has": {"data": found.data[::-1]},
        "step_00000004 differs from the one the first process": {"manifest": "0" * 64},
        "is not a whole checkpoint": {"checkpoint": found.checkpoint.with_name("step_00000009")},
        "holds other weights than a moment ago": {
            "initial": replace(found.initial, facts={"sha256": "0" * 64})
        },
    }
    for error, changes in others.items():
        with pytest.raises(DataError, match=error):
            follow(lambda changes=changes: Told(replace(found, **changes)))
