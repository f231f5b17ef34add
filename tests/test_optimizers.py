"""Muon: as torch's own on the matrices inside the network, AdamW on the rest."""

import copy
import itertools
import math
from pathlib import Path

import pytest
import torch
import yaml

from diffuse import checkpoints, optimizers
from diffuse.config import build
from diffuse.optimizers import ITERATIONS, QUINTIC, Muon, orthogonalised

YAMLS = sorted(Path(__file__).parents[1].glob("conf/optimizer/*.yaml"))
SETTINGS = {"lr": 0.02, "momentum": 0.95, "adam_lr": 0.002, "betas": (0.9, 0.95), "eps": 1e-8,
            "weight_decay": 0.1, "precision": "fp32"}  # fmt: skip


def shake(weights, step):
    """Gradients that depend on the step alone."""
    random = torch.Generator().manual_seed(step)
    for w in weights:
        w.grad = torch.randn(w.shape, generator=random)


def flat(w):
    """[out, in, h, w] -> [out, h w in]."""
    return w.detach().permute(0, 2, 3, 1).reshape(len(w), -1).clone()


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 5, 40), (2, 40, 5)])
def test_it_moves_singular_values_as_the_quintic_says_and_leaves_the_directions(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, s, v = torch.linalg.svd(matrices, full_matrices=False)
    s = s / s.norm(dim=1, keepdim=True)
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        s = a * s + b * s**3 + c * s**5
    expected = u @ torch.diag_embed(s) @ v
    assert torch.allclose(orthogonalised(matrices), expected, atol=1e-12)
    assert torch.allclose(orthogonalised(matrices.float()).double(), expected, atol=1e-4)
    assert (orthogonalised(matrices.bfloat16()).double() - expected).abs().max() < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_directions_that_are_nearly_absent_do_not_grow_beyond_the_others(dtype):
    random = torch.Generator().manual_seed(0)
    matrix = torch.randn(2, 24, 90, generator=random, dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    faint = u @ torch.diag_embed(torch.logspace(0, -9, 24, dtype=torch.float64)) @ v
    found = orthogonalised(faint.to(dtype)).double()
    assert torch.linalg.svdvals(found).max() < 1.3
    if dtype == torch.float32:
        assert (found - orthogonalised(faint)).abs().max() < 1e-3


def test_products_that_torch_may_round_are_not_relied_on(monkeypatch):
    matrices = torch.randn(2, 5, 40, generator=torch.Generator().manual_seed(0))
    expected = orthogonalised(matrices)
    monkeypatch.setattr(optimizers, "_polynomial", None)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        assert torch.allclose(orthogonalised(matrices), expected, atol=1e-3)
    finally:
        torch.set_float32_matmul_precision(before)
    with pytest.raises(TypeError):
        orthogonalised(matrices)


def test_a_matrix_of_zeros_stays_one():
    assert torch.equal(orthogonalised(torch.zeros(1, 3, 4)), torch.zeros(1, 3, 4))


def test_it_is_torchs_muon_on_hidden_convolutions_and_adamw_on_everything_else(make_net):
    net = make_net(init="torch")
    weights = list(net.parameters())
    convolutions = [w for w in weights if w.ndim == 4]
    hidden = [any(w is h for h in convolutions[1:-1]) for w in weights]
    assert any(w is net.stem.weight for w, h in zip(weights, hidden, strict=True) if not h)
    assert any(w is net.head.weight for w, h in zip(weights, hidden, strict=True) if not h)
    copies = [torch.nn.Parameter(flat(w) if h else w.detach().clone())
              for w, h in zip(weights, hidden, strict=True)]  # fmt: skip
    muon = torch.optim.Muon(
        [c for c, h in zip(copies, hidden, strict=True) if h],
        lr=0.02, momentum=0.95, weight_decay=0.1,
    )  # fmt: skip
    adamw = torch.optim.AdamW(
        [c for c, h in zip(copies, hidden, strict=True) if not h],
        lr=0.002, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1,
    )  # fmt: skip
    ours = Muon(weights, **SETTINGS | {"precision": "bf16"})
    for step in range(4):
        shake(weights, step)
        for w, c, h in zip(weights, copies, hidden, strict=True):
            c.grad = flat(w.grad) if h else w.grad.clone()
        for optimizer in (ours, muon, adamw):
            optimizer.step()
    for w, c, h in zip(weights, copies, hidden, strict=True):
        # theirs computes in bfloat16 only, which rounds otherwise where matrices are done together
        far = (flat(w) if h else w) - c
        assert far.abs().max() < (4 * 0.02 * 0.02 if h else 1e-6)


def test_a_learning_rate_of_zero_moves_nothing_in_its_group_only(make_net):
    weights = list(make_net(init="torch").parameters())
    optimizer = Muon(weights, **SETTINGS)
    hidden, rest = optimizer.param_groups
    hidden["lr"] = 0.0
    shake(weights, 0)
    before = [w.detach().clone() for w in hidden["params"]]
    others = [w.detach().clone() for w in rest["params"]]
    optimizer.step()
    assert all(map(torch.equal, hidden["params"], before))
    assert not any(map(torch.equal, rest["params"], others))


def test_a_number_format_that_there_is_not_is_refused(make_net):
    with pytest.raises(ValueError, match="precision must be auto or one of fp32, bf16, fp16, got"):
        Muon(make_net().parameters(), **SETTINGS | {"precision": "bf61"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *itertools.product(["lr", "adam_lr", "weight_decay"], [-0.02, math.inf, math.nan]),
        *itertools.product(["momentum"], [-0.02, 1.0, math.nan]),
    ],
)
def test_a_number_that_climbs_stands_still_or_is_none_is_refused(key, value, make_net):
    settings, below = SETTINGS | {key: value}, "1" if key == "momentum" else "inf"
    with pytest.raises(ValueError, match=rf"^{key} must be in \[0, {below}\), got {value}$"):
        Muon(make_net().parameters(), **settings)


def test_a_training_that_would_climb_leaves_nothing_behind(tiny, diffuse, tmp_path):
    line = f"train {tiny.replace('optimizer=adamw', 'optimizer=muon')} train.steps=1"
    said = diffuse.error(f"{line} optimizer.lr=-0.02")
    assert said == "optimizer: lr must be in [0, inf), got -0.02"
    assert not (tmp_path / "outputs").exists()


def test_a_network_without_hidden_convolutions_is_refused():
    with pytest.raises(ValueError, match="no hidden convolutions; use optimizer=adamw"):
        Muon(torch.nn.Linear(3, 3).parameters(), **SETTINGS)


@pytest.fixture(params=YAMLS, ids=lambda path: path.stem)
def make_optimizer(request):
    node = yaml.safe_load(request.param.read_text())
    if "precision" in node:  # is that of the training
        node["precision"] = "fp32"
    return lambda net: build("optimizer", node, net.parameters())


def steps(net, optimizer, numbers):
    for step in numbers:
        shake(list(net.parameters()), step)
        optimizer.step()


def equal(net, other):
    return all(map(torch.equal, net.state_dict().values(), other.state_dict().values()))


def test_a_copy_goes_its_own_way_and_the_same_way(make_optimizer, make_net):
    net = make_net(init="torch")
    optimizer = make_optimizer(net)
    steps(net, optimizer, [0, 1])
    other, copied = copy.deepcopy((net, optimizer))
    kept = copy.deepcopy(net.state_dict())
    steps(other, copied, [2, 3])
    assert all(map(torch.equal, net.state_dict().values(), kept.values()))
    assert not equal(net, other)
    steps(net, optimizer, [2, 3])
    assert equal(net, other)


@pytest.mark.parametrize("remembers", [True, False])
def test_its_state_survives_json_and_tensors_and_forgetting_it_shows(
    remembers, make_optimizer, make_net, tmp_path
):
    net = make_net(init="torch")
    optimizer = make_optimizer(net)
    steps(net, optimizer, [0, 1])
    tensors = {}
    packed = checkpoints.pack(optimizer.state_dict(), tensors)
    path = checkpoints.save(tmp_path, 2, {"optimizer": tensors, "model": net.state_dict()}, packed)

    other = make_net(init="torch", seed=1)
    fresh = make_optimizer(other)
    other.load_state_dict(checkpoints.load_tensors(path, "model"))
    if remembers:
        tensors = checkpoints.load_tensors(path, "optimizer")
        fresh.load_state_dict(checkpoints.unpack(checkpoints.load_state(path), tensors))
    steps(net, optimizer, [2, 3])
    steps(other, fresh, [2, 3])
    assert equal(net, other) == remembers
