"""`compile=`: the same names, the same training where it cannot be done, and one warning then."""

import copy
import gc
import logging
import os
import shutil
import weakref

import pytest
import torch
from leftovers import RUN, at_step, rows, stop
from omegaconf import OmegaConf

from diffuse import assembly, checkpoints, compiling
from diffuse import training as room
from diffuse.commands.training import loop, resuming
from diffuse.denoiser import Denoiser
from diffuse.objectives import v
from diffuse.training import fit
from diffuse.weightings import uniform

SHAPE = (8, 1, 8, 8)
CPU = torch.device("cpu")
HAS_COMPILER = shutil.which(os.environ.get("CXX", "g++")) is not None


@pytest.fixture
def compiler(monkeypatch):
    """Stands in for torch.compile: remembers what it compiled and how often that was called."""
    seen = []

    def fake(function, dynamic, options):
        assert dynamic is False
        seen.append(0)

        def fast(*args):
            seen[-1] += 1
            return function(*args)

        return fast

    monkeypatch.setattr(torch, "compile", fake)
    return seen


def test_a_compiled_network_keeps_its_names_and_its_class(make_training, compiler):
    training = make_training()
    names = [list(keys) for keys in training.tensors()[0].values()]
    kind = type(training.denoiser.net)
    assert compiling.prepare(training.denoiser, SHAPE, CPU, {})
    assert compiler == [1]
    assert [list(keys) for keys in training.tensors()[0].values()] == names
    assert type(training.denoiser.net) is kind


def test_a_dry_run_compiles_nothing_and_says_that_a_training_would(diffuse, compiler):
    plan = diffuse.train
    assert plan("train.steps=2 compile=true dry_run=true") == 0
    assert compiler == []
    assert "compile" in diffuse.out
    assert "a minute or two" in diffuse.out
    assert plan("train.steps=2 compile=false dry_run=true") == 0
    assert "a minute or two" not in diffuse.out


def test_only_steps_of_training_are_compiled(make_training, compiler):
    training = make_training()
    denoiser = training.denoiser
    compiling.prepare(denoiser, SHAPE, CPU, {})
    x, sigma = torch.zeros(SHAPE), torch.ones(8)
    with torch.no_grad():
        denoiser.train()(x, sigma)
    denoiser.eval()(x, sigma)
    copy.deepcopy(denoiser).train()(x, sigma)
    assert compiler == [1]
    denoiser.train()(x, sigma)
    assert compiler == [2]


class Plain(torch.nn.Conv2d):
    def forward(self, x, level, label):
        return super().forward(x)


def test_each_network_is_compiled_as_if_it_were_the_first_one(monkeypatch):
    """All have the same code, of which torch compiles eight shapes, and says nothing of others."""
    compiled = []

    def backend(graph, inputs):
        compiled.append(len(inputs[0]))
        return graph.forward

    def compile_in_place(net, options):
        net.compile(dynamic=False, backend=backend)

    monkeypatch.setattr(compiling, "compile_in_place", compile_in_place)
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 1)
    for batch in (2, 3, 4):
        compiled.clear()
        denoiser = Denoiser(Plain(1, 1, 1), v(), uniform(), torch.float32)
        assert compiling.prepare(denoiser, (batch, 1, 8, 8), CPU, {})
        assert compiled, batch


def test_trying_the_compiler_changes_nothing_that_training_sees(
    make_training, images, law, make_recipe, compiler
):
    ends = []
    for compiled in (False, True):
        training = make_training(dropout=0.1)
        torch.manual_seed(5)
        if compiled:
            training.denoiser.eval()
            assert compiling.prepare(training.denoiser, SHAPE, CPU, {})
            assert not training.denoiser.training
        assert all(weight.grad is None for weight in training.denoiser.parameters())
        number = torch.rand(1)
        losses = [s.loss for s in fit(training, images, law, make_recipe(), [1e-2])]
        ends.append([number, *losses, *training.denoiser.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
    assert compiler == [1 + make_recipe().steps]


@pytest.mark.parametrize("broken", ["at once", "when called", "on the way back"])
def test_a_compiler_that_fails_is_one_warning_and_a_network_as_it_was(
    broken, make_training, images, law, make_recipe, monkeypatch, caplog
):
    class Back(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise RuntimeError("no compiler\nand much more")

    def fake(function, dynamic, options):
        def fast(*args):
            if broken == "when called":
                raise RuntimeError("no compiler\nand much more")
            return Back.apply(function(*args))

        if broken == "at once":
            raise RuntimeError("no compiler\nand much more")
        return fast

    plain, training = make_training(), make_training()
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "diffuse"):
        patch.setattr(torch, "compile", fake)
        assert not compiling.prepare(training.denoiser, SHAPE, CPU, {})
    [record] = caplog.records
    assert record.getMessage() == (
        "compile: not possible here, going on without: RuntimeError: no compiler"
    )
    for each in (plain, training):
        for _ in fit(each, images, law, make_recipe(), [1e-2]):
            pass
    states = [list(each.denoiser.state_dict().values()) for each in (plain, training)]
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


@pytest.mark.parametrize(
    ("word", "device", "smoke", "seconds", "tried"),
    [
        ("auto", "cpu", False, 9000, False),
        ("auto", "cuda", False, 600, True),
        ("auto", "cuda", False, 60, False),
        ("auto", "cuda", True, 600, False),
        (True, "cpu", False, 1, True),
        (False, "cuda", False, 9000, False),
    ],
)
@pytest.mark.parametrize("works", [True, False])
def test_the_config_says_afterwards_whether_it_was_done(
    word, device, smoke, seconds, tried, works, make_training, images, monkeypatch
):
    calls = []
    monkeypatch.setattr(compiling, "prepare", lambda _, shape, *how: calls.append(shape) or works)
    text = {"compile": word, "smoke": smoke, "train": {"batch": 12, "micro_batch": None}}
    cfg, denoiser = OmegaConf.create(text), make_training().denoiser
    assembly.compiled(cfg, denoiser, images.spec, torch.device(device), 3, False, lambda: seconds)
    assert calls == [(4, 1, 8, 8)] * tried
    assert cfg.compile is (tried and works)


def test_a_run_goes_on_as_it_was_compiled_unless_it_is_made_longer(diffuse, tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "prepare", lambda *_: True)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "fit", at_step(3, stop))
        assert diffuse.train("train.epochs=1") == 143
    monkeypatch.setattr(compiling, "pays", lambda *_: True)
    for line, compiled in (("train.epochs=1", False), ("train.epochs=2", True)):
        assert diffuse.train(f"{line} resume=auto") == 0, diffuse.err
        assert OmegaConf.load(tmp_path / RUN / "config.yaml").compile is compiled
    assert checkpoints.steps(tmp_path / RUN / "checkpoints")[-1] == 8


@pytest.mark.parametrize(("kind", "word"), [("cpu", False), ("cuda", "auto")])
def test_on_another_kind_of_device_it_is_decided_anew(kind, word, trained):
    cfg = OmegaConf.load(trained / "config.yaml")
    cfg.compile, checkpoint = "auto", checkpoints.newest(trained / "checkpoints")
    resuming.keep_compiled(cfg, trained, checkpoint, torch.device(kind), 64)
    assert cfg.compile == word


def test_a_word_that_is_none_of_the_three_is_refused(diffuse):
    message = diffuse.error("train compile=yes")
    assert message == "compile: unknown choice 'yes'; choices: auto, false, true"


def freshly_trained(start, words, **environment):
    """`diffuse train` in a process of its own, which has nothing compiled yet: what it said."""
    process = start.train(words, TORCHINDUCTOR_CACHE_DIR=str(start.folder / "cache"), **environment)
    _, said = process.communicate()
    assert process.returncode == 0, said
    return said


@pytest.mark.slow
def test_a_machine_without_a_compiler_trains_to_the_same_bytes(tiny, start, tmp_path, diffuse):
    line = f"{tiny} train.steps=4 compile=true"
    said = freshly_trained(start, line, CXX="/nowhere/g++", CC="/no")
    assert said.count("warning: ") == 1
    assert "warning: compile: not possible here, going on without" in said
    assert "Traceback" not in said
    assert diffuse.train("train.steps=4 compile=false") == 0
    runs = [tmp_path / f"outputs/train/tiny/v00{k}" for k in (1, 2)]
    folders = [checkpoints.newest(run / "checkpoints") for run in runs]
    for name in ("model", "ema", "optimizer"):
        one, two = (folder / f"{name}.safetensors" for folder in folders)
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(not HAS_COMPILER, reason="needs a C++ compiler")
def test_a_compiled_training_is_the_same_within_rounding_and_is_sampled_from(
    tiny, start, tmp_path, diffuse
):
    line = "train.steps=6 train.sample_every=null model.mults=[1] model.conditional=false"
    said = freshly_trained(start, f"{tiny} {line} compile=true")
    assert "compiled in" in said
    assert diffuse.train(f"{line} compile=false") == 0
    runs = [tmp_path / f"outputs/train/tiny/v00{k}" for k in (1, 2)]
    assert [OmegaConf.load(run / "config.yaml").compile for run in runs] == [True, False]
    one, two = ([r["loss"] for r in rows(run) if "loss" in r] for run in runs)
    assert len(one) == 6
    assert one == pytest.approx(two, rel=1e-4)
    folders = [checkpoints.newest(run / "checkpoints") for run in runs]
    early = checkpoints.at(folders[0].parent, 2)
    for name in ("model", "ema"):
        before, one, two = (checkpoints.load_tensors(f, name) for f in (early, *folders))
        assert one.keys() == two.keys()
        for key in one:
            assert (one[key] - before[key]).abs().max() > 5e-5, key  # what would be noticed
            torch.testing.assert_close(one[key], two[key], rtol=0, atol=1e-5)
    assert diffuse("sample run=tiny/v001 n=4 steps=2") == 0


def test_of_steps_that_are_timed_nothing_is_left_in_memory(
    make_training, images, law, make_recipe, compiler, monkeypatch
):
    """At once, not when Python looks for circles: the peak of a GPU's memory would count it."""
    training, copies = make_training(), []

    def watched(copied, *how):
        copies.append(weakref.ref(copied.denoiser.net))
        return fit(copied, *how)

    monkeypatch.setattr(room, "fit", watched)
    assert compiling.prepare(training.denoiser, SHAPE, CPU, {})
    gc.disable()
    try:
        room.seconds_per_step(training, images, law, make_recipe(), seconds=0.0)
        assert [copied() for copied in copies] == [None]
    finally:
        gc.enable()
    assert training.denoiser.net._compiled_call_impl is not None


def test_sizes_that_are_tried_out_are_not_compiled_for():
    net = torch.nn.Linear(2, 2)
    net._compiled_call_impl = lambda x: "compiled"
    with compiling.eager(net):
        assert net(torch.zeros(1, 2)).shape == (1, 2)
    assert net(torch.zeros(1, 2)) == "compiled"
