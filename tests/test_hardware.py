"""The machine is asked, and numbers drawn by what they are for."""

import sys

import pytest
import torch

from diffuse import hardware
from diffuse.data.images import moments
from diffuse.errors import ConfigError
from diffuse.metrics.tables import Moments
from diffuse.samplers import rk45
from diffuse.seeds import generator, seed_of


def test_the_cpu_is_always_there_and_auto_is_something_that_computes():
    assert hardware.device("cpu") == torch.device("cpu")
    assert torch.ones(1, device=hardware.device("auto")).item() == 1


@pytest.mark.parametrize("word", ["cuda", "cuda:3", "mps"])
def test_a_device_that_is_not_there_is_a_config_error(word, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"device={word}, but torch finds no .*use device=auto"):
        hardware.device(word)


def test_a_number_past_the_last_gpu_is_a_config_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert hardware.device("cuda:1") == torch.device("cuda:1")
    assert hardware.device("cuda") == torch.device("cuda")
    assert chosen == [torch.device("cuda:1")]  # which starts CUDA there
    with pytest.raises(ConfigError, match="there are 2 CUDA devices"):
        hardware.device("cuda:2")


def test_jobs_take_turns_over_several_gpus_only(monkeypatch):
    for count, expected in ((0, "auto"), (1, "auto"), (3, "cuda:1")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        assert hardware.turn("auto", 4) == expected
        assert hardware.turn("cuda:2", 4) == "cuda:2"


@pytest.mark.parametrize("faster", [True, False])
def test_auto_is_bf16_where_that_was_measured_to_be_faster(faster, monkeypatch):
    seconds = {torch.float32: 1.0, torch.bfloat16: 0.5 if faster else 1.0}
    monkeypatch.setattr(
        hardware, "_convolution_seconds", lambda *dtypes: [seconds[dtype] for dtype in dtypes]
    )
    word, dtype = hardware.precision("auto", torch.device("cpu"))
    assert (word, dtype) == (("bf16", torch.bfloat16) if faster else ("fp32", torch.float32))
    assert hardware.precision("fp16", torch.device("cpu")) == ("fp16", torch.float16)


def test_the_machine_is_described_and_its_memory_measured():
    cpu = torch.device("cpu")
    assert "thread" in hardware.describe(cpu)
    assert 2**26 < hardware.peak_memory(cpu) < 2**40


@pytest.mark.skipif(sys.platform != "linux", reason="no other system forgets a peak")
def test_the_peak_of_a_training_is_not_that_of_the_one_before_in_this_process():
    cpu, peaks = torch.device("cpu"), []
    for size in (2**28, 1):
        hardware.forget_peak(cpu)
        torch.ones(size, dtype=torch.uint8)
        peaks.append(hardware.peak_memory(cpu))
    assert peaks[0] - peaks[1] > 2**27


def test_a_seed_depends_on_every_part_of_its_key_and_on_nothing_else():
    keys = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", 1), (0, "a", 2), ("0", "a"), (0, "a1")]
    seeds = [seed_of(*key) for key in keys]
    assert len(set(seeds)) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_neighbouring_streams_have_nothing_in_common():
    streams = torch.stack(
        [torch.randn(2000, generator=generator(0, "image", k)) for k in range(20)]
    )
    correlations = torch.corrcoef(streams) - torch.eye(20)
    assert correlations.abs().max() < 5 / 2000**0.5
    assert torch.equal(torch.randn(2000, generator=generator(0, "image", 3)), streams[3])


class Without64(torch.Tensor):
    """A tensor of a device that has no float64, as Apple's: it can be had on the CPU only."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.Tensor.cpu:
            with torch._C.DisableTorchFunctionSubclass():
                return args[0].as_subclass(torch.Tensor)
        wide = any(value is torch.float64 for value in (*args, *(kwargs or {}).values()))
        if isinstance(args[0], cls) and (wide or function is torch.Tensor.double):
            raise TypeError("this device has no float64")
        return super().__torch_function__(function, types, args, kwargs)


def test_what_is_counted_of_images_on_a_device_without_float64_is_float64_on_the_cpu():
    images = torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8)
    assert moments(images.as_subclass(Without64), (0, 1)) == moments(images, (0, 1))


def test_a_sampler_that_chooses_its_steps_does_so_on_a_device_without_float64():
    def drawn(x):
        sigmas = torch.tensor([80.0, 0.01, 0.0], dtype=torch.float64)
        steps = rk45(lambda x, sigma: x * 0.9, x, sigmas, torch.empty, rtol=0.1, atol=0.1)
        return list(steps)[-1][0]

    x = torch.linspace(-9, 9, 8).view(2, 1, 2, 2)
    assert torch.equal(drawn(x.as_subclass(Without64)).cpu(), drawn(x))


def test_statistics_of_a_device_without_float64_are_float64_on_the_cpu():
    mean, covariance = torch.ones(2), torch.eye(2)
    known = Moments.known(9, mean.as_subclass(Without64), covariance.as_subclass(Without64))
    assert torch.equal(known.covariance, covariance.double())
