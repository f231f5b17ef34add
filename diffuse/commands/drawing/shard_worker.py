"""One more process of `diffuse sample` or `diffuse eval`: started by `sharing`, not by people.

Its first line of stdin is its order; when stdin ends, so does it.
"""

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from diffuse import children, config, stderr
from diffuse.commands import drawing, restoring
from diffuse.commands.drawing import sharing
from diffuse.errors import ConfigError
from diffuse.shards import Store, images


def main() -> int:
    """Draw shards of the plan until all are there; an error is one line, as everywhere."""
    order = json.loads(sys.stdin.readline())
    children.end_with_parent(0)
    try:
        work(order)
    except Exception as error:
        return stderr.report(error)
    return 0


def work(order: Mapping[str, Any]) -> None:
    """Restore the run, make sure that it draws the images that are asked for, and share in it."""
    torch.set_num_threads(order["threads"])  # another number changes last bits
    cfg = OmegaConf.create(order["cfg"])
    assert isinstance(cfg, DictConfig)
    config.trust(cfg.trust)
    trained, plan = restoring.restore(cfg, None)
    ours = json.loads(json.dumps(drawing.identity(trained, plan, order["label"])))
    if ours["command"]:  # from outside: to be shared with our parent alone
        ours["command"] = order["description"].get("command")
    if different := [name for name in ours if ours[name] != order["description"].get(name)]:
        raise ConfigError(f"it would draw other images: another {', '.join(different)}")
    with Store(sharing.folder(cfg.outputs), ours) as store:
        label, rank = order["label"], order["rank"]
        for _ in images(trained.denoiser, trained.spec, plan, order["n"], label, store, rank):
            pass


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # a thread still reads stdin, and nobody waits for it
