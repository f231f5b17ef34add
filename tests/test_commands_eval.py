"""`diffuse eval`: numbers with their passport, of a training run or of images of another tool."""

import json
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

from diffuse import checkpoints, evaluations, passport
from diffuse.commands.evaluating.scores import cells
from diffuse.data import open_dataset, to_range, to_uint8
from diffuse.encoders import pixels
from diffuse.metrics import Moments

LINE = "eval n=44 steps=2 device=cpu kid_subsets=3 kid_subset_size=10 encoder=pixels"
UNEVEN = (
    "images are drawn of every class alike, but 13% of the test images are 3: part of the FID is "
    "that; per_class compares like with like"
)


def digits(split):
    return open_dataset({"name": "digits"}, split)


@pytest.fixture
def theirs(tmp_path):
    """60 real digits as an .npy, as another tool would write them."""
    images = digits("train").images[:60, 0].numpy()
    np.save(tmp_path / "theirs.npy", images)
    return images


PASSPORT = {
    "n", "encoder.name", "encoder.sha256", "encoder.layer", "encoder.features", "encoder.size",
    "encoder.filter", "encoder.range", "encoder.rounding", "reference.dataset", "reference.split",
    "reference.n", "reference.sha256", "reference.range", "real.sha256", "weights.run",
    "weights.step", "weights.sha256", "weights.decay", "weights.half_life", "weights.images_seen",
    "sampler.name", "sampler.grid.name", "sampler.steps", "sampler.nfe", "sampler.clip",
    "sampler.start", "sampler.reuse.name", "sampler.batch", "sampler.guidance", "sampler.label",
    "range", "seeds.seed", "seeds.count",
    "seeds.first", "seeds.last", "dtype", "device", "threads", "revision", "code", "versions.torch",
    "seconds", "command",
}  # fmt: skip


def test_a_figure_carries_all_that_it_depends_on_and_every_field_has_a_role(trained, diffuse):
    record = diffuse.json(LINE)
    fields = passport.fields(record)
    assert set(fields) >= PASSPORT
    thought_of = [f for f in fields if any(f == r or f.startswith(f"{r}.") for r in passport.ROLES)]
    assert set(fields) - set(thought_of) == set()
    digest = checkpoints.sha256(trained / "checkpoints/step_00000004", "ema")
    assert fields["weights.sha256"] == digest
    early = 16 * math.log(2) / math.log(14 / 5)  # images: after 4 steps of 16 it is not yet 0.5
    assert fields["weights.decay"] == 0.5
    assert fields["weights.half_life"] == pytest.approx(early, abs=0.05)
    assert fields["command"] == f"diffuse {LINE} --json"
    folder = trained.parents[2] / "eval/tiny/v001"
    assert evaluations.read(folder) | {"folder": record["folder"]} == record


@pytest.mark.slow
def test_three_seeds_are_three_evaluations_and_their_mean(trained, diffuse):
    single = [diffuse.json(f"{LINE} seed={seed}") for seed in (4, 5, 6)]
    joined = diffuse.json(f"{LINE} seed=4 seeds=3")
    for name in ("fid", "kid"):
        values = [record[name]["value"] for record in single]
        assert joined[name]["per_seed"][0] == values[0]
        if name == "fid":  # of KID the second and third draw have other subsets
            assert joined[name]["per_seed"] == values
        assert joined[name]["value"] == pytest.approx(sum(joined[name]["per_seed"]) / 3)
        low, high = joined[name]["ci95"]
        assert low < joined[name]["value"] < high
        assert joined[name]["floor"] == single[0][name]["floor"]
    assert joined["shards"] == {"drawn": 0, "known": 3}  # one for each seed
    assert joined["seeds"] == {"seed": 4, "count": 3, "first": 0, "last": 43}
    assert diffuse(f"{LINE} seeds=2") == 0
    assert "each seed" in diffuse.out


def test_the_images_of_every_seed_are_saved(trained, diffuse):
    diffuse.json("sample n=44 steps=2 device=cpu seed=2")
    record = diffuse.json(f"{LINE} seed=1 seeds=2 save=npy")
    assert record["shards"] == {"drawn": 1, "known": 1}
    one, two = (np.load(f"{record['folder']}/seed_{seed}/images.npy") for seed in (1, 2))
    assert one.shape == two.shape == (44, 8, 8)
    assert (one != two).any()


def test_all_metrics_are_measured_that_can_be_and_fit_a_terminal(trained, diffuse):
    assert diffuse(f"{LINE} metrics=all") == 0
    assert max(map(len, diffuse.out.splitlines())) <= 80
    for words in ("precision", "coverage", "authentic", "FID train - test", "pixels, sliced"):
        assert words in diffuse.out
    for words in ("FID against train", "FID against test"):
        assert re.search(rf"^  {words} +[\d.]+ +[\d.]+ to [\d.]+", diffuse.out, re.M)
    assert "no inception: the encoder is no classifier" in diffuse.err
    assert "no infinity: it needs more than 256 images for the curve" in diffuse.err
    record = json.loads((trained.parents[2] / "eval/tiny/v001/record.json").read_text())
    assert len(record["metrics"]["per_class"]["classes"]) == 10
    for name, score in record["metrics"].items():
        assert "floor" in score or name == "per_class"  # 44 training images: not 4 of each class
        assert score["ci95"][0] <= score["value"] <= score["ci95"][1], name


def test_the_range_of_the_pixels_is_the_checkpoints_and_nobody_elses(tiny, diffuse):
    assert diffuse.train("train.steps=1 range=[0,1] train.sample_every=null") == 0
    assert diffuse.json(LINE)["range"] == [0, 1]
    assert "unknown key 'range'" in diffuse.error("eval range=[-1,1]")


BAD = {
    "metrics=fidd": "metrics: unknown choice 'fidd'; did you mean 'fid'?",
    "metrics=[]": "metrics needs at least one value",
    "metrics=[agreement]": "no agreement here: the encoder is no classifier",
    "metrics=[fid,infinity]": "no infinity here: it needs more than 256 images for the",
    "seeds=2 seed=9223372036854775807": "seeds=2",
    "neighbours=0": "neighbours must be at least 1",
    "dataset=digits dataset.subset=9": "tiny/v001 learnt from other images than digits",
    "+dataset.root=digits": "dataset: needs a name",
    "label=3 metrics=[per_class]": "no per_class here",
}


@pytest.mark.parametrize(("words", "message"), BAD.items())
def test_a_bad_word_is_exit_2_before_anything_is_drawn(words, message, trained, diffuse):
    assert message in diffuse.error(f"{LINE} {words}")
    assert not (trained.parents[2] / "eval").exists()


def test_too_few_images_for_the_features_are_a_number_with_a_warning(trained, diffuse):
    record = diffuse.json(f"{LINE} n=20")
    assert record["fid"]["value"] > 0
    assert "n=20 is less than the 64 features" in diffuse.err
    assert "n=640 would do" in diffuse.err
    said = [line.removeprefix("warning: ") for line in diffuse.err.splitlines() if "n=640" in line]
    assert record["warnings"] == [*said, UNEVEN]


def test_too_few_images_of_a_class_are_a_warning_of_their_own(trained, diffuse):
    words = f"{LINE} encoder.size=2"  # 4 features: enough images in all, not in a class
    alone = diffuse.json(f"{words} metrics=[fid]")
    assert alone["warnings"] == [UNEVEN]
    record = diffuse.json(f"{words} metrics=[fid,per_class]")
    [said, _] = record["warnings"]
    assert said.startswith("a class has 4 images, few for the 4 features of the encoder")
    assert "40 of each class would do" in said


def test_the_size_of_subsets_is_the_one_that_was_used_and_their_deviation_is_shown(
    trained, diffuse
):
    record = diffuse.json(f"{LINE} n=20 kid_subset_size=500")
    assert record["settings"]["kid"]["size"] == 20
    assert diffuse(f"{LINE} n=20 kid_subset_size=10 kid_subsets=3") == 0
    record = json.loads((trained.parents[2] / "eval/tiny/v002/record.json").read_text())
    assert record["settings"]["kid"] == {"subsets": 3, "size": 10}
    [line] = [line for line in diffuse.out.splitlines() if "sd of subsets" in line]
    assert float(line.split()[-1]) == pytest.approx(1000 * record["kid"]["sd"], abs=1e-3)


@pytest.mark.parametrize(
    ("score", "shown"),
    [
        ({"value": 1.66, "ci95": [1.4243, 1.895]}, ("1.660", "1.424 to 1.895")),
        ({"value": 2.25e-3, "ci95": [2.1e-3, 2.43e-3]}, ("0.00225", "0.00210 to 0.00243")),
        ({"value": 3e-7, "ci95": [1e-7, 6e-7]}, ("0.00000030", "0.00000010 to 0.00000060")),
        ({"value": 1.0, "ci95": [1.0, 1.0]}, ("1.000", "1.000 to 1.000")),
    ],
)
def test_a_number_has_as_many_digits_as_its_interval_means(score, shown):
    found = cells("fid", score)
    assert (found["value"], found["95%"]) == shown


@pytest.mark.slow
@pytest.mark.parametrize("words", ["eval steps=2 kid_subset_size=4", "pareto nfe=[1]"])
def test_of_a_checkpoint_that_was_chosen_by_its_fid_the_record_says_so(words, trained, diffuse):
    line = f"{words} n=8 device=cpu encoder=pixels"
    assert diffuse.train("train.steps=8 train.eval_every=2 train.eval_n=16 resume=must") == 0
    chosen = diffuse.json(f"{line} checkpoint=best")
    assert "chosen by its FID on these test images" in diffuse.err
    assert "chosen by its FID" in chosen["warnings"][0]
    assert not any("chosen by its FID" in said for said in diffuse.json(line)["warnings"])


def test_features_that_are_no_numbers_are_exit_3_and_the_images_are_kept(
    trained, diffuse, monkeypatch
):
    table = torch.full((44, 64), torch.nan)
    monkeypatch.setattr("diffuse.features.drawn", lambda encoder, images: (table, 1.0))
    assert "features must be finite" in diffuse.error(f"{LINE} save=npy", code=3)
    assert np.load(trained.parents[2] / "eval/tiny/v001/images.npy").shape == (44, 8, 8)


def test_images_of_another_tool_have_the_same_numbers_as_ours(trained, diffuse):
    ours = diffuse.json(f"{LINE} save=npy metrics=[fid,kid,prdc]")
    line = f"{LINE} dataset=digits dataset.subset=64 metrics=[fid,kid,prdc]".replace(
        "n=44 steps=2 ", ""
    )
    theirs = diffuse.json(f"{line} images={ours['folder']}/images.npy")
    for name in ("fid", "kid"):
        assert theirs[name] == ours[name]
    assert theirs["metrics"] == ours["metrics"]
    assert theirs["reference"] == ours["reference"]
    assert theirs["source"]["n"] == theirs["n"] == 44
    assert "weights" not in theirs
    assert diffuse(f"compare tiny/v001 {theirs['folder']}") == 0
    assert "no difference" in diffuse.out


@pytest.mark.slow
def test_pngs_and_an_array_give_the_same_numbers(theirs, diffuse, tmp_path):
    (tmp_path / "pngs").mkdir()
    for k, image in enumerate(theirs):
        Image.fromarray(image).save(tmp_path / f"pngs/{k}.png")
    line = "eval dataset=digits encoder=pixels device=cpu"
    array, files = (diffuse.json(f"{line} images={name}") for name in ("theirs.npy", "pngs"))
    assert array["fid"] == files["fid"]
    assert array["source"]["sha256"] == files["source"]["sha256"]
    fewer = diffuse.json(f"{line} images=pngs n=30")
    assert (fewer["n"], fewer["source"]["n"]) == (30, 60)


@pytest.mark.slow
def test_statistics_of_another_tool_are_a_reference(theirs, diffuse, tmp_path):
    test = digits("test")
    features = pixels(test.spec, 8)(test.images)
    known = Moments.of(features)
    np.savez(tmp_path / "stats.npz", mu=known.mean.numpy(), sigma=known.covariance.numpy())
    line = "eval images=theirs.npy encoder=pixels device=cpu"
    whole = diffuse.json(f"{line} dataset=digits")
    alone = diffuse.json(f"{line} reference=stats.npz")
    assert alone["fid"]["value"] == pytest.approx(whole["fid"]["value"])
    assert alone["reference"]["path"] == "stats.npz"
    assert "floor" not in alone["fid"]
    assert "kid" not in alone
    both = diffuse.json(f"{line} dataset=digits reference=stats.npz")
    assert both["fid"]["floor"] == pytest.approx(whole["fid"]["floor"])
    assert "reference.sha256" in diffuse.error(f"compare {whole['folder']} {both['folder']}")


OUTSIDE = {
    "images=theirs.npy": (2, "say what they are compared with"),
    "images=theirs.npy dataset=digits steps=3": (2, "steps=3: nothing is drawn with images="),
    "images=theirs.npy dataset=digits seeds=3": (2, "seeds=3: nothing is drawn"),
    "images=theirs.npy dataset=digits eval.seeds=3": (2, "eval.seeds=3: nothing is drawn"),
    "images=theirs.npy dataset=digits n=61": (2, "n=61, but theirs.npy holds 60"),
    "images=theirs.npy dataset=digits ++n=61": (2, "n=61, but theirs.npy holds 60"),
    "images=nothing dataset=digits": (3, "no images at nothing"),
    "images=nan.npy dataset=digits": (3, "not finite"),
    "images=floats.npy dataset=digits": (3, "its range would be a guess"),
    "images=large.npy dataset=digits": (3, "16x16 with 1 channel, digits of 8x8 with 1 channel"),
    "images=rgb.npy dataset=digits": (
        3,
        "8x8 with 3 channels, digits of 8x8 with 1 channel; some have",
    ),
    "images=empty dataset=digits": (3, "holds no images"),
    "images=cut dataset=digits": (3, "cut/0.png is truncated"),
    "images=theirs.npy dataset=digits encoder=fashion_mnist reference=half.npz": (3, "no 'sigma'"),
}


@pytest.mark.parametrize(("words", "expected"), OUTSIDE.items())
def test_what_cannot_be_evaluated_is_named(words, expected, theirs, diffuse, tmp_path):
    code, message = expected
    floats = theirs.astype(np.float32) / 255
    np.savez(tmp_path / "half.npz", mu=np.zeros(128))
    np.save(tmp_path / "floats.npy", floats)
    np.save(tmp_path / "nan.npy", np.where(floats > 0.5, np.nan, floats))
    np.save(tmp_path / "large.npy", theirs.repeat(2, 1).repeat(2, 2))
    np.save(tmp_path / "rgb.npy", np.stack([theirs, theirs, theirs[::-1]], -1))
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut").mkdir()
    Image.fromarray(theirs[0]).save(tmp_path / "cut/0.png")
    content = (tmp_path / "cut/0.png").read_bytes()
    (tmp_path / "cut/0.png").write_bytes(content[: len(content) // 2])
    line = f"eval device=cpu encoder=pixels {words}" if "encoder" not in words else f"eval {words}"
    assert message in diffuse.error(line, code)
    assert not (tmp_path / "outputs/eval").exists()


@pytest.mark.slow
def test_the_lessons_mistake_in_images_of_another_tool_is_said(theirs, diffuse, tmp_path):
    """Made by a model in [-1, 1], saved by a program that took them for [0, 1]."""
    made = to_range(torch.from_numpy(theirs), (-1, 1))
    np.save(tmp_path / "mistaken.npy", to_uint8(made, (0, 1)).numpy())
    line = "eval dataset=digits encoder=pixels device=cpu"
    right, wrong = (diffuse.json(f"{line} images={n}.npy") for n in ("theirs", "mistaken"))
    assert not any("range" in line for line in right["warnings"])
    [warning] = [line for line in wrong["warnings"] if "range" in line]
    assert "[-1, 1] taken for [0, 1]" in warning
    assert wrong["fid"]["value"] > right["fid"]["ci95"][1]
