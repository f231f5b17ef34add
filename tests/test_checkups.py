"""A quick FID stands beside that of as many real images."""

import pytest
from leftovers import rows

from diffuse.checkups import Checkup
from diffuse.metrics import fid
from diffuse.scoring import real


def test_what_real_images_score_is_the_same_each_time_and_nothing_where_they_are_too_few(
    make_training, images, law, make_plan, judge
):
    checkup = Checkup(make_training(), images, law, make_plan(), by_class=True)
    first, again, fewer = (checkup.score(judge, n).floor for n in (24, 24, 16))
    assert first == again != fewer
    assert first == pytest.approx(fid(real(judge, 24).floor.features, judge.reference))
    assert [checkup.score(judge, n).floor is None for n in (40, 41)] == [False, True]  # 40 there


def test_it_is_the_floor_of_an_evaluation_of_as_many(trained, diffuse):
    record = diffuse.json("eval n=16 steps=2 device=cpu metrics=fid")
    found = [row["fid_real"] for row in rows(trained) if "fid" in row]
    assert found == [pytest.approx(record["fid"]["floor"])] * 2


def test_a_row_has_none_where_the_training_images_are_fewer(diffuse, tmp_path):
    words = "train.steps=1 train.sample_every=null train.eval_every=1"
    assert diffuse.train(f"{words} train.eval_n=65") == 0, diffuse.err  # 64 there
    [row] = [row for row in rows(tmp_path / "outputs/train/tiny/v001") if "fid" in row]
    assert row["eval_n"] == 65
    assert "fid_real" not in row
