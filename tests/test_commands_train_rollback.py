"""A rollback leaves nothing of what it went back behind."""

import json

import pytest

from diffuse import checkpoints, runs

LINE = (
    "train.steps=8 train.save_every=4 train.on_nan=rollback model.dropout=0.1 train.keep=9 "
    "train.eval_every=5 train.eval_n=8 encoder=pixels"
)


@pytest.fixture
def rolled_back(diffuse, poison, tmp_path):
    """A training that found no number at step 6, after a quick FID at step 5."""
    poison({6})
    assert diffuse.train(LINE) == 0, diffuse.err
    return tmp_path / "outputs/train/tiny/v001"


def test_every_checkpoint_after_it_is_of_the_second_time(rolled_back):
    folder = rolled_back / "checkpoints"
    counts = {s: checkpoints.load_state(checkpoints.at(folder, s))["rollbacks"] for s in (4, 5, 8)}
    assert counts == {4: 0, 5: 1, 8: 1}
    assert checkpoints.steps(folder) == [4, 5, 8]


def test_the_best_checkpoint_is_the_one_whose_fid_was_measured(rolled_back, diffuse):
    best = runs.read(rolled_back)["best"]
    rows = [json.loads(line) for line in (rolled_back / "metrics.jsonl").open()]
    assert {"step": best["step"], "fid": best["fid"]} in [
        {"step": row["step"], "fid": row["fid"]} for row in rows if "fid" in row
    ]
    state = checkpoints.load_state(checkpoints.at(rolled_back / "checkpoints", best["step"]))
    assert state["rollbacks"] == 1
    assert diffuse("sample checkpoint=best n=4 steps=2") == 0, diffuse.err


def test_latest_never_leads_to_what_is_deleted(diffuse, poison, tmp_path, monkeypatch):
    seen, real = [], checkpoints._delete

    def delete(folder, gone):
        seen.append((folder / "latest").resolve().name)
        real(folder, gone)
        assert (folder / "latest").exists()

    monkeypatch.setattr(checkpoints, "_delete", delete)
    poison({6})
    assert diffuse.train(LINE) == 0, diffuse.err
    assert "step_00000004" in seen
