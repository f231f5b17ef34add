"""`diffuse compare`: what may be put side by side is, what may not is refused by name."""

import json

import pytest

from diffuse import runs
from diffuse.metrics import reach_of

LINE = "eval n=24 device=cpu kid_subsets=3 kid_subset_size=10 encoder=pixels"


@pytest.fixture
def evaluated(trained, diffuse):
    """Two evaluations of one training: in 2 steps and in 3."""
    for steps in (2, 3):
        assert diffuse(f"{LINE} steps={steps}") == 0
    return trained.parents[2] / "eval/tiny"


def test_two_evaluations_side_by_side_with_a_verdict_and_what_differs(evaluated, diffuse):
    assert diffuse("compare tiny/v001 tiny/v002") == 0
    for words in ("FID, lower is better", "-> tiny/v002: ", "sampler.steps", "2 | 3", "n=24",
                  "paired, block by block (jackknife)", "[0] | [0]",
                  "two independent 95% intervals, in quadrature", "KID x 1000"):  # fmt: skip
        assert words in diffuse.out
    warned = [line for line in diffuse.out.splitlines() if "is less than the 64 features" in line]
    assert len(warned) == 1  # both say it
    assert max(len(line) for line in diffuse.out.splitlines() if line not in warned) <= 80
    assert "NOT COMPARABLE" not in diffuse.out


def test_what_one_of_them_warns_of_stands_beside_its_name(evaluated, diffuse):
    path = evaluated / "v002/record.json"
    record = json.loads(path.read_text())
    record["warnings"].append("selected on the same images")
    path.write_text(json.dumps(record))
    assert diffuse("compare tiny/v001 tiny/v002") == 0
    warned = diffuse.out.partition("What was warned of")[2].splitlines()
    [said] = [line for line in warned if "selected on the same images" in line]
    assert said.split()[0] == "tiny/v002"
    assert "warnings" not in diffuse.out
    assert diffuse.json("compare tiny/v001 tiny/v002")["warnings"][1] == record["warnings"]


@pytest.mark.parametrize("second", ["tiny/v001", "outputs/eval/tiny/v001"])
def test_an_evaluation_beside_itself_is_refused(second, evaluated, diffuse):
    said = diffuse.error(f"compare tiny/v001 {second}")
    assert "that is outputs/eval/tiny/v001 more than once" in said


def test_as_json_the_difference_is_between_the_records_numbers(evaluated, diffuse):
    found = diffuse.json("compare tiny/v001 tiny/v002")
    first, other = found["measures"]["fid"]
    records = [json.loads((evaluated / v / "record.json").read_text()) for v in ("v001", "v002")]
    assert [first["value"], other["value"]] == [r["fid"]["value"] for r in records]
    difference = other["difference"]
    assert difference["value"] == other["value"] - first["value"]
    low, high = difference["ci95"]
    assert low < difference["value"] < high
    gaps = [b - a for a, b in zip(*(r["fid"]["jackknife"] for r in records), strict=True)]
    assert high - difference["value"] == pytest.approx(reach_of(gaps))
    assert difference["paired"]
    assert difference["how"] == "block by block (jackknife)"
    assert found["comparable"] is True
    assert found["differs"]["sampler.steps"] == [2, 3]
    assert found["training"] == {}


def test_two_evaluations_of_the_same_images_show_no_difference(evaluated, diffuse):
    assert diffuse(f"{LINE} steps=2") == 0
    found = diffuse.json("compare tiny/v001 tiny/v003")
    assert found["measures"]["fid"][1]["difference"]["value"] == 0
    assert found["differs"] == {}
    verdict = found["measures"]["fid"][1]["difference"]["verdict"]
    assert verdict == "no difference that n=24 can show"


MISMATCH = {
    "n=30": "n is 24 and 30",
    "encoder.size=4": "encoder.sha256 is ",
    "label=3": "sampler.label is none and 3",
    "seeds=2": "seeds.count is 1 and 2",
}


@pytest.mark.slow
@pytest.mark.parametrize(("words", "message"), MISMATCH.items())
def test_what_is_not_comparable_is_refused_by_name_unless_it_is_forced(
    words, message, evaluated, diffuse
):
    assert diffuse(f"{LINE} steps=2 {words}") == 0
    refusal = diffuse.error("compare tiny/v001 tiny/v003")
    assert message in refusal
    assert "force=true" in refusal
    assert diffuse("compare tiny/v001 tiny/v003 force=true") == 0
    field = message.partition(" is ")[0]
    assert "NOT COMPARABLE" in diffuse.out
    assert f"  {field}" in diffuse.out
    assert "not comparable, or else" in diffuse.out
    found = diffuse.json("compare tiny/v001 tiny/v003 force=true")
    assert found["comparable"] is False
    assert field in found["mismatches"]


def test_a_class_is_the_same_by_its_name_and_by_its_number(diffuse):
    """Of classes 5 and 0 the class called 0 is number 1."""
    assert diffuse.train("train.steps=1 train.sample_every=null dataset.classes=[5,0]") == 0
    labels = []
    for word in ("5", "1", "0"):
        record = diffuse.json(f"{LINE} steps=2 metrics=fid label={word}")
        labels.append((record["sampler"]["label"], record["sampler"]["label_name"]))
    assert labels == [(0, "5"), (1, "0"), (1, "0")]
    assert "sampler.label is 0 and 1" in diffuse.error("compare tiny/v001 tiny/v002")
    found = diffuse.json("compare tiny/v002 tiny/v003")
    assert found["measures"]["fid"][1]["difference"]["value"] == 0


@pytest.mark.slow
def test_another_reference_is_refused(evaluated, diffuse, tiny):
    line = tiny.replace("dataset.subset=64", "dataset.classes=[0,1,2]").replace("tiny", "few")
    assert diffuse(f"train {line} train.steps=1 train.sample_every=null") == 0
    assert diffuse(f"{LINE} steps=2 run=few") == 0
    message = diffuse.error("compare tiny/v001 few")
    assert "reference.sha256 is " in message
    assert "reference.n is 360 and" in message


@pytest.mark.slow
def test_what_was_changed_between_two_trainings_is_listed(evaluated, diffuse):
    assert diffuse.train("train.steps=3 optimizer.lr=0.007 name=other") == 0
    assert diffuse(f"{LINE} steps=2 run=other") == 0
    found = diffuse.json("compare tiny/v001 other")
    assert found["training"]["optimizer.lr"][1] == 0.007
    assert found["training"]["train.steps"] == [4, 3]
    assert "name" not in found["training"]
    assert found["differs"]["weights.step"] == [4, 3]
    assert diffuse("compare tiny/v001 other") == 0
    assert "What was changed in the training" in diffuse.out
    assert "optimizer.lr" in diffuse.out


@pytest.mark.slow
def test_other_training_images_may_be_what_is_compared_but_not_what_looks_for_copies(
    evaluated, diffuse, tiny
):
    line = tiny.replace("dataset.subset=64", "dataset.subset=80").replace("tiny", "more")
    assert diffuse(f"train {line} train.steps=1 train.sample_every=null") == 0
    for run in ("tiny", "more"):
        assert diffuse(f"{LINE} steps=2 run={run} metrics=[fid,gap]") == 0
    found = diffuse.json("compare tiny more")
    for name in ("gap", "fid_train", "fid_test"):
        assert found["left_out"][name] == "measured against different training images"
    assert "fid" in found["measures"]
    assert found["training"]["dataset.subset"] == [64, 80]


@pytest.mark.slow
def test_the_same_seeds_are_paired_and_other_seeds_are_not(trained, diffuse):
    for words in ("steps=2", "steps=3", "steps=3 seed=5"):
        assert diffuse(f"{LINE} seeds=3 {words}") == 0
    paired = diffuse.json("compare tiny/v001 tiny/v002")["measures"]["fid"][1]["difference"]
    apart = diffuse.json("compare tiny/v001 tiny/v003")["measures"]["fid"][1]["difference"]
    assert (paired["paired"], apart["paired"]) == (True, False)
    assert diffuse("compare tiny/v001 tiny/v002") == 0
    assert "paired, seed by seed (Student's t)" in diffuse.out
    assert "[0, 1, 2] | [0, 1, 2]" in diffuse.out


REFS = ["tiny", "tiny/v002"]
REFS += [f"outputs/{where}" for where in ("eval/tiny/v002", "eval/tiny/v002/record.json")]


@pytest.mark.parametrize("ref", [*REFS, "outputs/train/tiny/v001"])
def test_an_evaluation_is_named_in_every_way(ref, evaluated, diffuse):
    found = diffuse.json(f"compare tiny/v001 {ref}")
    assert found["measures"]["fid"][1]["folder"] == "outputs/eval/tiny/v002"


@pytest.mark.slow
def test_of_a_training_a_try_out_is_taken_only_if_it_is_all_there_is(evaluated, diffuse):
    assert diffuse(f"{LINE} steps=2 smoke=true name=try") == 0
    training = "outputs/train/tiny/v001"
    found = diffuse.json(f"compare tiny/v001 {training}")
    assert found["measures"]["fid"][1]["folder"] == "outputs/eval/tiny/v002"
    found = diffuse.json(f"compare tiny/v001 {training} smoke=true")
    assert found["measures"]["fid"][1]["folder"] == "outputs/eval/try/v001"
    assert diffuse(f"{LINE} steps=2 smoke=true") == 0  # under the name of the others
    for words, folder in (("", "v002"), (" smoke=true", "v003")):
        found = diffuse.json(f"compare tiny/v001 tiny{words}")
        assert found["measures"]["fid"][1]["folder"] == f"outputs/eval/tiny/{folder}"


def test_what_a_record_does_not_say_is_named(evaluated, diffuse):
    path = evaluated / "v001/record.json"
    record = json.loads(path.read_text())
    for key in (
        "metrics",
        "curves",
        "settings",
        "real",
        "threads",
        "command",
        "warnings",
        "samples",
    ):
        del record[key]
    del record["fid"]["jackknife"]
    for key in ("layer", "features", "channels", "range", "rounding"):
        del record["encoder"][key]
    path.write_text(json.dumps(record))
    assert diffuse("compare tiny/v001 tiny/v002") == 0
    assert "not recorded" in diffuse.out
    assert "encoder.layer" in diffuse.out


def test_what_was_evaluated_is_said_of_each_and_two_things_of_one_name_are_told_apart(
    evaluated, diffuse
):
    assert diffuse.train("train.steps=1 train.sample_every=null") == 0  # the training v002
    assert diffuse("compare tiny/v001 tiny/v002") == 0
    assert diffuse.out.count("outputs/train/tiny/v001, step 4") == 2
    said = "tiny/v002 is the evaluation of this name, of outputs/train/tiny/v001, not of"
    assert f"warning: {said} outputs/train/tiny/v002" in diffuse.err
    assert "tiny/v001 is the evaluation" not in diffuse.err


def test_evaluations_are_known_where_outputs_is_now(evaluated, diffuse, tmp_path):
    (tmp_path / "outputs").rename(tmp_path / "moved")
    found = diffuse.json("compare tiny/v001 moved/train/tiny/v001 outputs=moved")
    assert found["measures"]["fid"][1]["folder"] == "moved/eval/tiny/v002"


ERRORS = {
    "": "takes two evaluations or more",
    "tiny/v001": "takes two evaluations or more",
    "tiny/v001 tinny/v001": "no evaluation 'tinny/v001' in outputs/eval; did you mean 'tiny/v001'?",
    "tiny/v001 tiny/v002 -m": "--multirun: a comparison is one",
    "tiny/v001 tiny/v002 forse=true": "unknown key 'forse'; did you mean 'force'?",
}


@pytest.mark.parametrize(("words", "message"), ERRORS.items())
def test_what_cannot_be_compared_is_one_line(words, message, evaluated, diffuse):
    assert message in diffuse.error(f"compare {words}".strip())


def test_a_training_that_was_not_evaluated_says_so(evaluated, diffuse):
    assert diffuse.train("train.steps=1 name=young train.sample_every=null") == 0
    assert "was not evaluated: diffuse eval run=young" in diffuse.error("compare tiny young")


def test_a_damaged_record_is_exit_3(evaluated, diffuse):
    (evaluated / "v002/record.json").write_text('{"n": 24')
    assert "record.json is damaged" in diffuse.error("compare tiny/v001 tiny/v002", code=3)


def test_comparing_writes_nothing(evaluated, diffuse, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert diffuse("compare tiny/v001 tiny/v002") == 0
    assert sorted(tmp_path.rglob("*")) == before
    assert runs.read(evaluated / "v001")["status"] == "done"


def test_a_record_of_an_older_version_has_no_interval_of_its_floor(evaluated, diffuse):
    path = evaluated / "v001/record.json"
    record = json.loads(path.read_text())
    assert record["fid"].pop("floor_ci95")
    path.write_text(json.dumps(record))
    assert diffuse("compare tiny/v001 tiny/v002") == 0
    assert f"{record['fid']['floor']:.3f}" in diffuse.out


EDITED = {"fid.value": 10**400, "fid.floor": 10**400, "seeds.seed": 10**400, "n": -1}
EDITED |= {"encoder.features": None, "reference.dataset": 3, "reference.split": 3}
EDITED |= {"real.sha256": {}, "weights.name": []}


@pytest.mark.parametrize(("where", "value"), EDITED.items())
def test_what_no_record_has_is_damage(where, value, evaluated, diffuse):
    path, (*tables, key) = evaluated / "v001/record.json", where.split(".")
    record = json.loads(path.read_text())
    (record[tables[0]] if tables else record)[key] = value
    path.write_text(json.dumps(record))
    assert f"is damaged: {where} must be" in diffuse.error("compare tiny/v001 tiny/v002", code=3)


def test_where_pictures_lie_is_no_difference(evaluated, diffuse):
    path = evaluated / "v001/record.json"
    record = json.loads(path.read_text())
    for version in ("v001", "v002"):
        record["pictures"] = {"neighbours": f"outputs/eval/tiny/{version}/neighbours.png"}
        (evaluated / version / "record.json").write_text(json.dumps(record))
    assert diffuse("compare tiny/v001 tiny/v002") == 0
    assert "also differ" not in diffuse.out
