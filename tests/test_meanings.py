"""What a run is called."""

import pytest
from omegaconf import OmegaConf

from diffuse import meanings


@pytest.mark.parametrize(("images", "name"), [(None, None), ("theirs.npz", "cifar10")])
def test_an_evaluation_is_called_as_its_run_wherever_the_data_of_it_lies(images, name):
    cfg = OmegaConf.create({"name": None, "images": images, "dataset": {"root": "moved"}})
    assert meanings.run_name(cfg, {"dataset": "cifar10", "sampler": "ddim"}) == name
