"""A network, a plan, and its images by shards."""

import time

import pytest
import torch
from sharded import SPEC, STEPS

from diffuse.denoiser import Denoiser
from diffuse.objectives import v
from diffuse.shards import Store, describe, images
from diffuse.weightings import uniform as unweighted


@pytest.fixture
def denoiser(make_net):
    return Denoiser(make_net(init="torch", attention=[1]), v(), unweighted(), torch.float32).eval()


@pytest.fixture
def plan(make_plan):
    return make_plan(calls=STEPS)


@pytest.fixture
def about(denoiser, plan):
    def make(plan=plan, label=None, weights="sha", network=None, spec=SPEC, denoiser=denoiser):
        return describe(denoiser, spec, plan, label, weights, network or {"width": 8})

    return make


@pytest.fixture
def draw(denoiser, plan, about, tmp_path):
    """n images by shards kept under `root`: pixels, labels, and how many calls that took."""

    def make(n, root=tmp_path / "kept", rank=0, label=None, pause=0.0, plan=plan):
        calls = []

        def called(*_):
            calls.append(1)
            time.sleep(pause)

        hook = denoiser.net.register_forward_hook(called)
        with Store(root, about(plan, label)) as kept:
            parts = sorted(
                images(denoiser, SPEC, plan, n, label, kept, rank), key=lambda s: s.number
            )
        hook.remove()
        pixels = torch.cat([part.images for part in parts])[:n]
        return pixels, torch.cat([part.labels for part in parts])[:n], len(calls)

    return make
