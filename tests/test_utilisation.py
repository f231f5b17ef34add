"""FLOPs are counted as on paper, and a training says how many of the possible ones it made."""

import pytest
import torch
from torch import nn

from diffuse import runs, utilisation
from diffuse.commands import train
from diffuse.commands.training import telling

CONVOLUTION = 2 * 9 * 3 * 8 * 10 * 12  # multiply, add; 3x3, 3 channels to 8, 10x12 pixels


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x, level):
        return self.conv(x).relu() + level[:, None, None, None]


@pytest.mark.parametrize("batch", [1, 5])
def test_a_convolution_has_the_flops_it_has_on_paper(batch):
    net = Net()
    assert utilisation.forward_flops(net, (3, 10, 12), batch) == CONVOLUTION
    assert net.conv.weight.device.type == "cpu"


def test_a_step_is_three_forwards():
    used = utilisation.utilisation(Net(), (3, 10, 12), rate=100.0, peak=1e9)
    assert used == pytest.approx(3 * CONVOLUTION * 100 / 1e9)


def test_so_it_is_of_a_network_that_cannot_learn_from_one_image():
    class Normed(Net):
        def forward(self, x, level):
            return nn.functional.batch_norm(x.mean((2, 3)), None, None, training=True)

    assert utilisation.utilisation(Normed(), (3, 10, 12), rate=1.0, peak=1.0) == 0


@pytest.mark.parametrize("word", ["bf16", "fp32"])
def test_every_size_that_is_tried_is_timed_and_the_fastest_counts(word, monkeypatch):
    took = iter([0.02, 0.02, *[0.01] * 5] * 12)
    monkeypatch.setattr(utilisation, "seconds", lambda *_: next(took))
    faster = torch.bfloat16 if word == "bf16" else torch.float32
    monkeypatch.setattr(utilisation.hardware, "precision", lambda *_: (word, faster))
    peak, what = utilisation.convolution_peak(torch.device("cpu"))
    assert what == f"{word}, 256 channels, 32x32"  # the same time for the most work
    assert peak == 2 * 9 * 256**2 * 32**2 * 64 / 0.01


def test_after_a_while_the_largest_convolutions_are_left_out(monkeypatch):
    monkeypatch.setattr(utilisation, "seconds", lambda *_: 0.01)
    _, what = utilisation.convolution_peak(torch.device("cpu"), patience=0.0)
    assert what.endswith("64 channels, 7x7")


def test_a_training_is_done_before_the_peak_is_measured(diffuse, tmp_path, monkeypatch):
    def killed(*_):
        folder = tmp_path / "outputs/train/tiny/v001"
        seen.append(runs.read(folder)["status"])
        raise RuntimeError("not here")

    seen: list[str] = []
    monkeypatch.setattr(train, "LONG", 0.0)
    monkeypatch.setattr(telling, "convolution_peak", killed)
    assert diffuse.train("train.steps=2") == 0
    assert seen == ["done"]
    assert "utilisation" not in runs.read(tmp_path / "outputs/train/tiny/v001")


def test_a_training_says_what_share_it_made_use_of(diffuse, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "LONG", 0.0)
    monkeypatch.setattr(telling, "convolution_peak", lambda *_: (1e9, ""))
    assert diffuse.train("train.steps=2") == 0
    facts = runs.read(tmp_path / "outputs/train/tiny/v001")
    assert facts["peak_flops"] == 1e9
    assert facts["utilisation"] > 0
    assert f"{facts['utilisation']:.0%} of the fastest convolution's FLOP/s" in diffuse.out


def test_a_short_training_does_not_pay_for_it(diffuse, tmp_path):
    assert diffuse.train("train.steps=2") == 0
    assert "utilisation" not in runs.read(tmp_path / "outputs/train/tiny/v001")
    assert "of the fastest" not in diffuse.out
