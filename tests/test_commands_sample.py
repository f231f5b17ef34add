"""`diffuse sample` and `eval` from a trained run to images and numbers, on real digits."""

import json

import numpy as np
import pytest
from PIL import Image

from diffuse import checkpoints, cli, runs
from diffuse.commands.drawing.saving import Result
from diffuse.console import rate


def arrays(diffuse, line=""):
    """The images of `sample save=npz`."""
    facts = diffuse.json(f"sample n=6 steps=2 device=cpu save=npz {line}")
    return np.load(f"{facts['folder']}/images.npz")


def test_every_image_is_saved_at_the_datas_own_size_in_the_form_asked_for(trained, diffuse):
    assert diffuse("sample n=6 steps=2 device=cpu save=png") == 0
    assert diffuse("sample n=6 steps=2 device=cpu save=npy") == 0
    npz = arrays(diffuse)
    folder = trained.parents[2] / "sample/tiny"
    files = sorted((folder / "v001/images").iterdir())
    assert [file.name for file in files] == [f"{k:06d}.png" for k in range(6)]
    png = np.stack([np.asarray(Image.open(file)) for file in files])
    npy = np.load(folder / "v002/images.npy")
    for images in (png, npy, npz["images"]):
        assert (images.shape, images.dtype) == ((6, 8, 8), np.uint8)
        assert (images == npy).all()
    assert npz["labels"].tolist() == [0, 1, 2, 3, 4, 5]
    for version in ("v001", "v002", "v003"):
        Image.open(folder / version / "samples.png").verify()
    facts = runs.read(folder / "v001")
    assert (facts["status"], facts["n"], facts["nfe"]) == ("done", 6, 2)


def test_what_padding_added_is_not_in_the_images(diffuse, tmp_path):
    assert diffuse.train("train.steps=1 dataset.fit=pad train.sample_every=null") == 0
    assert arrays(diffuse, "n=2")["images"].shape == (2, 8, 8)


def test_rgb_images_have_a_last_axis_of_three(tiny, diffuse, tmp_path):
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "Größe (a & b)"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for k in range(4):
                pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{k}.png")
    line = " ".join(word for word in tiny.split() if not word.startswith("dataset"))
    photos = f"dataset=folder dataset.root={tmp_path}/photos"
    assert diffuse(f"train {line} {photos} train.batch=4 train.steps=2") == 0
    npz = arrays(diffuse, "n=3")
    assert npz["images"].shape == (3, 8, 8, 3)
    assert npz["labels"].tolist() == [0, 1, 0]
    assert cli.main(["sample", "n=2", "steps=2", "label=Größe (a & b)", "save=npz"]) == 0
    assert np.load("outputs/sample/tiny/v002/images.npz")["labels"].tolist() == [0, 0]
    assert diffuse("eval n=4 steps=2") == 0
    for label in ("Größe (a & b)", "0"):  # the same class
        assert cli.main(["eval", "n=4", "steps=2", f"label={label}", "known=true"]) == 0
    assert len(list((tmp_path / "outputs/eval/tiny").glob("v*"))) == 2


def test_an_image_depends_on_seed_and_number_and_not_on_how_many_there_are(trained, diffuse):
    six, seven = (arrays(diffuse, f"n={n} batch=3")["images"] for n in (6, 7))
    assert (six == seven[:6]).all()
    assert (arrays(diffuse, "batch=3 seed=1")["images"] != six).any()


@pytest.mark.slow
def test_weights_checkpoints_samplers_and_labels_can_be_chosen(trained, diffuse):
    newest = arrays(diffuse)["images"]
    assert (arrays(diffuse, "checkpoint=4")["images"] == newest).all()
    for change in ("weights=raw", "checkpoint=2", "sampler=ddpm steps=2", "steps=3"):
        assert (arrays(diffuse, change)["images"] != newest).any(), change
    best = runs.read(trained)["best"]["step"]
    same = arrays(diffuse, f"checkpoint={best}")["images"]
    assert (arrays(diffuse, "checkpoint=best")["images"] == same).all()
    of_seven = arrays(diffuse, "label=7")
    assert of_seven["labels"].tolist() == [7] * 6


@pytest.mark.parametrize("run", ["tiny", "outputs/train/tiny/v001"])
def test_a_run_is_named_in_every_way(run, trained, diffuse):
    facts = diffuse.json(f"sample n=1 steps=1 run={run}")
    assert facts["weights"]["run"] == "outputs/train/tiny/v001"
    assert (facts["weights"]["step"], facts["weights"]["name"]) == (4, "ema")


BAD = {
    "run=tinny": "no run 'tinny' in outputs/train; did you mean 'tiny/v001'?",
    "checkpoint=3": "no checkpoint 3; choices: 2, 4",
    "label=eleven": "label: no class 'eleven'",
    "label=10": "label: no class 10; their numbers are 0 to 9",
    "guide=early": "guide=early: it does nothing at guidance=1; say guidance=2, too",
}


BAD_EVAL = {
    "kid_subsets=0": "kid_subsets must be at least 2",
    "kid_subset_size=1": "kid_subset_size must be at least 2",
    "encoder=pixels encoder.size=0": "encoder: size must be at least 1",
}


@pytest.mark.parametrize(
    ("verb", "line", "words"),
    [("sample", *bad) for bad in BAD.items()] + [("eval", *bad) for bad in BAD_EVAL.items()],
)
def test_a_bad_value_is_one_line_exit_2_and_no_folder(verb, line, words, trained, diffuse):
    assert words in diffuse.error(f"{verb} {line}")
    assert not (trained.parents[2] / verb).exists()


def test_a_bad_value_is_found_before_the_run_that_is_not_there(diffuse):
    assert "eta must be" in diffuse.error("sample run=nothing sampler.eta=2")
    assert "no run 'nothing'" in diffuse.error("eval run=nothing")
    assert "start with diffuse train" in diffuse.error("sample")


def test_a_label_is_refused_where_the_model_knows_none(diffuse):
    assert diffuse.train("train.steps=1 model.conditional=false train.sample_every=null") == 0
    assert "does not know classes" in diffuse.error("sample label=1")
    assert diffuse("sample n=2 steps=1") == 0


def damage(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("verb", "name"),
    [("sample", "ema.safetensors"), ("eval", "ema.safetensors"), ("sample", "state.json")],
)
def test_a_damaged_checkpoint_is_never_loaded(verb, name, trained, diffuse, monkeypatch):
    damage(trained / "checkpoints/step_00000004" / name)
    loaded = []
    real = checkpoints.load_tensors
    monkeypatch.setattr(
        checkpoints,
        "load_tensors",
        lambda path, *rest: loaded.append(path.name) or real(path, *rest),
    )
    assert name in diffuse.error(f"{verb} checkpoint=4", code=3)
    assert not loaded
    assert not (trained.parents[2] / verb).exists()
    assert diffuse(f"{verb} n=4 steps=1") == 0
    assert loaded == ["step_00000002"]
    assert "looking for an older checkpoint" in diffuse.err
    damage(trained / "checkpoints/step_00000002" / name)
    assert "no whole checkpoint" in diffuse.error(f"{verb} run=tiny", code=3)
    assert loaded == ["step_00000002"]


def test_a_damaged_config_of_a_run_is_exit_3(trained, diffuse):
    (trained / "config.yaml").write_text("model: [")
    assert "config.yaml is damaged" in diffuse.error("sample run=tiny", code=3)
    (trained / "config.yaml").unlink()
    assert "config.yaml is missing" in diffuse.error("sample run=tiny", code=3)


def test_a_dry_run_writes_nothing(trained, diffuse):
    before = sorted(trained.parents[2].rglob("*"))
    for verb in ("sample", "eval"):
        assert diffuse(f"{verb} n=5 steps=3 dry_run=true") == 0
        assert "ddim(eta=0.0, noise=1.0), 3 steps" in diffuse.out
    assert sorted(trained.parents[2].rglob("*")) == before


RECORD = {
    "schema": None, "n": None, "fid": {"value", "ci95", "floor"}, "kid": {"value", "sd", "ci95"},
    "encoder": {"name", "sha256", "size", "filter"},
    "reference": {"dataset", "split", "sha256"},
    "weights": {"run", "step", "name", "sha256"},
    "sampler": {"name", "grid", "steps", "nfe", "start", "clip"},
    "seeds": None, "device": None, "dtype": None, "revision": None, "versions": None,
    "seconds": None,
}  # fmt: skip


def test_an_evaluation_records_everything_its_numbers_depend_on(trained, diffuse):
    record = diffuse.json("eval n=24 steps=3 device=cpu kid_subsets=3 kid_subset_size=10")
    for key, inner in RECORD.items():
        assert key in record
        assert inner is None or inner <= set(record[key]), key
    folder = trained.parents[2] / "eval/tiny/v001"
    assert {
        **json.loads((folder / "record.json").read_text()),
        "folder": record["folder"],
    } == record
    assert record["n"] == 24
    assert record["fid"]["value"] > record["fid"]["floor"] > 0
    assert record["sampler"]["nfe"] == record["sampler"]["steps"] == 3
    assert record["reference"] == {**record["reference"], "dataset": "digits", "split": "test"}
    digest = checkpoints.sha256(trained / "checkpoints/step_00000004", "ema")
    assert record["weights"]["sha256"] == digest
    assert "PIXELS" in diffuse.err


def test_the_same_evaluation_gives_the_same_numbers_and_another_seed_others(trained, diffuse):
    line = "eval n=24 steps=2 device=cpu kid_subsets=3 kid_subset_size=10"
    one, two, other = (diffuse.json(f"{line} seed={seed}") for seed in (0, 0, 1))
    assert (one["fid"], one["kid"]) == (two["fid"], two["kid"])
    assert one["fid"]["value"] != other["fid"]["value"]
    assert one["fid"]["floor"] == other["fid"]["floor"]


def test_an_evaluation_is_a_table_with_the_floor_and_the_calls(trained, diffuse):
    assert diffuse("eval n=24 steps=3 device=cpu save=npy") == 0
    for words in ("FID", "real images", "KID", "24", "digits test", "pixels", "NFE", "images/s"):
        assert words in diffuse.out
    assert np.load(trained.parents[2] / "eval/tiny/v001/images.npy").shape == (24, 8, 8)


def test_a_model_that_knows_no_classes_is_asked_for_none(diffuse):
    assert diffuse.train("train.steps=2 model.conditional=false") == 0
    assert set(arrays(diffuse).files) == {"images"}
    assert diffuse.train("train.steps=2 model.conditional=true") == 0
    assert set(arrays(diffuse).files) == {"images", "labels"}


def test_skipping_that_skips_nothing_says_what_would(trained, diffuse):
    assert diffuse("sample n=1 steps=20 reuse=skip dry_run=true") == 0
    assert "reuse=skip saves none of 20 calls: try reuse.last=4\n" in diffuse.err
    assert diffuse("sample n=1 steps=20 reuse=skip reuse.last=4 dry_run=true") == 0
    assert "saves none" not in diffuse.err


def test_whoever_says_that_nothing_is_guided_may_say_away_from_what(trained, diffuse):
    assert diffuse("sample n=1 guidance=1 guide=early dry_run=true") == 0, diffuse.err


@pytest.mark.parametrize(("seconds", "speed"), [(250, 0.004), (0.0081, 123.5)])
def test_an_image_that_takes_minutes_has_a_speed(seconds, speed, trained, diffuse, monkeypatch):
    monkeypatch.setattr(Result, "speed", 1 / seconds)
    assert (
        diffuse.json("eval n=8 steps=2 device=cpu encoder=pixels metrics=fid")["images_per_second"]
        == speed
    )
    assert diffuse.json("sample n=4 steps=2 device=cpu")["images_per_second"] == speed
    assert diffuse("sample n=4 steps=2 device=cpu") == 0
    assert f" {rate(1 / seconds)} images/s, " in diffuse.out
