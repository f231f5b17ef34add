"""What shards are named after: whatever an image depends on, and nothing is forgotten."""

import dataclasses
import functools
import importlib
import json
import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sharded import SPEC

from diffuse import conditions
from diffuse.denoiser import Denoiser
from diffuse.guidance import Guidance
from diffuse.noise_level import Predictor, new_regressor
from diffuse.objectives import eps, v
from diffuse.samplers import ddim, ddim_predicted, heun, rk45
from diffuse.sampling import Plan
from diffuse.shards import identity, images
from diffuse.weightings import uniform as unweighted

PREDICTED = partial(ddim_predicted, eta=0.0, noise=1.0, guard=2.0, level="image")


def test_whatever_of_a_plan_changes_its_key_changes(plan, about):
    """All fields, also those that do not exist yet."""
    key = conditions.key(about())
    assert key == conditions.key(about(dataclasses.replace(plan)))
    for field in dataclasses.fields(Plan):
        for other in ("another", 0.123456789):
            changed = dataclasses.replace(plan, **{field.name: other})
            assert conditions.key(about(changed)) != key, field.name


def other_sigmas(plan):
    sigmas = plan.sigmas.clone()
    sigmas[1] = torch.nextafter(sigmas[1], sigmas[0])
    return sigmas


CHANGES = {
    "an option of the sampler": lambda p: {"sampler": partial(ddim, eta=0.999, noise=1.0)},
    "another sampler": lambda p: {"sampler": heun},
    "the last bit of a level": lambda p: {"sigmas": other_sigmas(p)},
    "the precision of the levels": lambda p: {"sigmas": p.sigmas.float()},
    "the batch": lambda p: {"batch": 5},
    "which calls are made": lambda p: {"made": (True, False, True, True)},
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_smallest_difference_is_another_key(change, plan, about):
    changed = dataclasses.replace(plan, **CHANGES[change](plan))
    assert conditions.key(about(changed)) != conditions.key(about())


def test_what_is_outside_the_plan_is_part_of_the_key_too(about, denoiser, make_net, monkeypatch):
    key = conditions.key(about())
    half = Denoiser(denoiser.net, v(), unweighted(), torch.bfloat16)
    keys = [
        conditions.key(about(**change))
        for change in (
            {"weights": "other"}, {"label": 0}, {"label": 1}, {"network": {"width": 16}},
            {"spec": dataclasses.replace(SPEC, native_height=7)}, {"denoiser": half},
        )
    ]  # fmt: skip
    assert len({key, *keys}) == 7
    for what, value in (("__version__", "9"), ("get_num_threads", lambda: 7)):
        with monkeypatch.context() as patch:
            patch.setattr(torch, what, value)
            assert conditions.key(about()) != key, what
    with monkeypatch.context() as patch:  # solves for the weights of UniPC's steps
        patch.setattr(np, "__version__", "9")
        assert conditions.key(about()) != key
    with monkeypatch.context() as patch:
        patch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
        assert conditions.key(about()) != key
    with monkeypatch.context() as patch:
        patch.setattr(identity, "code", lambda: "changed")
        assert conditions.key(about()) != key
    assert conditions.key(about()) == key


def test_our_own_code_is_part_of_the_key_and_every_file_that_draws_belongs_to_it(
    tmp_path, denoiser, make_plan
):
    """A drawing is watched: whatever file of ours is executed must be among the sources."""
    for name, text in (("a.py", "1"), ("b/c.py", "2")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = conditions.code(("a.py", "b"), tmp_path)
    (tmp_path / "b/c.py").write_text("3")
    assert conditions.code(("a.py", "b"), tmp_path) != before
    plans = [
        make_plan(),
        make_plan(made=(True, False, True, True), clip="dynamic"),
        make_plan(sampler=partial(rk45, rtol=0.1, atol=0.1), start="moments"),
        make_plan(sampler=PREDICTED, level_of=predictor()),
        make_plan(guidance=Guidance(2.0)),
    ]
    seen = set()
    sys.setprofile(lambda frame, event, arg: seen.add(frame.f_code.co_filename))
    try:
        for plan in plans:
            list(images(denoiser, SPEC, plan, 4))
    finally:
        sys.setprofile(None)
    ours = {Path(f).relative_to(conditions.PACKAGE).as_posix() for f in seen
            if Path(f).is_relative_to(conditions.PACKAGE)}  # fmt: skip
    assert {"sampling.py", "denoiser.py", "samplers/runge_kutta.py", "models/unet.py"} <= ours
    missing = [f for f in ours if not any(f == s or f.startswith(f"{s}/") for s in
                                          identity.SOURCES)]  # fmt: skip
    assert missing == []


# imported by what draws, and without a say in what is drawn
SILENT = {"errors", "weightings", "data", "checkpoints", "noise_laws", "schedules", "training"}


def test_what_draws_imports_only_what_is_among_the_sources():
    """Whatever is added is found missing here, even if no drawing above makes use of it."""
    found = set()
    for source in identity.SOURCES:
        path = conditions.PACKAGE / source
        if source == "data/images.py" or source in ("conditions.py", "hardware.py", "shards"):
            continue
        for file in path.rglob("*.py") if path.is_dir() else [path]:
            found |= set(re.findall(r"^from diffuse\.(\w+)", file.read_text(), re.M))
            for names in re.findall(r"^from diffuse import (.+)$", file.read_text(), re.M):
                found |= {name.strip() for name in names.split(",")}
    assert {"denoiser", "samplers", "seeds"} <= found
    assert found - SILENT <= {source.removesuffix(".py") for source in identity.SOURCES}


GUIDED = {
    "none": None, "labels": Guidance(2.0), "more": Guidance(2.5), "some levels": Guidance(2.0, 0.1),
    "below": Guidance(2.0, high=5.0),
}  # fmt: skip


def test_every_guidance_is_a_plan_of_its_own(about, make_plan, make_net):
    def weak(seed):
        net = make_net(init="torch", seed=seed)
        return Guidance(2.0, weak=Denoiser(net, v(), unweighted(), torch.float32))

    plans = [*GUIDED.values(), weak(0), weak(1)]
    keys = [conditions.key(about(make_plan(guidance=guidance))) for guidance in plans]
    assert len({*keys}) == len(plans)
    assert conditions.key(about(make_plan(guidance=weak(1)))) == keys[-1]


def predictor(folder="here", sha256="sha"):
    regressor = new_regressor(1, 8, 0, torch.float32).eval()
    return Predictor(Path(folder), regressor, SPEC, (-1.0, 1.0), (0.01, 80.0), sha256)


def test_a_network_that_sees_levels_counts_by_its_weights_and_not_by_where_it_lies(
    make_plan, about
):
    key, moved, other = (
        conditions.key(about(make_plan(level_of=predictor(*which))))
        for which in (("a", "1"), ("b", "1"), ("a", "2"))
    )
    assert key == moved != other


def test_what_has_no_written_form_is_refused_rather_than_left_out(make_plan, about):
    with pytest.raises(TypeError, match="object"):
        about(make_plan(moments=object()))


def test_a_function_of_somebody_else_counts_with_its_file_and_what_it_holds(make_plan, about):
    def walk(eta):
        def inner(denoise, x, sigmas, randn):
            yield from ddim(denoise, x, sigmas, randn, eta=eta, noise=1.0)

        return inner

    keys = {conditions.key(about(make_plan(sampler=walk(eta)))) for eta in (0.0, 0.0, 0.5)}
    assert len(keys) == 2
    assert about(make_plan(sampler=walk(0.0)))["plan"]["sampler"]["outside"]


def test_code_of_somebody_else_counts_with_what_it_imports(about, tmp_path, monkeypatch):
    """A network's blocks in a file beside it, and an objective."""
    (tmp_path / "their_blocks.py").write_text("GAIN = 1\n")
    (tmp_path / "their_net.py").write_text(
        "import torch, their_blocks\n"
        "class Part(torch.nn.Identity):\n    pass\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n        self.part = Part()\n"
        "        self.weight = torch.nn.Parameter(torch.zeros(1))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    their_net = importlib.import_module("their_net")
    monkeypatch.setitem(sys.modules, "their_net", their_net)

    def key():
        return conditions.key(
            about(denoiser=Denoiser(their_net.Net(), v(), unweighted(), torch.float32))
        )

    keys = [key()]
    (tmp_path / "their_blocks.py").write_text("GAIN = 2\n")
    keys.append(key())
    (tmp_path / "their_net.py").write_text((tmp_path / "their_net.py").read_text() + "# changed\n")
    keys.append(key())
    assert len(set(keys)) == 3


def wrapper(function):
    @functools.wraps(function)
    def inner(*args, **options):
        yield from function(*args, **options)

    return inner


def test_images_of_code_from_outside_are_of_one_command(about, make_plan, denoiser, make_net):
    """It may read files: only code that is known as a whole draws for later commands, too."""
    own = {"plan": make_plan(sampler=wrapper(ddim))}  # which passes itself off as ours
    weak = Denoiser(torch.nn.Sequential(make_net(), Others()), v(), unweighted(), torch.float32)
    net = Denoiser(torch.nn.Sequential(make_net(), Others()), v(), unweighted(), torch.float32)
    made = {"network": {"model": {"name": "their_code:make"}}}
    coefficients = dataclasses.replace(v(), coefficients=partial(lambda sigma: sigma))
    objective = Denoiser(denoiser.net, coefficients, unweighted(), torch.float32)
    for change in (
        own, made, {"denoiser": net}, {"denoiser": objective},
        {"plan": make_plan(guidance=Guidance(2.0, weak=weak))},
    ):  # fmt: skip
        first, again = about(**change), about(**change)
        assert len(identity.outside(first)) == 1, change
        assert first == again
        identity.COMMANDS.clear()  # as in another command
        assert {**about(**change), "command": None} == {**first, "command": None} != first
        assert conditions.key(about(**change)) != conditions.key(first)
    assert identity.outside(about()) == []
    assert about()["command"] is None


class Others(torch.nn.Identity):
    pass


def test_no_option_of_a_sampler_hides_what_is_called(about, make_plan):
    """Whatever somebody calls an option of theirs."""
    plans = [make_plan(sampler=partial(f, call=1, args=2, outside=3)) for f in (ddim, heun)]
    assert len({conditions.key(about(plan)) for plan in plans}) == 2


def test_code_without_a_file_counts_by_what_it_is():
    """Typed into a session, or made by a decorator; a partial counts by its function."""

    def typed(text):
        room = {"__name__": "typed"}
        exec(compile(f"def f(x):\n    return {text}", "<typed>", "exec"), room)
        return conditions.of_others(partial(room["f"], 1))

    assert typed("x") == typed("x") != typed("-x")
    assert typed("x").keys() == {"typed.f"}
    assert conditions.of_others(partial(ddim, eta=1.0), torch.nn.Identity(), len) == {}


def test_the_objective_is_part_of_the_key(about, denoiser):
    other = Denoiser(denoiser.net, eps(), unweighted(), torch.float32)
    assert conditions.key(about(denoiser=other)) != conditions.key(about())


def test_the_key_is_the_sha256_of_what_lies_beside_the_shards(draw, tmp_path):
    draw(4)
    [folder] = (tmp_path / "kept").iterdir()
    text = json.loads((folder / "plan.json").read_text())
    assert conditions.key(text) == folder.name
    assert text["plan"]["sampler"]["options"]["eta"] == 1.0
    assert text["command"] is None
    assert text["plan"]["seed"] == 0
