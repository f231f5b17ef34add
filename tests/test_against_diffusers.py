"""The same weights as in diffusers' UNet give the same numbers."""

from pathlib import Path

import diffusers
import pytest
import torch
import yaml

from diffuse.config import build
from diffuse.models.blocks import Attention, Downsample, ResBlock, Upsample

CONF = Path(__file__).parents[1] / "conf/model"
PARTS = {
    ResBlock: [
        ("norm1", "norm1"), ("conv1", "conv1"), ("emb", "time_emb_proj"), ("norm2", "norm2"),
        ("conv2", "conv2"), ("skip", "conv_shortcut"),
    ],
    Attention: [("norm", "group_norm"), ("out", "to_out.0")],
    Downsample: [("", "conv")],
    Upsample: [("", "conv")],
}  # fmt: skip
WHERE = {ResBlock: "resnets", Attention: "attentions", Downsample: "downsamplers",
         Upsample: "upsamplers"}  # fmt: skip


def copied(net):
    """Our weights under diffusers' names."""
    theirs = {}

    def put(module, name):
        for key, weight in module.state_dict().items():
            theirs[f"{name}.{key}"] = weight.view(len(weight), -1) if "to_out" in name and (
                weight.ndim == 4) else weight  # fmt: skip

    def put_stage(stage, name):
        count = dict.fromkeys(WHERE, 0)
        for layer in stage:
            kind = type(layer)
            place = f"{name}.{WHERE[kind]}.{count[kind]}"
            count[kind] += 1
            for ours, other in PARTS[kind]:
                put(layer.get_submodule(ours), f"{place}.{other}")
            if kind is Attention:
                for which, weight, bias in zip(
                    "qkv", layer.qkv.weight.chunk(3), layer.qkv.bias.chunk(3), strict=True
                ):
                    theirs[f"{place}.to_{which}.weight"] = weight.flatten(1)
                    theirs[f"{place}.to_{which}.bias"] = bias

    put(net.stem, "conv_in")
    put(net.embed[0], "time_embedding.linear_1")
    put(net.embed[2], "time_embedding.linear_2")
    if net.label is not None:
        put(net.label, "class_embedding")
    for i, stage in enumerate(net.down):
        put_stage(stage, f"down_blocks.{i}")
    put_stage(net.middle, "mid_block")
    for i, stage in enumerate(net.up):
        put_stage(stage, f"up_blocks.{i}")
    put(net.norm, "conv_norm_out")
    put(net.head, "conv_out")
    return theirs


def their_unet(widths, blocks, groups, attention, head_dim, shift="default", **more):
    last = len(widths) - 1
    attn = [level in attention for level in range(last + 1)]
    return diffusers.UNet2DModel(
        sample_size=16, in_channels=3, out_channels=3,
        block_out_channels=widths, layers_per_block=blocks, norm_num_groups=groups,
        attention_head_dim=head_dim, resnet_time_scale_shift=shift,
        attn_norm_num_groups=groups,
        down_block_types=["AttnDownBlock2D" if a else "DownBlock2D" for a in attn],
        up_block_types=["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attn)],
        flip_sin_to_cos=False, freq_shift=1, **more,
    )  # fmt: skip


@pytest.mark.parametrize("head_dim", [8, None])
@pytest.mark.parametrize(
    ("modulation", "shift"), [("add", "default"), ("scale_shift", "scale_shift")]
)
@pytest.mark.parametrize("classes", [0, 3])
def test_our_unet_is_theirs_with_the_weights_copied_name_by_name(
    modulation, shift, classes, head_dim, make_net
):
    ours = make_net(
        channels=3, size=(16, 16), width=16, mults=[1, 2, 3], blocks=2, groups=8, attention=[1],
        head_dim=head_dim, middle="attention", skips="every", modulation=modulation, init="torch",
        conditional=classes > 0, classes=classes,
    ).eval()  # fmt: skip
    theirs = their_unet(
        (16, 32, 48), 2, 8, [1], head_dim, shift, num_class_embeds=classes + 1 if classes else None
    ).eval()
    theirs.load_state_dict(copied(ours), strict=True)
    x, timestep = torch.randn(4, 3, 16, 16), torch.tensor([0.0, 10.0, 500.5, 999.0])
    label = torch.tensor([0, 1, 2, 3]) if classes else None
    with torch.no_grad():
        expected = theirs(x, timestep, class_labels=label).sample
        out = ours(x, timestep / 1000, label)
    assert expected.std() > 0.01
    assert torch.allclose(out, expected, rtol=1e-4, atol=1e-4)


def parameters(net):
    return sum(w.numel() for w in net.parameters())


@pytest.mark.parametrize(
    ("preset", "theirs", "published"),
    [
        ("ddpm", ((128, 256, 256, 256), 2, 32, [1], None), 35_746_307),
        ("course", ((32, 64, 128, 256), 2, 8, [1, 2, 3], 8), 15_891_907),
    ],
)
def test_a_presets_parameters_agree_with_theirs_to_the_last_one(preset, theirs, published):
    node = yaml.safe_load((CONF / f"{preset}.yaml").read_text())
    with torch.device("meta"):
        ours = build("model", {**node, "init": "torch"}, channels=3, size=(32, 32), classes=0)
        assert parameters(ours) == parameters(their_unet(*theirs)) == published
