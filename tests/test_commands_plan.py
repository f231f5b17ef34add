"""`diffuse plan`: what was measured is read right, and what it implies can be checked."""

import json
import math
import re
import shlex
import shutil
import statistics

import pytest
from leftovers import begin_with
from scipy.special import stdtrit

from diffuse import cli, runs
from diffuse.metrics import Spread, at_most, needed, power_of

EVALUATION = "diffuse eval n=24 device=cpu encoder=pixels steps=2 metrics=fid"
OTHERWISE = "eval device=cpu encoder=pixels steps=2 metrics=fid"


@pytest.fixture
def evaluated(trained, diffuse):
    assert diffuse(EVALUATION.removeprefix("diffuse ")) == 0
    return trained.parents[2]


def sibling(outputs, number, value, sampling_seed, of="v001", **changes):
    """A training by another seed and its evaluation, as planted files."""
    train, scored = outputs / f"train/tiny/v{number:03d}", outputs / f"eval/tiny/v{number:03d}"
    shutil.copytree(outputs / "train/tiny/v001", train)
    begin_with(train, "\nseed: 0\n", f"\nseed: {number}\n")
    shutil.copytree(outputs / f"eval/tiny/{of}", scored)
    for name in ("run.json", "record.json"):
        facts = json.loads((scored / name).read_text())
        facts["weights"] |= {"run": f"outputs/train/tiny/v{number:03d}", "sha256": f"{number}"}
        if name == "record.json":
            facts["seeds"]["seed"] = sampling_seed
            facts["fid"]["value"] = value
            facts |= changes
        (scored / name).write_text(json.dumps(facts))


def test_the_newest_evaluation_is_what_a_plan_is_made_from(evaluated, diffuse):
    found = diffuse.json("plan delta=5")
    made = json.loads((evaluated / "eval/tiny/v001/record.json").read_text())
    assert found["measured"]["fid"] == made["fid"]["value"]
    sd = (made["fid"]["ci95"][1] - made["fid"]["value"]) / float(stdtrit(11, 0.975))
    assert found["measured"]["sd_images"] == pytest.approx(sd)
    assert found["measured"]["sd_trainings"] is None
    [way] = found["ways"]
    [need] = needed(5, Spread(sd, 24), 0.8, (1,))
    assert need.n < 4 * 64  # of so few the FID would be bias, mostly
    assert (way["n"], way["trainings"], way["cheapest"]) == (4 * 64, 1, True)
    assert way["power"] == pytest.approx(power_of(5, Spread(sd, 24), 256, 1))
    assert way["features_seconds"] == pytest.approx(256 / made["features_per_second"])
    assert way["drawing_seconds"] == pytest.approx(256 / made["images_per_second"])
    assert found["next"][0].startswith("diffuse train dataset=digits")
    assert found["next"][0].endswith("train.steps=4 seed=1")
    assert found["next"][1] == f"{EVALUATION} run=tiny"
    (evaluated / "train/tiny/v001/overrides.yaml").write_text("[outputs=/elsewhere]")
    again = diffuse.json("plan delta=5")["next"][0]
    assert again == "diffuse train outputs=outputs train.steps=4 seed=1"  # it was moved here


def test_siblings_by_another_seed_say_how_trainings_scatter(evaluated, diffuse):
    first = diffuse.json("plan")["measured"]["fid"]
    sibling(evaluated, 2, first + 3, sampling_seed=7)
    sibling(evaluated, 3, first - 3, sampling_seed=8)
    found = diffuse.json("plan delta=5 run=tiny/v001")
    assert found["measured"]["trainings"] == [first, first + 3, first - 3]
    total = statistics.variance([0, 3, -3])
    images = found["measured"]["sd_images"] ** 2
    assert found["measured"]["sd_trainings"] == pytest.approx(math.sqrt(max(0, total - images)))
    planned = found["measured"]["sd_trainings_planned"]
    assert planned == pytest.approx(math.sqrt(max(0, at_most(3, 0.8) ** 2 * total - images)))
    low, high = found["measured"]["sd_trainings_ci95"]
    assert low < found["measured"]["sd_trainings"] < planned < high
    for way in found["ways"]:
        spread = Spread(math.sqrt(images), 24, planned)
        assert way["power"] == pytest.approx(power_of(5, spread, way["n"], way["trainings"]))
    assert min(way["trainings"] for way in diffuse.json("plan delta=30 run=tiny/v001")["ways"]) > 1
    assert found["next"] == []


def test_trainings_of_equal_minutes_are_siblings_and_others_harm_nobody(evaluated, diffuse):
    """Minutes become steps, and never the same number of them twice."""
    first = diffuse.json("plan")["measured"]["fid"]
    for number, steps in ((2, 41), (3, 42), (4, 80)):
        sibling(evaluated, number, first + number, 6 + number)
        begin_with(evaluated / f"train/tiny/v{number:03d}", "  steps: 4\n", f"  steps: {steps}\n")
        record = evaluated / f"eval/tiny/v{number:03d}/record.json"
        facts = json.loads(record.read_text())
        facts["weights"] |= {"step": steps, "half_life": 1.5 * steps}
        record.write_text(json.dumps(facts))
    found = diffuse.json("plan run=tiny/v002")["measured"]
    assert found["trainings"] == [first + 2, first + 3]
    (evaluated / "eval/tiny/v004/record.json").write_text("{")
    assert diffuse.json("plan run=tiny/v002")["measured"]["trainings"] == [first + 2, first + 3]
    assert "v004" in diffuse.err


def test_a_sibling_may_have_been_trained_on_another_gpu(evaluated, diffuse):
    """Jobs of a sweep that run at once take turns over them."""
    sibling(evaluated, 2, 1.0, 7)
    begin_with(evaluated / "train/tiny/v002", "device: cpu\n", "device: cuda:1\n")
    assert len(diffuse.json("plan run=tiny/v001")["measured"]["trainings"]) == 2


def test_the_checkpoint_that_leads_is_another_one_in_each_training(evaluated, diffuse):
    path = evaluated / "eval/tiny/v001/record.json"
    made = json.loads(path.read_text())

    def guided(**weak):
        guidance = {"weight": 2.0, "levels": [0.0, None], "weak": {"weights": "10%"} | weak}
        return {"sampler": made["sampler"] | {"guidance": guidance}}

    path.write_text(json.dumps(made | guided(step=1, sha256="a")))
    sibling(evaluated, 2, 1.0, 7, **guided(step=2, sha256="b"))
    sibling(evaluated, 3, 2.0, 8, **guided(step=1, sha256="c", weights="raw"))
    found = diffuse.json("plan run=tiny/v001")["measured"]
    assert found["trainings"] == [made["fid"]["value"], 1.0]


def test_calls_that_each_network_takes_for_itself_are_no_other_way_to_draw(evaluated, diffuse):
    made = json.loads((evaluated / "eval/tiny/v001/record.json").read_text())
    sibling(evaluated, 2, 1.0, 7, sampler=made["sampler"] | {"nfe": 31.5})
    assert len(diffuse.json("plan run=tiny/v001")["measured"]["trainings"]) == 2


def test_a_speed_that_older_records_round_to_nothing_is_a_cost_that_nobody_knows(
    evaluated, diffuse
):
    path = evaluated / "eval/tiny/v001/record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"images_per_second": 0.0}))
    [way] = diffuse.json("plan delta=5")["ways"]
    assert (way["n"], way["drawing_seconds"], way["seconds"]) == (256, None, None)
    assert not way["cheapest"]
    assert diffuse("plan delta=5") == 0
    assert re.search(r"1 training +256 .* \? .* \?\n", diffuse.out)
    assert re.search(r"drawing +\?\n", diffuse.out)


def test_a_later_evaluation_in_another_way_does_not_hide_what_trainings_told(evaluated, diffuse):
    sibling(evaluated, 2, 1.0, 7)
    assert diffuse("eval n=30 device=cpu encoder=pixels steps=2 metrics=fid run=tiny/v001") == 0
    found = diffuse.json("plan run=tiny/v001")["measured"]
    assert (found["n"], len(found["trainings"])) == (24, 2)
    shutil.rmtree(evaluated / "eval/tiny/v002")
    assert diffuse.json("plan run=tiny/v001")["measured"]["n"] == 30


UNLIKE = {
    "another sampler": {"sampler": {"steps": 3}},
    "another n": {"n": 25},
    "another reference": {"reference": {"sha256": "other"}},
    "other steps": {"weights": {"step": 400, "half_life": 600.0}},
    "another average": {"weights": {"decay": 0.9}},
}


@pytest.mark.parametrize("kind", UNLIKE)
def test_what_was_made_otherwise_is_no_sibling(kind, evaluated, diffuse):
    made = json.loads((evaluated / "eval/tiny/v001/record.json").read_text())
    changes = UNLIKE[kind]
    merged = {k: made[k] | v if isinstance(v, dict) else v for k, v in changes.items()}
    if "weights" in merged:
        merged["weights"]["run"] = "outputs/train/tiny/v002"
    sibling(evaluated, 2, 1.0, 7, **merged)
    assert diffuse.json("plan run=tiny/v001")["measured"]["trainings"] == []


def test_a_training_of_another_config_is_no_sibling(evaluated, diffuse):
    sibling(evaluated, 2, 1.0, 7)
    begin_with(evaluated / "train/tiny/v002", "label_dropout: 0.1", "label_dropout: 0.2")
    assert diffuse.json("plan run=tiny/v001")["measured"]["trainings"] == []


def test_a_damaged_evaluation_is_none_and_the_whole_one_before_it_counts(evaluated, diffuse):
    assert diffuse(f"{OTHERWISE} n=30") == 0
    path = evaluated / "eval/tiny/v002/record.json"
    record = json.loads(path.read_text())
    for damaged in ({key: record[key] for key in record if key != "weights"}, {}):
        path.write_text(json.dumps(damaged))
        assert diffuse.json("plan")["measured"]["n"] == 24
        assert "v002/record.json is damaged" in diffuse.err
    (evaluated / "eval/tiny/v001/record.json").write_text("{")
    assert diffuse.error("plan").endswith("diffuse eval run=tiny/v001 n=1024")


def test_the_newest_checkpoint_counts_whatever_was_looked_at_later(evaluated, diffuse):
    assert diffuse(f"{OTHERWISE} n=30 checkpoint=2") == 0
    assert diffuse.json("plan")["measured"]["n"] == 24
    assert diffuse("plan") == 0
    assert " at n=24 (step 4, ema)\n" in diffuse.out
    sibling(evaluated, 3, 1.0, 7, of="v002")
    assert diffuse.json("plan run=tiny/v001")["measured"]["n"] == 30  # siblings tell more


def test_what_the_fid_is_of_is_said(trained, diffuse):
    assert diffuse(f"{OTHERWISE} n=30 checkpoint=2 weights=raw label=3") == 0
    assert diffuse("plan") == 0
    assert " at n=30 (step 2, raw, 3 alone)\n" in diffuse.out


AGAIN = "To measure how far trainings scatter"


def test_no_line_trains_like_a_run_whose_settings_were_changed_on_its_way(evaluated, diffuse):
    assert diffuse.train("train.steps=6 resume=must") == 0, diffuse.err
    assert diffuse("plan") == 0
    assert AGAIN in diffuse.out  # it is longer, as the line says
    more = "optimizer.lr=0.05 resume.allow=[optimizer.lr]"
    assert diffuse.train(f"train.steps=8 resume=must {more}") == 0, diffuse.err
    assert diffuse("plan") == 0
    assert AGAIN not in diffuse.out
    assert diffuse.json("plan")["next"] == []


@pytest.mark.parametrize("words", ["run=tiny@2", "run=tiny@2 checkpoint=2", "checkpoint=2"])
def test_the_lines_to_be_copied_evaluate_the_same_step(words, trained, diffuse):
    assert diffuse(f"{OTHERWISE} n=24 {words}") == 0, diffuse.err
    assert diffuse.json("plan")["next"][1] == f"diffuse {OTHERWISE} n=24 checkpoint=2 run=tiny"


def test_where_another_device_went_on_the_lines_are_there(evaluated, diffuse):
    path = evaluated / "train/tiny/v001/run.json"
    resumed = [{"step": 2, "device": "another", "versions": {"torch": "1.0"}}]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"resumed": resumed}))
    assert diffuse("plan") == 0
    assert AGAIN in diffuse.out


def test_the_lines_to_be_copied_know_the_folder_of_ones_own_yamls(tiny, diffuse, tmp_path):
    linear = "name: linear\nbetamax: 0.01\nbetamin: 0.0001\nT: 1000\nzero_snr: false\n"
    half = "name: ddim\neta: 0.5\nnoise: 1.0\n"
    for name, text in (("schedule/own", linear), ("sampler/half", half)):
        (tmp_path / "my own" / name).parent.mkdir(parents=True)
        (tmp_path / "my own" / f"{name}.yaml").write_text(text)
    own = ["--config-dir", "my own"]
    assert cli.main(["train", *tiny.split(), "train.steps=2", "schedule=own", *own]) == 0
    words = [*EVALUATION.split()[1:], "sampler=half"]
    assert cli.main([words[0], *own, *words[1:]]) == 0
    assert runs.read(tmp_path / "outputs/train/tiny/v001")["config_dir"] == "my own"
    lines = [shlex.split(line) for line in diffuse.json("plan")["next"]]
    assert ["schedule=own" in lines[0], "sampler=half" in lines[1]] == [True, True]
    for line in lines:
        assert line[line.index("--config-dir") + 1] == "my own"
        assert cli.main([*line[1:], "dry_run=true"]) == 0


def test_what_is_printed_is_narrow_and_says_what_it_rests_on(evaluated, diffuse):
    assert diffuse("plan delta=2") == 0
    for words in ("To tell FIDs apart that differ by 2 (80% of the time)", "1 training ",
                  "for each of the two runs", "This takes for granted", "falls as 1 / n",
                  "not known: there is one training", "train and evaluate again"):  # fmt: skip
        assert words in diffuse.out
    shown = diffuse.out.partition("To measure how far")[0]  # lines to be copied stay as they are
    assert max(map(len, shown.splitlines())) <= 100
    sibling(evaluated, 2, 1.0, 7)
    assert diffuse("plan run=tiny/v001") == 0
    for words in ("as measured, of 2: ", "(95%)", "planned with", "it is at most (80% sure)",
                  "a third ", "training is worth more than any plan", "seed=3"):  # fmt: skip
        assert words in diffuse.out
    assert "To tell" not in diffuse.out


def test_what_cannot_be_resolved_says_what_could(evaluated, diffuse):
    assert diffuse("plan delta=0.0001") == 0
    assert "there is no way" in diffuse.out
    assert "1,000,000 images tell" in diffuse.out
    assert diffuse.json("plan delta=0.0001")["ways"] == []


def test_a_plan_writes_nothing(evaluated, diffuse):
    before = sorted(str(path) for path in evaluated.rglob("*"))
    assert diffuse("plan delta=2") == 0
    assert sorted(str(path) for path in evaluated.rglob("*")) == before


ERRORS = {
    "delta=0": "delta must be more than 0, got 0",
    "delta=-1": "delta must be more than 0, got -1",
    "delta=little": "delta must be a number, got 'little'",
    "power=1": "power must be in (0.05, 1), got 1",
    "run=tinny": "run: no run 'tinny'",
    "dleta=1": "did you mean 'delta'?",
    "delta=1,2 -m": "--multirun: a plan is one",
}


@pytest.mark.parametrize(("words", "message"), ERRORS.items())
def test_what_cannot_be_planned_is_one_line(words, message, trained, diffuse):
    assert message in diffuse.error(f"plan {words}")


def test_a_run_that_was_not_evaluated_says_what_to_do(trained, diffuse):
    message = diffuse.error("plan delta=1")
    assert message.endswith("measure it first: diffuse eval run=tiny/v001 n=1024")
