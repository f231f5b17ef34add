"""Images led away from what is early and not told the class, and when `guide=auto` means that."""

import pytest

from diffuse.cli import arguments, composing
from diffuse.commands import guiding


def test_a_training_keeps_the_checkpoint_that_leads_it_without_labels(diffuse, monkeypatch):
    monkeypatch.setattr(guiding, "FIRST", 0)
    assert diffuse.train("train.steps=8 train.keep=1 guidance=2 guide=early+labels") == 0
    seen = {}
    for guide in ("", "guide=early", "guide=4+labels", "guide=labels", "guide=ema+labels"):
        facts = diffuse.json(f"sample n=4 steps=2 device=cpu {guide}")
        seen[guide] = facts["fingerprint"]
        assert facts["nfe"] == 4
    assert seen[""] == seen["guide=4+labels"]
    assert seen["guide=labels"] == seen["guide=ema+labels"]
    assert len({*seen.values()}) == 3


@pytest.mark.parametrize(
    ("words", "steps", "guide"),
    [
        ("guide=auto", 1599, "early+labels"), ("guide=auto", 1600, "early"), ("guide=1%", 9, "1%"),
        ("guide=auto train.label_dropout=0", 900, "early"),
        ("guide=auto model.conditional=false", 900, "early"),
    ],
)  # fmt: skip
def test_auto_leaves_out_the_label_of_what_does_not_train_for_long(words, steps, guide):
    parsed = arguments.parse("train", ["guidance=2", *words.split()])
    cfg = composing.finished("train", composing.compose("train", parsed))
    assert guiding.settled(cfg, cfg, steps) == guide


def test_the_record_says_what_auto_meant(diffuse):
    assert diffuse.train("train.steps=8 train.keep=1 guidance=2 guide=auto dry_run=true") == 0
    assert "2, away from early+labels" in diffuse.out
    assert diffuse.train("train.steps=8 train.keep=1 guidance=2 guide=auto") == 0, diffuse.err
    drawn = diffuse.json("sample n=4 steps=2 device=cpu")["sampler"]["guidance"]["weak"]
    assert (drawn["weights"], drawn["step"]) == ("early+labels", 4)
    asked = diffuse.json("sample n=4 steps=2 device=cpu guide=early+labels")
    assert asked["sampler"]["guidance"]["weak"] == drawn
