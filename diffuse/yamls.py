"""A config as the yaml that people read: config.yaml of a run, and `--cfg job`."""

from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf


def as_yaml(cfg: DictConfig, resolve: bool = False) -> str:
    """A config to read: in the order of the schema, short lists on one line, nothing of Hydra's."""
    cfg = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    return yaml.dump(
        OmegaConf.to_container(cfg, resolve=resolve),
        Dumper=_dumper(),
        sort_keys=False,
        allow_unicode=True,
        width=100,
    ).rstrip()


def _dumper() -> type[yaml.SafeDumper]:
    class Dumper(yaml.SafeDumper):
        pass

    def sequence(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.Node:
        flat = not any(isinstance(item, list | dict) for item in items)
        return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flat)

    def number(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
        # 1e-05 would be read back as text by YAML 1.1
        text = repr(value)
        if "e" in text and "." not in text:
            text = text.replace("e", ".0e")
        special = {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}
        return dumper.represent_scalar("tag:yaml.org,2002:float", special.get(text, text))

    Dumper.add_representer(list, sequence)
    Dumper.add_representer(float, number)
    return Dumper
