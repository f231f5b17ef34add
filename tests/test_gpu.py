"""On a CUDA GPU: as exact as on a CPU, and the same images. Skipped where there is none."""

import math
import signal
from functools import partial

import numpy as np
import pytest
import torch
from leftovers import RUN, rows, until, what_is_left

from diffuse import checkpoints, compiling, conditions
from diffuse.denoiser import Denoiser
from diffuse.objectives import v
from diffuse.rehearsal import repeats
from diffuse.seeds import seed_of
from diffuse.training import Training, fit
from diffuse.weightings import uniform

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
LONG = "device=cuda precision=bf16 model.dropout=0.1 train.steps=600 train.save_every=50 "
LONG += "train.log_every=20 train.sample_every=100 model.attention=[1]"


@pytest.fixture(autouse=True)
def few_threads_to_compile_with(monkeypatch):
    """Several of these proofs run at once: each compiles with a few threads."""
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "4")


@pytest.mark.parametrize(
    "how",
    ["compile=false", "compile=false device=cuda:0", "compile=true", "compile=true optimizer=muon"],
)
def test_a_training_that_was_killed_ends_in_the_same_bytes(how, tiny, start, tmp_path):
    words = f"{tiny} {LONG} {how}"
    whole = start.train(words, tmp_path / "whole")
    assert whole.wait() == 0, whole.stderr.read()
    killed = start.train(words, tmp_path / "killed")
    folder = tmp_path / "killed" / RUN
    until(lambda: checkpoints.steps(folder / "checkpoints") or killed.poll() is not None, 300)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, killed.stderr.read()
    resumed = start.train(f"{words} resume=must", tmp_path / "killed")
    assert resumed.wait() == 0, resumed.stderr.read()
    assert what_is_left(folder) == what_is_left(tmp_path / "whole" / RUN)
    assert ("compiled in" in resumed.stderr.read()) == ("compile=true" in how)


def test_compiled_steps_learn_what_the_others_do(diffuse, tmp_path):
    words = "device=cuda precision=bf16 train.steps=200 train.log_every=20 train.sample_every=null"
    losses = []
    for how in ("false", "true"):
        assert diffuse.train(f"{words} compile={how} name={how}") == 0, diffuse.err
        logged = rows(tmp_path / f"outputs/train/{how}/v001")
        losses.append([row["loss"] for row in logged if "loss" in row])
    assert len(losses[0]) == 10
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


def test_accumulated_parts_are_the_whole_batch_where_steps_are_compiled(diffuse, tmp_path):
    words = "device=cuda train.steps=4 compile=true train.log_every=1"
    for name, part in (("whole", "null"), ("parts", "4")):
        assert diffuse.train(f"{words} name={name} train.micro_batch={part}") == 0, diffuse.err
    whole, parts = (
        checkpoints.load_tensors(
            checkpoints.newest(tmp_path / f"outputs/train/{name}/v001/checkpoints"), "model"
        )
        for name in ("whole", "parts")
    )
    for key, weight in whole.items():
        assert torch.allclose(weight, parts[key], atol=1e-4), key


def test_images_and_fids_are_those_of_a_cpu(trained, diffuse, tmp_path):
    drawn = {}
    for device in ("cpu", "cuda"):
        words = f"device={device} precision=fp32 steps=20 n=8"
        assert diffuse(f"sample run=tiny {words} save=npy batch=4 name={device}") == 0, diffuse.err
        path = tmp_path / f"outputs/sample/{device}/v001/images.npy"
        drawn[device] = np.load(path).astype(int)
    assert np.abs(drawn["cpu"] - drawn["cuda"]).max() <= 1
    assert drawn["cpu"].std() > 10
    fids = []
    for device in ("cpu", "cuda"):
        answer = diffuse.json(f"eval run=tiny device={device} precision=fp32 n=64 steps=4 batch=8")
        fids.append(answer["fid"]["value"])
    assert fids[1] == pytest.approx(fids[0], rel=1e-4)


def test_the_way_back_of_attention_over_many_pixels_gives_the_same_bytes_again(make_net):
    """It adds up what several blocks of pixels say, as they come in or in their order."""
    size = {"size": (64, 64), "channels": 3, "width": 64, "attention": [0, 1], "head_dim": 32}
    net = make_net(**size, init="torch", mults=[1, 1], skips="every").cuda()
    denoiser = Denoiser(net, v(), uniform(), torch.bfloat16)
    random = torch.Generator("cuda").manual_seed(0)
    x0, eps = (torch.randn(8, 3, 64, 64, device="cuda", generator=random) for _ in range(2))
    sigma, label = torch.linspace(0.1, 2, 8).double(), torch.zeros(8, dtype=torch.long).cuda()
    with conditions.repeatable():
        assert repeats(denoiser, (3, 64, 64), torch.device("cuda"))
        found = []
        for _ in range(5):
            denoiser.zero_grad()
            with conditions.strict():
                denoiser.loss(x0, sigma, eps, label).mean().backward()
            found.append([weight.grad.clone() for weight in net.parameters()])
    assert all(all(map(torch.equal, found[0], others)) for others in found[1:])


@pytest.mark.parametrize("compiled", [False, True])
def test_a_step_that_is_no_number_changes_nothing(compiled, make_net, images, law, make_recipe):
    """A fused optimizer is told so on the GPU, before anybody here knows of it."""
    gpu = torch.device("cuda")
    denoiser = Denoiser(make_net(init="torch"), v(), uniform(), torch.bfloat16).to(gpu)
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1e-2, eps=1e-5, fused=True)
    training = Training.new(denoiser, optimizer, ema=0.9)
    bad = {seed_of(0, "batch", step) for step in (3, 4, 6)}
    training.strict = True
    with conditions.repeatable():
        if compiled:
            options = compiling.options(gpu, alone=True)
            assert compiling.prepare(denoiser, (8, 1, 8, 8), gpu, options, strict=True)
        before, left_out = None, []
        recipe = make_recipe(steps=8, on_nan="skip")
        spoiled = partial(_spoiled, law, bad)
        for step in fit(training, images.to(gpu), spoiled, recipe, [1e-2]):
            tensors, _ = training.tensors()
            after = [t.clone() for of in tensors.values() for t in of.values()]
            if before is not None:
                assert all(map(torch.equal, after, before)) == step.skipped
            left_out += [step.number] * step.skipped
            before = after
    assert left_out == [3, 4, 6]
    assert training.optimizer.state[next(denoiser.parameters())]["step"].item() == 5


def _spoiled(law, bad, n, random):
    return law(n, random) * (math.nan if random.initial_seed() in bad else 1)


def test_too_large_a_batch_names_one_that_fits(diffuse):
    torch.cuda.empty_cache()
    free = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(1.5 * 2**30 / free)
    words = "device=cuda train.steps=1 train.sample_every=null model.width=64 train.batch=65536"
    try:
        message = diffuse.error(f"train dataset=digits {words} optimizer=adamw", code=1)
        assert "fits and leaves the gradients as they are" in message
        part = message.partition("train.micro_batch=")[2].split()[0]
        more = f"train.micro_batch={part} optimizer=adamw"
        assert diffuse(f"train dataset=digits {words} {more}") == 0, diffuse.err
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
