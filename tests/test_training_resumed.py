"""Training continued, or looked at, ends with the very same bytes; each proof has its control."""

import json
import math
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from going_on import ADAMW, FUSED, MUON, NET, go_on, save

from diffuse import checkpoints, training
from diffuse.checkups import Checkup
from diffuse.encoders import pixels
from diffuse.scoring import Judge
from diffuse.seeds import seed_of
from diffuse.training import Training


def bytes_of(training, folder):
    path = save(training, Path(mkdtemp(dir=folder)))
    return {p.name: p.read_bytes() for p in path.iterdir()}


def averaging(training, ema):
    """The same training with averages of these half-lives."""
    return Training.new(training.denoiser, training.optimizer, ema)


@pytest.fixture
def whole(make_training, images, law, make_recipe, tmp_path):
    """What eight steps without a break leave behind."""

    def run(optimizer, precision=torch.float32, images=images, law=law, ema=0.9, **changes):
        training = averaging(make_training(optimizer, precision, **NET), ema)
        for _ in go_on(training, images, law, make_recipe(steps=8, **changes)):
            pass
        return bytes_of(training, tmp_path)

    return run


@pytest.fixture
def broken(make_training, images, law, make_recipe, tmp_path):
    """The same with a break after some steps, from which only files survive."""

    def run(optimizer, precision=torch.float32, at=3, forget=lambda training: None, images=images,
            law=law, ema=0.9, same=(), **changes):  # fmt: skip
        same = dict(same)  # before and after the break
        first = averaging(make_training(optimizer, precision, **NET), ema)
        for _ in go_on(first, images, law, make_recipe(steps=8, **same), until=at):
            pass
        path = save(first, Path(mkdtemp(dir=tmp_path)))
        checkpoints.verify(path)
        second = averaging(make_training(optimizer, precision, **NET, seed=1), ema)
        second.load(path)
        assert second.step == at
        forget(second)
        for _ in go_on(second, images, law, make_recipe(steps=8, **{**same, **changes})):
            pass
        return bytes_of(second, tmp_path)

    return run


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("optimizer", [ADAMW, FUSED, MUON], ids=["adamw", "fused", "muon"])
def test_a_broken_training_ends_with_the_bytes_of_a_whole_one(optimizer, precision, whole, broken):
    expected = whole(optimizer, precision)
    assert broken(optimizer, precision) == expected
    assert len(expected) == 5


@pytest.mark.parametrize("at", [1, 4, 7])
def test_so_it_does_wherever_it_broke(at, whole, broken):
    assert broken(ADAMW, at=at) == whole(ADAMW)


def test_so_it_does_with_mirrored_images(whole, broken, images):
    mirrored = replace(images, flip=True)
    assert broken(ADAMW, images=mirrored, at=3) == whole(ADAMW, images=mirrored)
    assert whole(ADAMW, images=mirrored) != whole(ADAMW)


@pytest.mark.parametrize("at", [2, 5])
@pytest.mark.parametrize("optimizer", [ADAMW, MUON], ids=["adamw", "muon"])
def test_so_it_does_with_batches_in_parts(optimizer, at, whole, broken):
    parts = {"micro_batch": 2}
    assert broken(optimizer, at=at, same=parts) == whole(optimizer, **parts)
    assert broken(optimizer, at=at) != whole(optimizer, **parts)  # its dropout is another


def test_so_it_does_with_averages_of_several_half_lives(whole, broken):
    decays = [0.9, 0.5, 0.99995]
    expected = whole(ADAMW, ema=decays)
    assert broken(ADAMW, ema=decays) == expected
    assert {"ema.safetensors", "ema_0.5000.safetensors", "ema_0.99995.safetensors"} < set(expected)
    for decay, file in zip(decays, ("ema", "ema_0.5000", "ema_0.99995"), strict=True):
        alone = whole(ADAMW, ema=decay)
        assert alone["ema.safetensors"] == expected[f"{file}.safetensors"]
        assert alone["model.safetensors"] == expected["model.safetensors"]


def spoiled(law, *steps):
    """A law whose levels are no numbers at some steps, whenever those are taken."""
    seeds = {seed_of(0, "batch", step) for step in steps}
    return lambda n, random: law(n, random) * (math.nan if random.initial_seed() in seeds else 1)


def test_a_fused_optimizer_goes_on_where_the_other_does(make_training, images, law, make_recipe,
                                                        tmp_path):  # fmt: skip
    """It goes through weights and moments as they lie in memory: both must lie alike."""
    ends = []
    for optimizer in (ADAMW, FUSED):
        first = make_training(optimizer, **NET)
        for _ in go_on(first, images, law, make_recipe(steps=8), until=4):
            pass
        second = make_training(optimizer, **NET)
        second.load(save(first, tmp_path / str(len(ends))))
        for _ in go_on(second, images, law, make_recipe(steps=8)):
            pass
        ends.append(second.denoiser.net.state_dict())
    for name, weight in ends[0].items():
        assert torch.allclose(weight, ends[1][name], atol=1e-5), name


@pytest.mark.parametrize("optimizer", [ADAMW, FUSED], ids=["adamw", "fused"])
@pytest.mark.parametrize("precision", [torch.float32, torch.float16])
@pytest.mark.parametrize("at", [2, 3, 4, 5])
def test_so_it_does_if_steps_are_left_out(precision, at, optimizer, whole, broken, law):
    bad, skip = spoiled(law, 3, 4, 7), {"on_nan": "skip"}
    expected = whole(optimizer, precision, law=bad, **skip)
    assert broken(optimizer, precision, at=at, law=bad, same=skip) == expected
    assert json.loads(expected["state.json"])["skipped"] == 3
    forgotten = broken(
        optimizer, precision, at=5, law=bad, same=skip, forget=lambda t: setattr(t, "skipped", 0)
    )
    assert forgotten != expected


CONTROLS = {
    "another seed": {"seed": 1},
    "another batch": {"batch": 4},
    "a forgotten average": {
        "forget": lambda t: t.ema.weights.update(
            {k: w.clone() for k, w in t.denoiser.net.state_dict().items()}
        )
    },
    "a forgotten optimizer": {"forget": lambda t: t.optimizer.state.clear()},
    "a forgotten step": {"forget": lambda t: setattr(t, "step", 2)},
}


@pytest.mark.parametrize("change", CONTROLS.values(), ids=CONTROLS.keys())
def test_the_comparison_would_notice(change, whole, broken):
    assert broken(ADAMW, **change) != whole(ADAMW)


def test_the_comparison_would_notice_dropout_that_goes_on_from_wherever_it_was(
    whole, broken, monkeypatch
):
    """The control of a forgotten generator: masks from torch's own state, which no file holds."""
    seeded = training._gradient

    def forgetful(*args, **kwargs):
        with monkeypatch.context() as patch:
            patch.setattr(torch, "manual_seed", lambda seed: None)
            return seeded(*args, **kwargs)

    monkeypatch.setattr(training, "_gradient", forgetful)
    assert whole(ADAMW) == whole(ADAMW)  # as long as nothing breaks, nobody notices
    assert broken(ADAMW) != whole(ADAMW)
    monkeypatch.setitem(NET, "dropout", 0.0)  # nor without anything to draw
    assert broken(ADAMW) == whole(ADAMW)


def test_looking_at_a_training_does_not_change_it(
    make_training, images, law, make_recipe, make_plan, tmp_path
):
    def run(looks):
        training = make_training(ADAMW, **NET)
        checkup = Checkup(training, images, law, make_plan(), by_class=True)
        judge = Judge(pixels(images.spec, 4), train=images, test=images)
        for step in go_on(training, images, law, make_recipe(steps=6)):
            if looks and step.number in looks:
                checkup.loss()
                checkup.samples(5)
                checkup.score(judge, 8)
        return bytes_of(training, tmp_path)

    assert run([]) == run([1, 2, 3, 4, 5, 6]) == run([3])


def test_a_held_out_loss_and_a_grid_are_the_same_however_often_they_are_taken(
    make_training, images, law, make_recipe, make_plan
):
    training = make_training(ADAMW, **NET)
    for _ in go_on(training, images, law, make_recipe(steps=2)):
        pass
    checkup = Checkup(training, images, law, make_plan(), by_class=True)
    torch.manual_seed(1)
    once = checkup.loss(), checkup.samples(6).tobytes()
    torch.manual_seed(2)
    assert (checkup.loss(), checkup.samples(6).tobytes()) == once


def test_a_grid_is_a_class_a_row_if_the_network_is_said_to_know_classes(
    make_training, images, law, make_plan
):
    training = make_training(ADAMW, **NET)
    by_class, not_by_class = (
        Checkup(training, images, law, make_plan(), by_class=knows).samples(6)
        for knows in (True, False)
    )
    assert by_class.height > by_class.width  # three classes, two images of each
    assert not_by_class.height < not_by_class.width


def test_the_grid_shows_the_averaged_weights_and_the_held_out_loss_the_raw_ones(
    make_training, images, law, make_plan
):
    training = make_training(ADAMW, **NET)
    checkup = Checkup(training, images, law, make_plan(), by_class=True)
    loss, grid = checkup.loss(), checkup.samples(4).tobytes()
    for weight in training.ema.weights.values():
        weight.mul_(0.5)
    assert checkup.loss() == loss
    assert checkup.samples(4).tobytes() != grid
    with torch.no_grad():
        for weight in training.denoiser.parameters():
            weight.mul_(0.5)
    assert checkup.loss() != loss
