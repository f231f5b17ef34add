"""Guidance moves away from a weaker estimate: by so much, and only where it is told to."""

import json
import math
from functools import partial

import pytest
import torch
from omegaconf import OmegaConf

from diffuse import checkpoints, runs
from diffuse.commands import guiding
from diffuse.guidance import Guidance
from diffuse.planning import _calls
from diffuse.samplers import ddim
from diffuse.sampling import asked, draw, walk


def test_weight_one_is_the_strong_estimate_and_zero_the_weak_one():
    x, sigma = torch.linspace(-2, 2, 12).double().view(3, 1, 2, 2), torch.tensor(2.0).double()
    strong, weak = (lambda x, s: 3 * x), (lambda x, s: x - 1)
    for weight, expected in ((1.0, 3 * x), (0.0, x - 1), (2.5, x - 1 + 2.5 * (2 * x + 1))):
        assert Guidance(weight).combined(strong, weak)(x, sigma).allclose(expected)


def test_it_leads_only_at_its_levels_image_by_image():
    x, sigma = torch.ones(4, 1, 1, 1), torch.tensor([0.1, 1.0, 5.0, 6.0]).double()
    guided = Guidance(3.0, 1.0, 5.0).combined(lambda x, s: 2 * x, lambda x, s: x)(x, sigma)
    assert guided.flatten().tolist() == [2, 4, 4, 2]


def test_the_weak_network_is_not_asked_where_it_does_not_count():
    def weak(x, sigma):
        raise AssertionError

    x, sigma = torch.ones(2, 1, 1, 1), torch.tensor(7.0).double()
    assert torch.equal(Guidance(3.0, 1.0, 5.0).combined(lambda x, s: x, weak)(x, sigma), x)


@pytest.mark.parametrize("weight", [1.5, 3.0])
def test_gaussians_led_away_from_a_wider_one_end_where_the_ode_says(weight):
    """Strong N(0, 1), weak N(0, 2^2). For one Gaussian of variance v the ODE says that
    d log x / d log sigma = 1 - v / (v + sigma^2); guidance weighs two of them."""

    def of(variance):
        return lambda x, sigma: variance * x / (variance + sigma**2)

    def scale(variance):  # from sigma = 10 to 0
        return math.sqrt(variance / (variance + 100))

    x = torch.linspace(-30, 30, 7).double()[:, None, None, None]
    sigmas = torch.cat([torch.logspace(1, -3, 4000).double(), torch.zeros(1).double()])
    combined = Guidance(weight).combined(of(1.0), of(4.0))
    *_, (guided, _) = ddim(combined, x, sigmas, lambda: x, eta=0.0, noise=1.0)
    expected = scale(1.0) ** weight * scale(4.0) ** (1 - weight)
    assert (guided[0] / x[0]).item() == pytest.approx(expected, rel=2e-3)


@pytest.fixture
def denoiser(make_training):
    return make_training(init="torch").denoiser.eval()


def test_images_are_led_by_the_label_and_every_call_of_the_network_is_counted(
    denoiser, images, make_plan
):
    labels = torch.tensor([0, 1, 2, 0])
    plain = draw(denoiser, images.spec, make_plan(), range(4), labels)
    one = draw(denoiser, images.spec, make_plan(guidance=Guidance(1.0)), range(4), labels)
    two = draw(denoiser, images.spec, make_plan(guidance=Guidance(4.0)), range(4), labels)
    assert (plain.calls, one.calls, two.calls) == (4, 8, 8)
    assert one.state.allclose(plain.state, atol=1e-5)
    assert not two.state.allclose(plain.state, atol=1e-2)


def test_other_weights_may_be_asked_without_the_label_too(
    denoiser, make_training, images, make_plan, monkeypatch
):
    labels, weak = torch.tensor([0, 1, 2, 0]), make_training(init="torch", seed=7).denoiser.eval()
    asked, forward = [], type(weak).forward

    def watched(self, x, sigma, label):
        asked.append((self is weak, label is None))
        return forward(self, x, sigma, label)

    monkeypatch.setattr(type(weak), "forward", watched)
    drawn = {}
    for weights, hidden in (("early", False), ("early+labels", True)):
        asked.clear()
        guidance = Guidance(2.0, weights=weights, weak=weak)
        drawn[weights] = draw(denoiser, images.spec, make_plan(guidance=guidance), range(4), labels)
        assert asked == [(False, False), (True, hidden)] * 4
    assert not drawn["early"].state.allclose(drawn["early+labels"].state, atol=1e-3)


def test_calls_are_known_before_they_are_made(denoiser, images, make_plan):
    plan = make_plan()
    levels = asked(plan.sampler, plan.sigmas)
    guidance = Guidance(2.0, levels[2].item(), levels[1].item())
    expected = _calls([True] * 4, levels, guidance)
    assert expected == 6
    labels = torch.tensor([0, 1, 2, 0])
    guided = make_plan(guidance=guidance, calls=expected)
    assert draw(denoiser, images.spec, guided, range(4), labels).calls == 6


def test_autoguidance_of_a_network_by_itself_changes_nothing(denoiser, images, make_plan):
    labels = torch.tensor([0, 1, 2, 0])
    guided = make_plan(
        guidance=Guidance(5.0, weak=denoiser), sampler=partial(ddim, eta=0.0, noise=1)
    )
    plain = make_plan(sampler=partial(ddim, eta=0.0, noise=1))
    states = [[*walk(denoiser, images.spec, p, range(4), labels)][-1][0] for p in (guided, plain)]
    assert states[0].allclose(states[1], atol=1e-4)


LED = "train.steps=12 train.sample_every=12 train.ema=[0.5,0.9]"  # differ from step 8 on


def test_a_run_is_sampled_with_the_guidance_it_was_trained_with_unless_told_otherwise(diffuse):
    assert diffuse.train(f"{LED} guidance=3") == 0, diffuse.err
    given = {
        "": (3.0, 4), "guidance=1": (None, 2), "guidance=2 guide=ema_0.9": (2.0, 4),
        "guidance_levels=[0,1.5]": (3.0, 3), "nfe=4": (3.0, 4),
    }  # fmt: skip
    seen = set()
    for line, (weight, nfe) in given.items():
        steps = "" if "nfe" in line else "steps=2"
        facts = diffuse.json(f"sample n=4 {steps} device=cpu {line}")
        assert facts["nfe"] == nfe, line
        guidance = facts["sampler"]["guidance"]
        assert (guidance and guidance["weight"]) == weight
        seen.add(facts["fingerprint"])
    assert len(seen) == 4  # nfe=4 is the first one again


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("guidance=-1", "guidance must be at least 0, got -1; 1 is none"),
        ("guidance=2 model.conditional=false", "knows no classes to guide by; use guidance=1, or"),
        ("guidance=2 train.label_dropout=0", "was never without a label (train.label_dropout=0)"),
        ("guidance=2 guide=early+labels train.label_dropout=0", "was never without a label"),
        ("guidance=2 guide=early+label", "did you mean 'early+labels'?"),
        ("guidance=2 guide=lables", "guide: unknown choice 'lables'; did you mean 'labels'?"),
        ("guidance=2 guide=ema_0.7", "this training has no average ema_0.7; choices: labels, ema"),
        ("guidance=2 guide=2 train.steps=2", "guide=2: a training of 2 steps ends before that"),
        ("guidance_levels=[2,1]", "guidance_levels must be two ascending sigmas"),
        ("guidance=2 nfe=5", "nfe=5: ddim makes 4 with steps=2 and 6 with steps=3"),
    ],
)
def test_guidance_that_cannot_be_is_refused(line, error, diffuse, tiny):
    words = tiny.replace("steps=2 ", "") if "nfe" in line else tiny
    assert error in diffuse.error(f"train {words} {line}")


def test_a_guided_run_is_drawn_in_the_calls_that_are_asked_for(diffuse):
    """Whether they can be made is known when the run is: heun makes 2 (2 steps - 1) of them."""
    assert diffuse.train("train.steps=2 train.sample_every=null guidance=3") == 0
    assert diffuse.json("sample n=4 device=cpu sampler=heun nfe=6")["nfe"] == 6
    assert "heun makes 6 with steps=2 and 10 with steps=3" in diffuse.error(
        "sample n=4 device=cpu sampler=heun nfe=7"
    )
    assert diffuse.json("sample debug=smoke device=cpu nfe=4 guidance=1")["nfe"] == 4
    assert diffuse("sample debug=smoke device=cpu sampler=rk45 guidance=1") == 0, diffuse.err
    facts = diffuse.json("sample n=4 steps=2 device=cpu guidance_levels=[0,.inf]")
    assert facts["sampler"]["guidance"]["levels"] == [0, None]


def test_where_guidance_acts_at_some_levels_steps_are_those_that_make_the_calls(diffuse):
    assert diffuse.train("train.steps=2 train.sample_every=null") == 0
    line = "sample n=4 device=cpu guidance=2 guidance_levels=[0.2,5]"
    made = {k: int(diffuse.json(f"{line} steps={k}")["nfe"]) for k in range(1, 8)}
    assert any(steps < calls < 2 * steps for steps, calls in made.items())
    for calls in range(1, max(made.values())):
        if calls in made.values():
            assert diffuse.json(f"{line} nfe={calls}")["nfe"] == calls
        else:
            assert f"nfe={calls}: ddim makes {calls - 1} with" in diffuse.error(
                f"{line} nfe={calls}"
            )


def test_a_training_led_by_a_checkpoint_looks_without_and_takes_all_the_calls(diffuse, tiny):
    words = f"train {tiny.replace('steps=2 ', '')} train.steps=2 guidance=2 guide=50% nfe=3"
    assert "3 steps of ddim" in str(diffuse.json(f"{words} dry_run=true"))
    assert diffuse(words) == 0, diffuse.err


@pytest.mark.parametrize(
    ("guide", "why"),
    [
        ("ema", "these are the very weights that are sampled"),
        ("2", "an earlier checkpoint than step 2"),
    ],
)
def test_nothing_is_led_away_from_itself(guide, why, diffuse):
    assert diffuse.train("train.steps=2 train.sample_every=null") == 0
    assert why in diffuse.error(f"sample n=4 steps=2 device=cpu guidance=2 guide={guide}")


@pytest.mark.parametrize(
    ("guide", "steps", "weak"),
    [("10%", 12_423, 1242), ("10%", 641, 200), ("10%", 300, 150), ("50%", 300, 150),
     ("64", 641, 64), ("90%", 300, 270), ("early", 15_798, 628), ("early", 2_130, 231),
     ("early", 641, 200), ("early", 12, 6), ("early", 2, 1)],
)  # fmt: skip
def test_nothing_is_guided_away_from_what_has_hardly_learnt(guide, steps, weak):
    """A share means that many steps or more; a step means that step."""
    assert guiding.weak_step(OmegaConf.create({"guidance": 2, "guide": guide}), steps) == weak


def test_the_checkpoint_that_is_to_lead_is_saved_and_kept(diffuse, tmp_path, monkeypatch):
    monkeypatch.setattr(guiding, "FIRST", 0)
    line = "train.steps=10 train.save_every=4 train.keep=1 guidance=3"
    for version, (guide, step) in enumerate({"30%": 3, "early": 5}.items(), 1):
        assert diffuse.train(f"{line} guide={guide}") == 0, diffuse.err
        run = tmp_path / f"outputs/train/tiny/v00{version}"
        assert checkpoints.steps(run / "checkpoints") == [step, 10]
        facts = diffuse.json("sample n=4 steps=2 device=cpu")
        assert facts["sampler"]["guidance"]["weak"]["step"] == step


def test_a_training_that_is_extended_keeps_what_is_nearest_to_the_step_it_has_passed(
    diffuse, tmp_path, monkeypatch
):
    monkeypatch.setattr(guiding, "FIRST", 0)
    line = "train.keep=1 guidance=3 guide=30% train.sample_every=null"
    assert diffuse.train(f"{line} train.steps=10 train.save_every=null") == 0, diffuse.err
    folder = tmp_path / "outputs/train/tiny/v001/checkpoints"
    assert checkpoints.steps(folder) == [3, 10]
    more = f"{line} train.save_every=4 resume=auto"
    assert diffuse.train(f"{more} train.steps=20") == 0, diffuse.err  # wants step 6
    assert checkpoints.steps(folder) == [3, 20]
    assert diffuse.train(f"{more} train.steps=80") == 0, diffuse.err  # step 24 is to come
    assert checkpoints.steps(folder) == [24, 80]


@pytest.mark.slow
def test_an_earlier_checkpoint_leads_a_model_without_classes(diffuse, monkeypatch):
    """Its grids while training are drawn without: the checkpoint is not there yet."""
    monkeypatch.setattr(guiding, "FIRST", 0)
    line = "train.steps=10 train.keep=9 model.conditional=false guidance=3 guide=40%"
    assert diffuse.train(line) == 0, diffuse.err
    by = {}
    for guide in ("guide=4", "", "guide=37%", "guide=2", "guidance=1", "guide=4+labels"):
        facts = diffuse.json(f"sample n=4 steps=2 device=cpu {guide}")
        by[guide] = facts["fingerprint"]
        weak = (facts["sampler"]["guidance"] or {}).get("weak", {})
        assert weak.get("weights") == (None if guide == "guidance=1" else guide[6:] or "40%")
    assert by["guide=4"] == by[""] == by["guide=37%"] == by["guide=4+labels"]
    assert len({*by.values()}) == 3
    assert diffuse("sample n=4 steps=2 device=cpu guide=90%") == 0  # 8 of 10 is near no more
    assert "warning: guide=90% is step 9; the nearest checkpoint" in diffuse.err
    assert "unknown choice '140%'" in diffuse.error("sample device=cpu guide=140%")
    assert "has no checkpoint 5" in diffuse.error("sample n=4 device=cpu guide=5")


@pytest.mark.parametrize(
    ("guidance", "said"),
    [
        (Guidance(2.0), "2, away from no label"),
        (Guidance(1.5, weights="10%", step=1780), "1.5, away from step 1,780"),
        (Guidance(2.0, weights="early+labels", step=200), "2, away from step 200 without label"),
        (Guidance(2.0, weights="raw+labels"), "2, away from raw without label"),
        (Guidance(3.0, 0.2, 5.0, "ema_0.9"), "3, away from ema_0.9, sigma 0.2 to 5"),
        (Guidance(3.0, 0.2), "3, away from no label, sigma 0.2 to inf"),
    ],
)
def test_a_record_says_what_led_and_how(guidance, said):
    assert guiding.said(json.loads(json.dumps(guidance.record()))) == said


@pytest.mark.slow
@pytest.mark.parametrize("guide", ["raw", "ema_0.9", "raw+labels"])
def test_a_grid_of_a_training_may_be_led_by_other_weights(guide, diffuse, tmp_path):
    assert diffuse.train(f"{LED} guidance=3 guide={guide}") == 0, diffuse.err
    run = tmp_path / "outputs/train/tiny/v001"
    grid = (run / "samples/latest.png").read_bytes()
    assert diffuse.train(LED) == 0
    plain = tmp_path / "outputs/train/tiny/v002/samples/latest.png"
    assert grid != plain.read_bytes()
    assert diffuse("sample run=tiny/v001 n=4 steps=2 device=cpu") == 0
    assert runs.read(tmp_path / "outputs/sample/tiny/v001")["samples"]
