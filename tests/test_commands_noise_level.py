"""`diffuse noise_level`, and sampling by the levels that its network sees, on real digits."""

import pytest
import torch

from diffuse import noise_level, runs
from diffuse.data import open_dataset
from diffuse.schedules import cosine

COSINE = cosine(0.008, 0.001, 0.999)
TRAIN = "noise_level dataset=digits dataset.subset=64 width=8 batch=16 epochs=1 device=cpu name=see"
SEEN = "sampler=ddim_predicted noise_level=see n=4 steps=3 device=cpu"
SCORED = "kid_subsets=2 kid_subset_size=2"


@pytest.fixture
def make_seer(trained):
    """A run of `diffuse noise_level` that has learned nothing, beside a run of `train`."""

    def make(seed=0, range=(-1.0, 1.0), levels=COSINE.range):
        folder = runs.claim(trained.parents[2], "noise_level", "see")
        runs.Run.start(folder, "noise_level", "", [], name="see")
        spec = open_dataset({"name": "digits", "fit": "none"}, "test").spec
        regressor = noise_level.new_regressor(1, 8, seed, torch.float32)
        shape = {"channels": 1, "width": 8}
        return noise_level.save(folder, 1, regressor, spec, range, levels, shape)

    return make


def test_from_training_without_levels_to_images_and_scores(diffuse):
    for change in ("model.conditional=false", ""):
        few = f"train.steps=2 train.sample_every=null model.noise_level=false {change}"
        assert diffuse.train(few) == 0
    facts = diffuse.json(TRAIN)
    assert facts["status"] == "done"
    assert facts["loss"] > 0
    assert 3 < facts["baseline"] < 4
    seen = {"run": "outputs/noise_level/see/v001", "sha256": facts["sha256"]}
    drawn = [diffuse.json(f"sample {SEEN} run=tiny/{version}") for version in ("v001", "v002")]
    for result in drawn:
        assert result["sampler"]["noise_level"] == seen
        assert result["nfe"] == 3
    record = diffuse.json(f"eval {SEEN} {SCORED}")
    assert record["sampler"]["noise_level"] == seen
    told = diffuse.json("sample sampler=ddpm n=4 steps=3 device=cpu")
    assert told["sampler"]["noise_level"] is None
    assert told["fingerprint"] != drawn[1]["fingerprint"]


def test_its_result_is_a_table_with_the_baseline_and_a_dry_run_writes_nothing(diffuse, tmp_path):
    assert diffuse(f"{TRAIN} dry_run=true") == 0
    assert "4 steps of 16 images" in diffuse.out
    assert diffuse(f"{TRAIN} epochs=3 batch=24 dry_run=true") == 0
    assert "8 steps of 24 images" in diffuse.out  # a batch may have images of two epochs
    assert not (tmp_path / "outputs").exists()
    assert diffuse("noise_level dataset=digits device=cpu debug=smoke") == 0
    for words in ("loss", "baseline", "always saying 0.5", "time", "noise_level=digits-cosine"):
        assert words in diffuse.out
    assert runs.read(tmp_path / "outputs/noise_level/digits-cosine/v001")["smoke"]


def test_a_network_that_is_told_the_level_can_be_sampled_so_too(make_seer, diffuse):
    sha256, path = make_seer(), "outputs/noise_level/see/v001"
    for ref in ("see", "see/v001", path):
        drawn = diffuse.json(f"sample {SEEN.replace('noise_level=see', f'noise_level={ref}')}")
        assert drawn["sampler"]["noise_level"] == {"run": path, "sha256": sha256}
    assert diffuse(f"sample {SEEN} dry_run=true") == 0
    assert f"seen by {path}" in diffuse.out


def test_a_known_evaluation_is_one_with_the_same_regressor(make_seer, diffuse):
    line, folders = f"eval {SEEN} {SCORED} known=true", []
    for seed in (0, 0, 1):
        make_seer(seed)
        folders.append(diffuse.json(line)["folder"])
    assert [folder[-4:] for folder in folders] == ["v001", "v001", "v002"]


BAD = {
    "sample sampler=ddim_predicted": "name it by noise_level=, in diffuse sample and diffuse eval",
    "sample noise_level=see": "noise_level=see: ddim takes none; use sampler=ddim_predicted",
    f"eval {SEEN} noise_level=seer": "no run 'seer' in outputs/noise_level; did you mean 'see/v001",
    f"sample {SEEN} reuse=skip": "reuse: ddim_predicted gives each image a level of its own",
    f"sample {SEEN} sampler.guard=0": "guard must be at least 1",
    f"sample {SEEN} +sampler.level_of=3": "level_of is set by the program",
    "train sampler=ddim_predicted": "sampler: ddim_predicted takes the levels from a run",
    "noise_level width=12 dataset=digits": "width must be a multiple of 8, got 12",
    "noise_level range=[1,0] dataset=digits": "range must be two ascending numbers",
    "noise_level schedule.s=2 dataset=digits": "schedule: s must be in [0, 1), got 2",
}


@pytest.mark.parametrize("line", BAD)
def test_what_cannot_be_is_one_line_and_leaves_no_folder(line, make_seer, diffuse, tmp_path):
    make_seer()
    before = sorted((tmp_path / "outputs").rglob("*"))
    assert BAD[line] in diffuse.error(line)
    assert sorted((tmp_path / "outputs").rglob("*")) == before


def test_a_regressor_of_other_images_or_fewer_levels_is_refused(make_seer, diffuse):
    make_seer(range=(0.0, 1.0))
    message = diffuse.error(f"sample {SEEN}")
    assert message.startswith("noise_level: outputs/noise_level/see/v001 was trained on digits")
    make_seer(levels=(0.01, 157.0))
    assert "train one with the schedule of the run" in diffuse.error(f"sample {SEEN}")


def test_without_any_run_the_error_says_how_to_make_one(trained, diffuse):
    assert "train one with diffuse noise_level" in diffuse.error(f"sample {SEEN}")


def test_a_damaged_regressor_is_never_loaded(make_seer, trained, diffuse):
    make_seer()
    path = trained.parents[2] / "noise_level/see/v001/checkpoints/step_00000001"
    (path / "regressor.safetensors").write_bytes(b"")
    assert "regressor.safetensors has 0 bytes" in diffuse.error(f"sample {SEEN}", code=3)


def test_the_way_by_predicted_levels_can_be_watched(make_seer, diffuse):
    make_seer()
    words = "sampler=ddim_predicted noise_level=see steps=4 n=2 device=cpu"
    facts = diffuse.json(f"plot trajectory {words}")
    assert (facts["steps"], facts["calls"]) == (4, 4)
    assert "noise_level" in diffuse.error("plot trajectory sampler=ddim_predicted n=1 device=cpu")
