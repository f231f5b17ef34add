"""`diffuse train` from the command line to the run folder, on real digits."""

import time
from pathlib import Path

import pytest
import torch
from leftovers import begin_with, rows
from omegaconf import OmegaConf
from PIL import Image

from diffuse import checkpoints, hardware, runs
from diffuse.commands.training import preparing


def test_a_run_folder_has_all_that_the_design_says(trained):
    names = {path.name for path in trained.iterdir()}
    assert names == {"config.yaml", "overrides.yaml", "run.json", "metrics.jsonl", "log.txt",
                     "checkpoints", "samples"}  # fmt: skip
    facts = runs.read(trained)
    keys = "schema status command name version hypothesis git versions device seed started seconds "
    assert set((keys + "images_seen parameters steps smoke data").split()) <= set(facts)
    assert (facts["status"], facts["images_seen"], facts["step"]) == ("done", 64, 4)
    assert checkpoints.steps(trained / "checkpoints") == [2, 4]
    for step in (2, 4):
        path = checkpoints.at(trained / "checkpoints", step)
        checkpoints.verify(path)
        assert {p.name for p in path.iterdir()} == {
            "model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json",
            "MANIFEST.json",
        }  # fmt: skip
    assert (trained.parent / "latest").resolve() == trained.resolve()
    samples = sorted(p.name for p in (trained / "samples").iterdir())
    assert samples == ["latest.png", "step_00000002.png", "step_00000004.png"]
    for name in samples:
        Image.open(trained / "samples" / name).verify()


def test_the_rows_of_a_run_are_losses_held_out_losses_and_quick_scores(trained):
    losses = [row for row in rows(trained) if "loss" in row]
    assert [row["step"] for row in losses] == [1, 2, 3, 4]
    assert all(0 < row["loss"] < 10 and row["grad_norm"] > 0 and row["lr"] >= 0 for row in losses)
    assert [row["images_seen"] for row in losses] == [16, 32, 48, 64]
    assert [row["step"] for row in rows(trained) if "test_loss" in row] == [2, 4]
    scores = [row for row in rows(trained) if "fid" in row]
    assert [row["eval_n"] for row in scores] == [16, 16]
    assert all(row["fid_low"] < row["fid"] < row["fid_high"] for row in scores)
    assert all(row["kid_low"] < row["kid"] < row["kid_high"] for row in scores)
    assert scores[0]["fid_real"] == scores[1]["fid_real"] > 0
    best = runs.read(trained)["best"]
    assert best["fid"] == min(row["fid"] for row in scores)


def test_the_saved_config_is_the_whole_config_and_trains_the_same_again(trained, diffuse):
    saved = OmegaConf.load(trained / "config.yaml")
    assert (saved.model.width, saved.train.steps, saved.precision) == (8, 4, "fp32")
    assert "model.width=8" in (trained / "overrides.yaml").read_text()
    assert diffuse.train("train.steps=4 train.eval_every=2 train.eval_n=16") == 0
    again = trained.parent / "v002"
    for name in ("model", "ema", "optimizer"):
        one, two = (checkpoints.load_tensors(run / "checkpoints/step_00000004", name)
                    for run in (trained, again))  # fmt: skip
        assert all(torch.equal(one[key], two[key]) for key in one)
    assert rows(trained) == rows(again)


def test_the_result_is_on_stdout_and_the_progress_on_stderr(tiny, diffuse):
    facts = diffuse.json(f"train {tiny} train.steps=2")
    assert (facts["status"], facts["steps"], facts["name"]) == ("done", 2, "tiny")
    assert diffuse.train("train.steps=2") == 0
    assert "outputs/train/tiny/v002" in diffuse.out
    assert "2/2" in diffuse.err
    assert "2/2" not in diffuse.out


def test_a_dry_run_says_what_would_happen_and_writes_nothing(tiny, diffuse, tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "seconds_per_step", lambda *_: 0.5)
    assert diffuse.train("train.steps=120 dry_run=true") == 0
    for words in ("8x8", "parameters", "120 of 16 images", "about 1 min 0 s", "MiB", "v, weighting",
                  "cosine, noise law uniform", "[-1, 1]", "2 steps of ddim"):  # fmt: skip
        assert words in diffuse.out
    assert "guidance" not in diffuse.out
    plan = diffuse.json(f"train {tiny} train.steps=120 dry_run=true")
    assert f"{plan['parameters']:,} parameters" in plan["plan"]["model"]
    assert plan["config"]["train"]["steps"] == 120
    guided = diffuse.json(f"train {tiny} train.steps=1 dry_run=true guidance=2 range=[0,1]")["plan"]
    assert (guided["guidance"], guided["range"]) == ("2, away from labels", "[0, 1]")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("length", "steps"),
    [
        ("train.steps=7", 7),
        ("train.images=100", 6),
        ("train.epochs=1.5", 6),
        ("train.minutes=0.01", 12),
        ("", 4800),
    ],
)
def test_every_way_to_say_the_length_becomes_a_number_of_steps(
    tiny, length, steps, diffuse, monkeypatch
):
    monkeypatch.setattr(preparing, "seconds_per_step", lambda *_: 0.05)
    plan = diffuse.json(f"train {tiny} {length} dry_run=true")
    assert plan["steps"] == steps
    lengths = {k: plan["config"]["train"][k] for k in ("steps", "images", "epochs", "minutes")}
    assert lengths == {"steps": steps, "images": None, "epochs": None, "minutes": None}


def test_the_smoke_test_tries_every_part_and_is_not_the_newest_run(tiny, diffuse, trained):
    tiny = " ".join(w for w in tiny.split() if w.startswith(("dataset=", "model.", "pr")))
    assert diffuse(f"train {tiny} debug=smoke name=smoke device=cpu") == 0
    smoke = trained.parents[1] / "smoke/v001"
    assert {"loss", "test_loss", "fid"} <= {key for row in rows(smoke) for key in row}
    assert diffuse.json("sample n=1 steps=1")["weights"]["run"] == "outputs/train/tiny/v001"
    assert diffuse("sample run=smoke debug=smoke") == 0
    assert diffuse("eval run=smoke debug=smoke") == 0


def test_a_job_that_cannot_train_is_found_before_another_does(tiny, diffuse, tmp_path):
    error = diffuse.error(f"train {tiny} -m model.width=8,9")
    assert "width 9" in error
    assert "in the job model.width=9" in error
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_a_sweep_trains_each_job_in_a_folder_of_its_own(diffuse, tmp_path):
    assert diffuse.train("train.steps=1 schedule=linear,cosine --multirun") == 0
    jobs = [tmp_path / "outputs/train/tiny/v001" / k for k in "01"]
    assert [OmegaConf.load(j / "config.yaml").schedule.name for j in jobs] == ["linear", "cosine"]
    assert all(runs.read(job)["status"] == "done" for job in jobs)
    assert diffuse("sample run=tiny/v001/0 n=2 steps=2") == 0


def test_a_diverged_training_is_exit_4_and_keeps_its_last_good_checkpoint(diffuse, tmp_path):
    line = "optimizer.lr=1e30 train.clip_grad=null train.lr_schedule=constant train.warmup=0"
    assert diffuse.train(f"{line} train.steps=9 train.save_every=1 train.sample_every=null") == 4
    assert diffuse.err.splitlines()[-1].startswith("error: step ")
    run = tmp_path / "outputs/train/tiny/v001"
    facts = runs.read(run)
    assert facts["status"] == "diverged"
    kept = checkpoints.newest(run / "checkpoints")
    weights = checkpoints.load_tensors(kept, "model").values()
    assert all(w.isfinite().all() for w in weights)


@pytest.mark.parametrize(("share", "warned"), [(0.5, True), (0.99, False)])
def test_minutes_timed_beside_other_load_come_with_a_warning(share, warned, diffuse, monkeypatch):
    monkeypatch.setattr(preparing, "seconds_per_step", lambda *_: 20.0)
    monkeypatch.setattr(hardware.Share, "so_far", lambda self: share)
    assert diffuse.train("train.minutes=1") == 0
    line = "warning: something else computes here, too: 50 % of the time was ours"
    assert (line in diffuse.err) == warned


def test_the_share_of_a_process_is_what_it_computes():
    share = hardware.Share()
    time.sleep(0.3)
    assert share.so_far() < 0.2 / torch.get_num_threads()
    busy = hardware.Share()
    while time.process_time() - busy.own < 0.2:
        pass
    assert busy.so_far() > share.so_far()


def test_a_full_disk_is_exit_5_and_names_the_checkpoint(diffuse, tmp_path, monkeypatch):
    import errno
    import os

    real = os.fsync

    def full(descriptor):
        if list(tmp_path.rglob(".tmp-step_00000004-*")):  # in the second checkpoint
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert diffuse.train("train.steps=4") == 5
    assert "no space for outputs/train/tiny/v001/checkpoints/step_00000004 (" in diffuse.err
    run = tmp_path / "outputs/train/tiny/v001"
    assert runs.read(run)["status"] == "failed"
    assert checkpoints.newest(run / "checkpoints").name == "step_00000002"


BROKEN = """
class broken:
    def start(self, folder, name, config): print("heard", name)
    def log(self, step, values): raise ConnectionError("no network")
    def image(self, step, name, path): print("heard an image")
    def finish(self): print("heard the end")
"""


def test_a_broken_tracker_costs_one_warning_and_changes_nothing(trained, diffuse, tmp_path):
    (tmp_path / "my_trackers.py").write_text(BROKEN)
    line = "train.steps=4 train.eval_every=2 train.eval_n=16"
    assert diffuse.train(f"{line} tracker.name=my_trackers:broken trust=my_trackers") == 0
    assert diffuse.err.count("tracker broken failed to log (ConnectionError: no network)") == 1
    assert diffuse.out.count("heard") == 1
    assert rows(trained) == rows(trained.parent / "v002")


BAD = {
    "train.eval_every=1 train.eval_n=3": "train.eval_n must be at least 4",
    "schedule=linear schedule.betamax=2": "betamax must be in (0, 1)",
    "schedule=linear steps=1001": "steps must be at most T = 1000",
    "model.groups=3": "groups = 3 does not divide the width 8",
    "model.mults=[1,1,1,1,1]": "try dataset.fit=pad",
    "sampler.eta=2": "eta must be in [0, 1], got 2",
    "optimizer.lr=abc": "optimizer: lr must be a number, got 'abc'",
    "optimizer.lr=-1": "rate",
    "tracker=wandb tracker.mode=of": "mode must be one of",
    "resume=nothing": "no run 'nothing'",
    "resume=must": "no whole checkpoint to continue from",
}


@pytest.mark.parametrize(("line", "words"), BAD.items(), ids=BAD.keys())
def test_a_bad_value_is_one_line_exit_2_and_no_folder(tiny, line, words, diffuse, tmp_path):
    message = diffuse.error(f"train {tiny} train.sample_every=null {line}")
    assert words in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_muon_computes_in_the_number_format_of_the_network(precision, tiny, diffuse, tmp_path):
    words = f"optimizer=muon precision={precision}"
    assert diffuse.train(f"{words} train.steps=2") == 0
    run = tmp_path / "outputs/train/tiny/v001"
    assert OmegaConf.load(run / "config.yaml").optimizer.precision == precision
    assert diffuse.train("optimizer=muon train.steps=3 precision=auto resume=must") == 0
    other = {"fp32": "bf16", "bf16": "fp32"}[precision]
    refused = f"train {tiny} {words} optimizer.precision={other} train.steps=4 resume=must"
    assert f"optimizer.precision: {precision} there, {other} here" in diffuse.error(refused)


def test_a_plan_says_that_it_times_steps_and_that_a_batch_is_more_than_there_is(diffuse):
    assert diffuse.train("train.steps=1 train.batch=65 dry_run=true") == 0
    assert "warning: train.batch=65 is more than the 64 images there are" in diffuse.err
    assert diffuse.err.endswith("timing some steps\n")
    assert diffuse.train("train.steps=1 train.batch=64 dry_run=true") == 0
    assert "images there are" not in diffuse.err


def test_a_run_of_before_there_was_upsample_goes_on_as_it_was(diffuse):
    assert diffuse.train("model.upsample=nearest train.steps=2 train.lr_schedule=constant") == 0
    run = Path("outputs/train/tiny/v001")
    begin_with(run, "  upsample: nearest\n", "")
    words = "train.lr_schedule=constant train.steps=4 resume=auto"
    assert diffuse.train(f"model.upsample=subpixel {words}") == 2
    assert "model.upsample: nearest there, subpixel here" in diffuse.err
    assert diffuse.train(f"model.upsample=nearest {words}") == 0
    assert runs.read(run)["step"] == 4
    assert diffuse("sample run=tiny n=2") == 0
