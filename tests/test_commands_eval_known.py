"""`diffuse eval known=true`: an evaluation that is there is shown only if it is the same one."""

import json
import shutil
import sys

import numpy as np
import pytest

from diffuse import conditions, evaluations, runs
from diffuse.classifier import new_classifier
from diffuse.encoders import save_encoder

LINE = "eval n=8 steps=2 device=cpu kid_subsets=2 kid_subset_size=4 known=true"


@pytest.fixture
def make_encoder(tmp_path):
    """Write a file of an encoder that has learned nothing."""

    def make(seed):
        net = new_classifier(channels=1, classes=2, width=8, blocks=(1, 1), seed=seed).eval()
        about = {"name": "small", "channels": 1, "height": 8, "width": 8, "classes": ["a", "b"]}
        return save_encoder(tmp_path / "encoder.safetensors", net, about)

    return make


def test_a_known_evaluation_has_the_same_encoder_to_the_byte(make_encoder, trained, diffuse):
    line, found = f"{LINE} encoder=classifier encoder.path=encoder.safetensors", []
    for seed in (0, 0, 1, 0):
        sha256 = make_encoder(seed)
        found.append(diffuse.json(line))
        assert found[-1]["encoder"]["sha256"] == sha256
    assert [record["folder"][-4:] for record in found] == ["v001", "v001", "v002", "v001"]


def test_a_known_evaluation_was_led_away_from_the_same_weak_network(diffuse, tmp_path):
    assert diffuse.train("train.steps=12 train.sample_every=null train.ema=[0.5,0.9]") == 0
    line = f"{LINE} encoder=pixels guidance=2 guide=ema_0.9"
    first, again = (diffuse.json(line)["folder"] for _ in range(2))
    assert first == again
    facts = runs.read(tmp_path / first)
    assert facts["sampler"]["guidance"]["weak"]["sha256"]
    facts["sampler"]["guidance"]["weak"]["sha256"] = 64 * "0"  # of a network that is gone
    (tmp_path / first / "run.json").write_text(json.dumps(facts))
    assert diffuse.json(line)["folder"] != first


@pytest.mark.parametrize("split", ["reference", "real"])
def test_a_known_evaluation_was_measured_on_the_same_images(split, trained, diffuse, tmp_path):
    first, again = (diffuse.json(f"{LINE} encoder=pixels")["folder"] for _ in range(2))
    assert first == again
    record = json.loads((tmp_path / first / "record.json").read_text())
    record[split]["sha256"] = 64 * "0"  # of what the data set was before somebody changed it
    (tmp_path / first / "record.json").write_text(json.dumps(record))
    assert diffuse.json(f"{LINE} encoder=pixels")["folder"] != first


@pytest.mark.parametrize("field", ["dtype", "device"])
def test_a_known_evaluation_was_computed_in_the_same_way(field, trained, diffuse, tmp_path):
    first, again = (diffuse.json(f"{LINE} encoder=pixels")["folder"] for _ in range(2))
    assert first == again
    record = json.loads((tmp_path / first / "record.json").read_text())
    record[field] = "another"  # that `auto` became there
    (tmp_path / first / "record.json").write_text(json.dumps(record))
    assert diffuse.json(f"{LINE} encoder=pixels")["folder"] != first


def test_an_evaluation_that_was_killed_at_its_end_is_not_a_known_one(trained, diffuse, tmp_path):
    """The record is written before run.json says that all is done."""
    first = diffuse.json(f"{LINE} encoder=pixels")["folder"]
    facts = runs.read(tmp_path / first) | {"status": "running"}
    del facts["sampler"], facts["fingerprint"]
    (tmp_path / first / "run.json").write_text(json.dumps(facts))
    again = diffuse.json(f"{LINE} encoder=pixels")["folder"]
    assert again != first
    assert diffuse.json(f"{LINE} encoder=pixels")["folder"] == again


def test_a_known_evaluation_is_of_the_same_code_whatever_its_revision(
    trained, diffuse, tmp_path, monkeypatch
):
    first = diffuse.json(f"{LINE} encoder=pixels")["folder"]
    facts = runs.read(tmp_path / first) | {"git": "another"}
    (tmp_path / first / "run.json").write_text(json.dumps(facts))
    assert diffuse.json(f"{LINE} encoder=pixels")["folder"] == first
    package = tmp_path / "edited"
    shutil.copytree(conditions.PACKAGE / "metrics", package / "metrics")
    code, edited = conditions.code, package / "metrics/gaussian.py"
    monkeypatch.setattr(conditions, "code", lambda sources: code(sources, package))
    one = diffuse.json(f"{LINE} encoder=pixels")["folder"]
    assert one == diffuse.json(f"{LINE} encoder=pixels")["folder"] != first
    edited.write_text(edited.read_text().replace("2 * root", "3 * root"))
    assert diffuse.json(f"{LINE} encoder=pixels")["folder"] not in (first, one)


def test_a_known_evaluation_of_the_best_checkpoint_was_asked_for_as_such(diffuse):
    """The same weights: but of those that were chosen on these images there is a warning."""
    assert diffuse.train("train.steps=4 train.eval_every=4 train.eval_n=8") == 0, diffuse.err
    plain = diffuse.json(f"{LINE} encoder=pixels")
    best = diffuse.json(f"{LINE} encoder=pixels checkpoint=best")
    assert best["weights"]["sha256"] == plain["weights"]["sha256"]
    said = ["was chosen by its FID" in " ".join(record["warnings"]) for record in (plain, best)]
    assert said == [False, True]
    assert diffuse.json(f"{LINE} encoder=pixels checkpoint=4")["folder"] == plain["folder"]
    again = diffuse.json(f"{LINE} encoder=pixels checkpoint=best")
    assert (again["folder"], again["warnings"]) == (best["folder"], best["warnings"])


def test_with_images_to_save_or_a_reference_nothing_is_known_and_a_line_says_so(
    trained, diffuse, tmp_path
):
    line = f"{LINE} encoder=pixels"
    np.savez(tmp_path / "stats.npz", mu=np.zeros(64), sigma=np.eye(64))
    for words, why in (("save=npy", "the images are wanted"),
                       ("reference=stats.npz", "its file may have changed")):  # fmt: skip
        first, again = (diffuse.json(f"{line} {words}")["folder"] for _ in range(2))
        assert first != again
        assert f"known=true finds nothing with {words}: {why}" in diffuse.err.splitlines()
        assert (tmp_path / again / "images.npy").exists() == (words == "save=npy")


def test_a_known_job_of_a_sweep_keeps_the_record_and_is_done(trained, diffuse, tmp_path, network):
    first = tmp_path / diffuse.json(f"{LINE} encoder=pixels")["folder"]
    network.clear()
    line = f"{LINE} encoder=pixels --multirun weights=ema,raw"
    found = diffuse.json(line)
    assert sum(network) == 2 * 64  # of one job, in two steps
    one, other = (tmp_path / f"outputs/eval/eval-sweep/v001/{k}" for k in range(2))
    assert (one / "record.json").read_bytes() == (first / "record.json").read_bytes()
    assert f"known from outputs/eval/tiny/{first.name}" in (one / "log.txt").read_text()
    assert found[0]["result"]["fid"] == evaluations.read(one)["fid"]
    assert found[0]["result"]["folder"] == str(one.relative_to(tmp_path))
    before, facts = runs.read(first), runs.read(one)
    assert (facts["status"], facts["command"]) == ("done", "eval")
    for key in ("sampler", "fingerprint", "plan", "weights", "versions"):
        assert facts[key] == before[key], key
    assert evaluations.read(other)["weights"]["name"] == "raw"
    network.clear()
    assert diffuse(f"{line} resume=auto") == 0
    assert "2 of 2 jobs are done" in diffuse.err
    assert not network
    shutil.rmtree(first)  # what a sweep has kept is known as well
    assert diffuse.json(f"{LINE} encoder=pixels")["folder"] == str(one.relative_to(tmp_path))
    assert not network


READS = """
from pathlib import Path
import torch

class Net(torch.nn.Module):
    range = (0, 1)

    def forward(self, x):
        return x.flatten(1) * float(Path(__file__).with_name("gain.txt").read_text())

@torch.no_grad()
def walk(denoise, x, sigmas, randn):
    denoised = denoise(x, sigmas[0]) if len(sigmas) > 1 else x
    yield denoised, denoised
"""


@pytest.mark.parametrize("what", ["encoder", "sampler"])
def test_a_number_by_code_from_outside_is_never_known(
    what, trained, diffuse, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "reading_code.py").write_text(READS)
    (tmp_path / "gain.txt").write_text("1")
    (tmp_path / "mine/sampler").mkdir(parents=True)
    (tmp_path / "mine/sampler/my.yaml").write_text("name: reading_code:walk\n")
    own = {
        "encoder": "encoder=own encoder.name=reading_code:Net",
        "sampler": "encoder=pixels --config-dir mine sampler=my",
    }[what]
    line = f"{LINE} {own} trust=reading_code"
    first = diffuse.json(line)["folder"]
    assert diffuse.json(line)["folder"] != first
    [told] = [said for said in diffuse.err.splitlines() if "measured again" in said]
    assert "known=true finds nothing" in told
    assert f"reading_code{'.walk' if what == 'sampler' else ''}" in told
    sys.modules.pop("reading_code", None)


def test_a_known_evaluation_called_the_network_as_its_config_says_now(trained, diffuse):
    """Who edits a config and means it deletes its first line: the weights are the same ones."""
    first, again = (diffuse.json(f"{LINE} encoder=pixels") for _ in range(2))
    assert first["folder"] == again["folder"]
    place = trained / "config.yaml"
    _, _, config = place.read_text().partition("\n")
    place.write_text(config.replace("range: [-1.0, 1.0]", "range: [0.0, 1.0]"))
    other = diffuse.json(f"{LINE} encoder=pixels")
    assert other["range"] == [0.0, 1.0] != first["range"]
    assert other["fid"] != first["fid"]


DAMAGED = [
    ("sampler", None), ("sampler", 3), ("sampler", {"noise_level": 4}), ("weights", None),
    ("weights", []), ("weights", {"run": 5}), ("versions", None), ("fingerprint", 1),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), DAMAGED)
def test_an_evaluation_whose_run_json_has_one_damaged_value_stops_nobody(
    key, value, trained, diffuse, tmp_path
):
    """Neither who looks for a known one, nor who draws the same images, nor who plans."""
    first = tmp_path / diffuse.json(f"{LINE} encoder=pixels")["folder"]
    facts = runs.read(first) | {key: value}
    runs.write_json(first / "run.json", facts)
    again = diffuse.json(f"{LINE} encoder=pixels")["folder"]
    assert (again == first.relative_to(tmp_path).as_posix()) is (key == "fingerprint")
    assert diffuse("plan") == 0, diffuse.err


@pytest.mark.parametrize("key", ["sampler", "versions", "weights"])
def test_nor_does_one_whose_key_is_damaged(key, trained, diffuse, tmp_path):
    first = tmp_path / diffuse.json(f"{LINE} encoder=pixels")["folder"]
    facts = runs.read(first)
    facts[f"{key}_"] = facts.pop(key)
    runs.write_json(first / "run.json", facts)
    assert tmp_path / diffuse.json(f"{LINE} encoder=pixels")["folder"] != first
    assert diffuse("plan") == 0, diffuse.err
