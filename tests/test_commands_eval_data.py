"""The data that a run is judged by: its own, wherever it is now; few images; a folder of others."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffuse.data import open_dataset

LINE = "eval n=8 steps=2 device=cpu encoder=pixels kid_subsets=2 kid_subset_size=4"

PARETO = "pareto device=cpu encoder=pixels n=8 samplers=[ddim] nfe=[2]"
ALONG = "fid_trajectory n=8 steps=2 device=cpu encoder=pixels"
DENOISE = "plot denoise n=1 columns=2 device=cpu"


@pytest.fixture
def photos(tmp_path):
    """Forty gray images of 8x8, and a run that has learnt from them."""
    images = open_dataset({"name": "digits"}, "train").images[:40, 0].numpy()
    for split, part in (("train", images[:30]), ("test", images[30:])):
        (tmp_path / "photos" / split).mkdir(parents=True)
        for k, image in enumerate(part):
            Image.fromarray(image).save(tmp_path / f"photos/{split}/{k}.png")
    return tmp_path / "photos"


@pytest.fixture
def learnt(photos, tiny, diffuse):
    line = tiny.replace("dataset=digits dataset.subset=64", "dataset=folder dataset.root=photos")
    words = "train.steps=1 train.sample_every=null model.conditional=false"
    assert diffuse(f"train {line} {words}") == 0, diffuse.err


@pytest.fixture
def sorted_photos(photos, tiny, diffuse):
    """The same in the class folders a and b, and a run that has learnt their classes."""
    for split in ("train", "test"):
        for k, image in enumerate(list((photos / split).iterdir())):
            (photos / split / "ab"[k % 2]).mkdir(exist_ok=True)
            image.rename(photos / split / "ab"[k % 2] / image.name)
    line = tiny.replace("dataset=digits dataset.subset=64", "dataset=folder dataset.root=photos")
    assert diffuse(f"train {line} train.steps=1 train.sample_every=null") == 0, diffuse.err
    return photos


def _a_class_more(photos):
    shutil.copytree(photos / "train/a", photos / "train/aa")


def _another_name(photos):
    for split in ("train", "test"):
        (photos / split / "b").rename(photos / split / "z")


def _in_colour(photos):
    path = next((photos / "test/a").iterdir())
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(path)


def _larger(photos):
    for path in photos.rglob("*.png"):
        Image.open(path).resize((10, 12)).save(path)


@pytest.mark.parametrize(
    ("change", "before", "now"),
    [
        (_a_class_more, "2 classes, number 1 is b", "3 classes, number 1 is aa"),
        (_another_name, "2 classes, number 1 is b", "2 classes, number 1 is z"),
        (_in_colour, "images of 1x8x8", "images of 3x8x8"),
        (_larger, "images of 1x8x8", "images of 1x12x10"),
    ],
)
def test_data_that_no_longer_fits_the_network_is_exit_3_before_anything_is_drawn(
    change, before, now, sorted_photos, diffuse
):
    change(sorted_photos)
    said = f"outputs/train/tiny/v001 learnt from {before}; photos has {now}"
    for line in (LINE, PARETO, DENOISE):
        assert said in diffuse.error(line, 3), line
    assert said in diffuse.error(f"{LINE} dataset=folder dataset.root=photos")
    for verb in ("eval", "pareto", "plot"):
        assert not Path("outputs", verb).exists()


def test_a_network_that_knows_no_classes_cannot_be_wrong_about_them(sorted_photos, tiny, diffuse):
    line = tiny.replace("dataset=digits dataset.subset=64", "dataset=folder dataset.root=photos")
    line = line.replace("name=tiny", "name=free train.steps=1 train.sample_every=null")
    assert diffuse(f"train {line} model.conditional=false") == 0, diffuse.err
    _another_name(sorted_photos)
    before = diffuse.json(f"{LINE} run=free")["warnings"]
    assert not [said for said in before if "other images" in said]
    _a_class_more(sorted_photos)
    assert [said for said in diffuse.json(f"{LINE} run=free")["warnings"] if "other images" in said]


def test_data_that_was_moved_is_said_where_it_is_and_has_to_be_the_same(learnt, photos, diffuse):
    first = diffuse.json(LINE)
    photos.rename(photos.with_name("moved"))
    message = diffuse.error(LINE, 3)
    assert "photos is missing" in message
    assert message.endswith("dataset= says where the data of outputs/train/tiny/v001 is now")
    record = diffuse.json(f"{LINE} dataset=folder dataset.root=moved")
    assert record["fid"] == first["fid"]
    assert record["warnings"] == first["warnings"]
    (photos.with_name("moved") / "test/0.png").unlink()
    message = diffuse.error(f"{LINE} dataset=folder dataset.root=moved")
    assert "dataset: outputs/train/tiny/v001 learnt from other images than" in message


@pytest.mark.parametrize("line", [LINE, PARETO, DENOISE])
def test_data_that_has_changed_since_is_a_warning_in_the_record(line, learnt, photos, diffuse):
    assert not [said for said in diffuse.json(line)["warnings"] if "other images" in said]
    (photos / "train/0.png").unlink()
    [said] = [s for s in diffuse.json(line)["warnings"] if "other images" in s]
    assert said.startswith("outputs/train/tiny/v001 learnt from other images than")


def test_moved_data_is_read_as_the_training_read_it(photos, tiny, diffuse):
    """Its share of test images, its subset and its size need not be said again."""
    line = tiny.replace("dataset=digits", "dataset=folder").replace("subset=64", "subset=10")
    words = "dataset.root=photos/train dataset.test=0.3 dataset.size=4 train.sample_every=null"
    assert diffuse(f"train {line} {words} train.steps=1 model.conditional=false") == 0, diffuse.err
    first = diffuse.json(LINE)
    photos.rename(photos.with_name("moved"))
    moved = f"{LINE} dataset=folder dataset.root=moved/train"
    record = diffuse.json(moved)
    assert record["fid"] == first["fid"]
    assert record["warnings"] == first["warnings"]
    assert "learnt from other images than" in diffuse.error(f"{moved} dataset.subset=9")
    assert "root" in diffuse.error(f"{LINE} dataset=folder dataset.test=0.3")


@pytest.mark.parametrize("fit", ["pad", "resize"])
def test_data_is_the_same_whatever_size_the_network_saw(fit, diffuse):
    assert diffuse.train(f"train.steps=1 train.sample_every=null dataset.fit={fit}") == 0
    assert not [said for said in diffuse.json(LINE)["warnings"] if "other images" in said]


def test_a_folder_is_a_reference_whatever_made_it(trained, photos, diffuse):
    """Twice the same number: of the folder, and of the statistics of its features."""
    record = diffuse.json(f"{LINE} reference=photos/test")
    assert record["reference"]["n"] == 10
    assert record["reference"]["path"] == "photos/test"
    images = np.stack([np.asarray(Image.open(p)) for p in sorted((photos / "test").iterdir())])
    features = images.reshape(10, 64).astype(np.float32) / 127.5 - 1
    mu, sigma = features.mean(0, dtype=np.float64), np.cov(features.T.astype(np.float64))
    np.savez("theirs.npz", mu=mu, sigma=sigma)
    other = diffuse.json(f"{LINE} reference=theirs.npz")
    assert record["fid"]["value"] == pytest.approx(other["fid"]["value"], rel=1e-6)
    (photos / "one").mkdir()
    shutil.copy(photos / "test/0.png", photos / "one")
    assert "is 1 image, a reference takes 2" in diffuse.error(f"{LINE} reference=photos/one", 3)


@pytest.mark.parametrize("count", [1, 3])
def test_too_few_training_images_for_a_floor_cost_the_floor_alone(count, tiny, diffuse):
    line = tiny.replace("dataset.subset=64", f"dataset.subset={count}")
    assert diffuse(f"train {line} train.steps=1 train.sample_every=null") == 0, diffuse.err
    record = diffuse.json(f"{LINE} metrics=all")
    assert record["fid"]["value"] > 0
    assert "floor" not in record["fid"]
    assert f"there is no floor: digits has {count} training image" in diffuse.err
    assert diffuse(LINE) == 0, diffuse.err
    assert "a floor takes 4 training images" in diffuse.error(PARETO, 3)
    assert "a floor takes 4 training images" in diffuse.error(f"plot {ALONG}", 3)
    assert not Path("outputs/plot").exists()


def test_a_test_split_of_one_image_is_refused_before_anything_is_drawn(photos, tiny, diffuse):
    for path in list((photos / "test").iterdir())[1:]:
        path.unlink()
    line = tiny.replace("dataset=digits dataset.subset=64", "dataset=folder dataset.root=photos")
    line = f"train {line} train.steps=1 train.sample_every=null model.conditional=false"
    said = "its test split is 1 image, a FID takes 2 at least"
    assert said in diffuse.error(f"{line} train.eval_every=1 train.eval_n=8", 3)
    assert diffuse(line) == 0
    assert said in diffuse.error(LINE, 3)
    assert not list(photos.parent.glob("outputs/eval/*"))


def test_a_damaged_evaluation_is_measured_again(trained, diffuse, tmp_path):
    first, again = (diffuse.json(f"{LINE} known=true")["folder"] for _ in range(2))
    assert first == again
    for name in ("record.json", "config.yaml"):
        path = tmp_path / diffuse.json(f"{LINE} known=true")["folder"] / name
        path.write_text(path.read_text()[:20] + ": [")
        assert diffuse.json(f"{LINE} known=true")["folder"] not in (str(path.parent), first)


def test_a_checkpoint_can_be_named_with_its_run(trained, diffuse):
    for ref in ("tiny@2", "outputs/train/tiny/v001/checkpoints/step_00000002"):
        assert diffuse.json(f"{LINE} run={ref}")["weights"]["step"] == 2
    assert "say it once" in diffuse.error(f"{LINE} run=tiny@2 checkpoint=4")


def test_a_run_whose_run_json_is_damaged_is_evaluated_all_the_same(trained, diffuse):
    (trained / "run.json").write_text("{")
    record = json.loads(json.dumps(diffuse.json(f"{LINE} run=tiny")))
    assert record["folder"] == "outputs/eval/tiny/v001"
    assert record["weights"]["step"] == 4


DRAWN = {
    "": ("heun", "logsnr", 3, "dynamic"),  # as the training drew its own
    "steps=4": ("heun", "logsnr", 4, "dynamic"),
    "nfe=7": ("heun", "logsnr", 4, "dynamic"),
    "clip=none": ("heun", "logsnr", 3, "none"),
    "sampler=ddim": ("ddim", "uniform", 50, "dynamic"),  # steps are a sampler's
    "sampler.eta=1": ("ddim", "uniform", 50, "dynamic"),  # of the one that there is without a word
    "grid=karras": ("ddim", "karras", 50, "dynamic"),
    "sampler=ddim steps=2": ("ddim", "uniform", 2, "dynamic"),
    "debug=smoke": ("ddim", "uniform", 2, "none"),
}


def test_images_are_drawn_as_the_training_drew_its_own_unless_a_word_says_how(diffuse):
    how = "sampler=heun grid=logsnr steps=3 clip=dynamic"
    assert diffuse.train(f"train.steps=1 train.sample_every=null {how}") == 0
    for words, drawn in DRAWN.items():
        found = diffuse.json(f"sample n=4 device=cpu run=tiny {words}")["sampler"]
        assert (found["choice"], found["grid"]["name"], found["steps"], found["clip"]) == drawn
