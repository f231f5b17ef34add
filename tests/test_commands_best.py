"""The best checkpoint of a training: the one with the lowest quick FID of one kind."""

import json

import pytest
from leftovers import rows

from diffuse import runs


def test_the_best_checkpoint_begins_anew_where_another_encoder_judges(trained, diffuse):
    line = "train.steps=8 train.eval_every=2 train.eval_n=16 resume=must"
    first = runs.read(trained)["best"]
    assert len(first["encoder"]) == 64
    assert diffuse.train(f"{line} encoder.size=4") == 0
    assert f"the FID of step {first['step']} had a different encoder" in diffuse.err
    assert diffuse.err.count("begins anew") == 1
    best = runs.read(trained)["best"]
    later = {row["step"]: row["fid"] for row in rows(trained) if "fid" in row and row["step"] > 4}
    assert best["encoder"] != first["encoder"]
    assert (best["step"], best["fid"]) == min(later.items(), key=lambda row: row[1])


@pytest.mark.parametrize("word", ["steps=3", "sampler=ddpm", "guidance=2"])
def test_the_best_checkpoint_begins_anew_where_images_are_drawn_otherwise(word, trained, diffuse):
    path, facts = trained / "run.json", runs.read(trained)
    facts["best"]["fid"] = 0.0  # which nothing will reach
    path.write_text(json.dumps(facts))
    line = "train.steps=6 train.eval_every=2 train.eval_n=16 resume=must"
    assert diffuse.train(f"{line} {word}") == 0, diffuse.err
    said = f"begins anew: the FID of step {facts['best']['step']} had a different drawing"
    assert diffuse.err.count(said) == 1
    assert runs.read(trained)["best"]["step"] == 6


def test_the_best_checkpoint_stays_where_the_same_encoder_judges(trained, diffuse):
    path, facts = trained / "run.json", runs.read(trained)
    facts["best"]["fid"] = 0.0  # which nothing will reach
    path.write_text(json.dumps(facts))
    assert diffuse.train("train.steps=6 train.eval_every=2 train.eval_n=16 resume=must") == 0
    assert "begins anew" not in diffuse.err
    assert runs.read(trained)["best"] == facts["best"]
    assert diffuse.train("train.steps=8 train.eval_every=2 train.eval_n=20 resume=must") == 0
    assert "had a different n" in diffuse.err  # fewer images are another FID, too
