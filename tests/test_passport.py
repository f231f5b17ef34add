"""A passport tells figures that may be compared from those that may not."""

import copy
import json
import math

import pytest
from records import RECORD, SHA

from diffuse import evaluations, passport, runs
from diffuse.errors import DataError
from diffuse.passport import NOTED, SAME, TRIED, differing, fields, role


def planted(field):
    """The record with another value in one field."""
    other = copy.deepcopy(RECORD)
    *path, last = field.split(".")
    node = other
    for key in path:
        node = node[key]
    node[last] = "something else"
    return other


def of_role(wanted):
    return [field for field in fields(RECORD) if role(field) == wanted]


MUST = {
    "n", "encoder.sha256", "encoder.layer", "encoder.features", "encoder.size", "encoder.channels",
    "encoder.filter", "encoder.range", "encoder.rounding", "reference.split", "reference.n",
    "reference.sha256", "reference.range", "seeds.count", "sampler.label", "size",
}  # fmt: skip


def test_the_fields_that_make_figures_incomparable_are_these_and_no_others():
    assert set(of_role(SAME)) == MUST


@pytest.mark.parametrize("field", sorted(MUST))
def test_a_mismatch_planted_in_one_of_them_is_named_with_both_values(field):
    [found] = differing([RECORD, planted(field)], SAME)
    assert found.field == field
    assert found.values == (fields(RECORD)[field], "something else")
    assert field in str(found)
    assert "something else" in str(found)


@pytest.mark.parametrize("field", of_role(TRIED) + of_role(NOTED))
def test_what_may_be_compared_or_is_only_noted_is_no_mismatch(field):
    records = [RECORD, planted(field)]
    assert differing(records, SAME) == []
    assert [found.field for found in differing(records, role(field))] == [field]


def test_what_one_changes_between_runs_may_be_what_is_compared():
    tried = {
        "weights.sha256", "weights.step", "weights.decay", "sampler.steps", "sampler.name",
        "sampler.options.eta", "sampler.grid.name", "sampler.clip", "sampler.guidance",
        "sampler.start", "sampler.nfe", "range", "dtype", "seeds.seed", "real.sha256",
    }  # fmt: skip
    assert tried <= set(of_role(TRIED))
    assert {"device", "revision", "versions.torch", "seconds"} <= set(of_role(NOTED))


def test_a_field_that_nobody_has_thought_about_must_be_the_same():
    new = {**RECORD, "phase_of_the_moon": "full"}
    newer = {**RECORD, "phase_of_the_moon": "new"}
    [found] = differing([new, newer], SAME)
    assert str(found) == "phase_of_the_moon is full and new"


def test_every_mismatch_of_many_records_is_found():
    other = planted("n")
    other["encoder"]["filter"] = "nearest"
    found = differing([RECORD, RECORD, other], SAME)
    assert [(one.field, one.values[2]) for one in found] == [
        ("n", "something else"), ("encoder.filter", "nearest")
    ]  # fmt: skip


def test_the_numbers_themselves_are_no_field():
    other = copy.deepcopy(RECORD)
    other["fid"]["value"] = 99.0
    other["metrics"] = {"precision": {"value": 0.5}}
    assert fields(other) == fields(RECORD)


def test_a_record_comes_back_from_its_file_as_it_was(tmp_path):
    (tmp_path / "record.json").write_text(json.dumps(RECORD))
    assert evaluations.read(tmp_path) == RECORD
    assert differing([evaluations.read(tmp_path), RECORD], SAME) == []


def test_what_has_no_end_is_null_in_a_file(tmp_path):
    record = RECORD | {"sampler": RECORD["sampler"] | {"churn_max": math.inf}}
    runs.write_json(tmp_path / "record.json", record)
    assert evaluations.read(tmp_path)["sampler"]["churn_max"] is None


def test_what_was_not_recorded_is_no_mismatch_but_is_said():
    foreign = copy.deepcopy(RECORD)
    del foreign["sampler"]
    foreign["source"] = {"path": "theirs.npz", "sha256": SHA["net"]}
    assert differing([RECORD, foreign], SAME) == []
    assert passport.unrecorded([RECORD, foreign]) == ["sampler.label"]


BAD = {
    '{"n": 4': "is damaged",
    "[" * 100_000: "is damaged",
    "[1, 2]": "no record",
    '{"n": 4}': "no record",
    '{"schema": 3, "n": 4, "encoder": {}}': "schema 3",
}


@pytest.mark.parametrize(("text", "words"), BAD.items())
def test_a_damaged_record_is_named(text, words, tmp_path):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(DataError, match=words):
        evaluations.read(tmp_path)


WRONG = {
    "schema": "2", "n": 20.5, "encoder": "x", "encoder.sha256": None, "reference": [], "seeds": 3,
    "seeds.count": "3", "weights": [1], "weights.step": "100", "fid": 1.0, "fid.value": "x",
    "fid.ci95": [1.0], "fid.floor": True, "kid.ci95": ["a", "b"], "metrics": [], "settings": "x",
    "images_per_second": "fast", "fid.jackknife": [1.0, None], "kid.floor_ci95": [2.0, 1.0],
    "kid.real_reach": "x", "warnings": None,
    "reference.sha256": None, "kid.per_seed_ci95": [[2.0, 1.0]],
}  # fmt: skip


@pytest.mark.parametrize("field", WRONG)
def test_a_field_of_another_kind_is_named_with_its_file(field, tmp_path):
    damaged = planted(field)
    *path, last = field.split(".")
    node = damaged
    for key in path:
        node = node[key]
    node[last] = WRONG[field]
    (tmp_path / "record.json").write_text(json.dumps(damaged))
    with pytest.raises(DataError, match=rf"record\.json is damaged: {field} must be ") as caught:
        evaluations.read(tmp_path)
    assert "\n" not in str(caught.value)


LACKING = ["fid", "fid.value", "fid.ci95", "encoder.name", "reference", "seeds.count"]
LACKING.append("reference.sha256")


@pytest.mark.parametrize("field", [*LACKING, "weights.run", "weights.step"])
def test_a_field_that_is_not_there_is_named(field, tmp_path):
    damaged = copy.deepcopy(RECORD)
    *path, last = field.split(".")
    del (damaged[path[0]] if path else damaged)[last]
    (tmp_path / "record.json").write_text(json.dumps(damaged))
    with pytest.raises(DataError, match=f"it has no {field}"):
        evaluations.read(tmp_path)


@pytest.mark.parametrize(("ends", "damaged"), [([50, 40], True), ([40, 40], False)])
def test_an_interval_that_ends_before_it_begins_is_none(ends, damaged, tmp_path):
    record = RECORD | {"fid": RECORD["fid"] | {"value": 40.0, "ci95": ends}}
    (tmp_path / "record.json").write_text(json.dumps(record))
    if damaged:
        with pytest.raises(DataError, match=r"fid\.ci95 must be two numbers, the lower one first"):
            evaluations.read(tmp_path)
    else:
        assert evaluations.read(tmp_path) == record


@pytest.mark.parametrize("score", [{"per_seed": [1.0]}, {"per_seed": [1.0, "b"]}])
def test_a_number_of_a_metric_is_looked_at_as_well(score, tmp_path):
    ends = {"value": 1.0, "ci95": [0.0, 2.0], "per_seed_ci95": [[0.0, 2.0], [0.0, 2.0]]}
    (tmp_path / "record.json").write_text(json.dumps(RECORD | {"metrics": {"gap": ends | score}}))
    with pytest.raises(DataError, match="gap"):
        evaluations.read(tmp_path)


def test_a_front_of_samplers_is_no_evaluation(tmp_path):
    front = {key: value for key, value in RECORD.items() if key != "fid"} | {"cells": [{"nfe": 5}]}
    (tmp_path / "record.json").write_text(json.dumps(front))
    with pytest.raises(DataError, match="holds no evaluation: it is a run of diffuse pareto"):
        evaluations.read(tmp_path)


def test_a_folder_without_a_record_is_named(tmp_path):
    with pytest.raises(DataError, match="holds no evaluation"):
        evaluations.read(tmp_path)


def test_what_only_one_has_is_listed_although_it_is_a_table():
    guided = {"weight": 2.0, "weak": {"weights": "10%", "step": 64}}
    pair = [{"sampler": {"name": "ddim", "guidance": guidance}} for guidance in (guided, None)]
    found = {one.field: one.values for one in passport.differing(pair, passport.TRIED)}
    assert found == {
        "sampler.guidance.weight": (2.0, None),
        "sampler.guidance.weak.weights": ("10%", None),
        "sampler.guidance.weak.step": (64, None),
    }
    assert passport.differing([pair[1], pair[1]], passport.TRIED) == []
    assert passport.differing([pair[0], {"sampler": {"name": "ddim"}}], passport.TRIED) == []
