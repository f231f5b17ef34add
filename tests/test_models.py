"""The UNet: its start as an identity, its pieces against torch's own, and what it refuses."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml

from diffuse.config import build
from diffuse.errors import ConfigError
from diffuse.models.blocks import (
    Attention,
    Doubled,
    Downsample,
    ResBlock,
    Subpixel,
    Upsample,
    sinusoidal,
)

YAMLS = sorted(Path(__file__).parents[1].glob("conf/model/*.yaml"))
SHAPES = {"gray": {"channels": 1, "size": (28, 28)}, "rgb": {"channels": 3, "size": (32, 32)}}


def preset(path, **changes):
    return {**yaml.safe_load(path.read_text()), **changes}


def noisy(channels=1, size=(8, 8), n=4):
    random = torch.Generator().manual_seed(1)
    x = torch.randn(n, channels, *size, generator=random)
    return x, torch.randn(n, generator=random), torch.arange(n) % 3


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_every_preset_learns_from_gray_and_rgb(path, shape):
    """At an eighth of its width: the shapes are the preset's, the time is a test's."""
    given = preset(path)
    size = SHAPES[shape]["size"]
    if size[0] % (given["patch"] * 2 ** (len(given["mults"]) - 1)):
        size = (32, 32)  # what fit=pad makes of it
    small = {"width": given["width"] // 4, "groups": 2, "head_dim": None, "init": "torch"}
    net = build(
        "model", {**given, **small}, channels=SHAPES[shape]["channels"], size=size, classes=3
    )
    x, c_noise, label = noisy(SHAPES[shape]["channels"], size, n=2)
    out = net(x, c_noise, label)
    assert out.shape == x.shape
    out.square().mean().backward()
    assert all(w.grad is not None and w.grad.isfinite().all() for w in net.parameters())


SHAPED = [
    {},
    {"middle": "block"},
    {"middle": "attention", "attention": [0, 1], "skips": "every", "modulation": "add"},
    {"patch": 2, "blocks": [1, 2]},
    {"mults": [1, 2, 4], "upsample": "subpixel", "skips": "every"},
]


@pytest.mark.parametrize("changes", SHAPED, ids=str)
def test_at_first_the_output_is_zero_and_every_block_passes_its_input_on(changes, make_net):
    net, seen = make_net(**changes), []

    def passes_on(block, args, out):
        x = block.skip(args[0]) if isinstance(block, ResBlock) else args[0]
        if isinstance(block, ResBlock):
            x = x + block.conv2.bias[:, None, None]
        else:
            x = x + block.out.bias[:, None, None]
        seen.append(torch.allclose(out, x, atol=1e-6))

    for module in net.modules():
        if isinstance(module, (ResBlock, Attention)):
            module.register_forward_hook(passes_on)
    out = net(*noisy())
    assert not out.any()
    assert len(seen) >= 4
    assert all(seen)
    assert make_net(init="torch", **changes)(*noisy()).any()


def test_a_downsample_begins_orthogonal(make_net):
    net = make_net(mults=[1, 2, 4], size=(8, 8))
    downs = [m for m in net.modules() if isinstance(m, Downsample)]
    assert len(downs) == 2
    for down in downs:
        rows = down.weight.detach().reshape(len(down.weight), -1)
        assert torch.allclose(rows @ rows.T, torch.eye(len(rows)), atol=1e-5)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_torchs_multi_head_attention(heads):
    torch.manual_seed(0)
    ours = Attention(16, groups=4, head_dim=16 // heads)
    theirs = torch.nn.MultiheadAttention(16, heads, batch_first=True)
    theirs.in_proj_weight.data = ours.qkv.weight.data.view(48, 16)
    theirs.in_proj_bias.data = ours.qkv.bias.data
    theirs.out_proj.weight.data = ours.out.weight.data.view(16, 16)
    theirs.out_proj.bias.data = ours.out.bias.data
    x = torch.randn(2, 16, 4, 6)
    pixels = ours.norm(x).flatten(2).transpose(1, 2)
    expected = x + theirs(pixels, pixels, pixels)[0].transpose(1, 2).reshape(x.shape)
    assert torch.allclose(ours(x), expected, atol=1e-5)


def test_nearby_noise_levels_are_told_apart_and_far_ones_too():
    c_noise = torch.linspace(-1.2, 1.6, 1000)
    table = sinusoidal(c_noise, 32)
    assert torch.allclose(table.norm(dim=1), torch.full((1000,), 16.0).sqrt(), rtol=1e-4)
    distances = torch.cdist(table, table) + 10 * torch.eye(1000)
    assert distances.min() > 0.01


def answers(net, label):
    x, c_noise, _ = noisy()
    with torch.no_grad():
        return net(x, c_noise, label)


def test_a_conditional_network_tells_classes_from_each_other_and_from_no_class(make_net):
    net = make_net(init="torch").eval()
    outputs = [answers(net, torch.full((4,), k)) for k in range(4)]
    for i in range(4):
        for j in range(i):
            assert not torch.allclose(outputs[i], outputs[j])
    assert torch.equal(answers(net, None), outputs[3])


def test_an_unconditional_network_does_not_listen_to_labels(make_net):
    net = make_net(conditional=False, init="torch").eval()
    assert torch.equal(answers(net, None), answers(net, torch.full((4,), 2)))


@pytest.mark.parametrize("conditional", [True, False])
def test_a_network_without_noise_level_does_not_listen_to_it(conditional, make_net):
    x, c_noise, label = noisy()
    net = make_net(noise_level=False, conditional=conditional, init="torch").eval()
    out = net(x, c_noise, label)
    assert torch.equal(net(x, c_noise + 1, label), out)
    assert torch.equal(net(x, c_noise * torch.nan, label), out)
    assert torch.equal(net(x, c_noise, None), out) != conditional
    assert not torch.equal(make_net(init="torch").eval()(x, c_noise + 1, label), out)
    out.square().mean().backward()
    assert all(w.grad is not None and w.grad.any() for w in net.parameters())


def test_a_network_without_noise_level_has_no_weights_for_it(make_net):
    def weights(noise_level, conditional):
        net = make_net(noise_level=noise_level, conditional=conditional)
        return {name for name, _ in net.named_parameters()}

    assert {n.partition(".")[0] for n in weights(True, True) - weights(False, True)} == {"embed"}
    assert not [n for n in weights(False, False) if "emb" in n]
    assert weights(True, True) - {"label.weight"} == weights(True, False)


def test_images_do_not_see_each_other(make_net):
    net = make_net(init="torch", attention=[0, 1], middle="attention").eval()
    x, c_noise, label = noisy()
    with torch.no_grad():
        alone = torch.cat(
            [net(x[k : k + 1], c_noise[k : k + 1], label[k : k + 1]) for k in range(4)]
        )
        assert torch.allclose(net(x, c_noise, label), alone, atol=1e-5)


def test_a_patch_stem_is_undone_at_the_head(make_net):
    """With a stem and a head that copy, and nothing between, the image comes out as it went in."""
    net = make_net(patch=2, width=8, mults=[1], blocks=1, groups=4, skips="level")
    x, c_noise, label = noisy()
    for conv in (net.stem, net.head):
        torch.nn.init.dirac_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
    for block in [m for m in net.modules() if isinstance(m, ResBlock)]:
        torch.nn.init.zeros_(block.conv2.bias)
    net.norm = torch.nn.Identity()
    out = net(x, c_noise, label)
    assert torch.allclose(out, torch.nn.functional.silu(x), atol=1e-6)


@pytest.mark.parametrize("upsample", ["nearest", "subpixel"])
def test_the_network_is_channels_last_from_end_to_end(upsample, make_net):
    net = make_net(init="torch", attention=[1], upsample=upsample)
    flat = []
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda m, args, out: flat.append(
                    out.is_contiguous(memory_format=torch.channels_last)
                )
            )
    x, c_noise, label = noisy()
    net(x.contiguous(memory_format=torch.channels_last), c_noise, label)
    assert len(flat) > 10
    assert all(flat)


REFUSED = [
    ({"groups": 3}, "groups = 3 does not divide the width 8"),
    ({"head_dim": 3}, "head_dim = 3 does not divide"),
    ({"head_dim": -4}, "head_dim = -4 does not divide"),
    ({"head_dim": 0}, "head_dim = 0 does not divide"),
    ({"width": 9, "groups": 1}, "width must be even"),
    ({"width": 0}, "must be at least 1"),
    ({"mults": []}, "must be at least 1"),
    ({"patch": 0}, "must be at least 1"),
    ({"blocks": 0}, "blocks needs one number >= 1"),
    ({"blocks": [1, 1, 1]}, "each of 2 levels: [1, 1, 1]"),
    ({"attention": [2]}, "attention must name levels 0 to 1, got [2]"),
    ({"mults": [1, 1, 1, 1, 1]}, "multiple of 16 high and wide, got 8x8: try dataset.fit=pad"),
    ({"size": (9, 8)}, "got 9x8"),
    ({"dropout": 1.0}, "dropout must be in [0, 1), got 1.0"),
    ({"middle": "blok"}, "middle must be one of none, block, attention, got 'blok'"),
    ({"skips": "all"}, "skips must be one of"),
    ({"modulation": "mul"}, "modulation must be one of"),
    ({"init": "ones"}, "init must be one of"),
    ({"upsample": "cubic"}, "upsample must be one of nearest, subpixel, got 'cubic'"),
    ({"classes": 0}, "the data set has no labels; model.conditional=false trains without"),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED, ids=[str(c) for c, _ in REFUSED])
def test_what_cannot_be_built_is_refused_in_one_line(changes, words, make_net):
    with pytest.raises(ValueError, match=r".") as caught:
        make_net(**changes)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_from_a_yaml_it_is_a_config_error_of_the_model():
    path = next(path for path in YAMLS if path.stem == "course")
    with pytest.raises(ConfigError, match="model: groups = 5 does not divide the width 32"):
        build("model", preset(path, groups=5), channels=1, size=(32, 32), classes=0)


def test_doubling_and_its_way_back_are_torchs_nearest_neighbour():
    x, *_ = noisy(channels=3)
    x = x.contiguous(memory_format=torch.channels_last)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    doubled = Doubled.apply(ours)
    expected = F.interpolate(theirs, scale_factor=2.0, mode="nearest")
    assert torch.equal(doubled, expected)
    assert doubled.is_contiguous(memory_format=torch.channels_last)
    push = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    doubled.backward(push)
    expected.backward(push)
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-6)


def test_a_subpixel_step_sees_what_doubling_and_a_convolution_see():
    """On doubled pixels taps fall together: four kernels at half the resolution do the same."""
    torch.manual_seed(0)
    nearest, subpixel = Upsample(6), Subpixel(6, 6)
    x = torch.randn(2, 6, 5, 4).to(memory_format=torch.channels_last)
    coarse = F.one_hot(torch.tensor([[0, 1, 1], [1, 1, 2]])).float()  # [part, tap, coarse tap]
    with torch.no_grad():
        w = torch.einsum("ocuv,ius,jvt->oijcst", nearest.weight, coarse, coarse)
        subpixel.weight.copy_(w.flatten(0, 2))
        subpixel.bias.copy_(nearest.bias.repeat_interleave(4))
        expected, found = nearest(x), subpixel(x)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(found, expected, atol=1e-5)
