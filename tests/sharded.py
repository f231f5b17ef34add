"""What proofs about shards look at."""

import json

import numpy as np
import torch

from diffuse import sampling
from diffuse.data import ImageSpec

SPEC = ImageSpec("noise", 1, 8, 8, 8, 8, "none", ("a", "b", "c"))
STEPS = 4  # calls of the network for each shard of four images
LINE = "steps=2 device=cpu batch=4"


def whole(denoiser, plan, n, label=None):
    """The same images without shards."""
    parts = list(sampling.images(denoiser, SPEC, plan, n, label))
    return torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts])


def drawn_lines(root):
    """The number of every shard that was drawn under a root, by all processes."""
    lines = [line for path in root.glob("*/drawn.jsonl") for line in path.open()]
    return sorted(json.loads(line)["shard"] for line in lines)


def shard_files(root):
    return {p.name: p.read_bytes() for p in sorted(root.glob("*/shard-*"))}


def arrays(diffuse, line):
    """Images of `sample save=npy`, and how many shards that took."""
    facts = diffuse.json(f"sample {LINE} save=npy {line}")
    return np.load(f"{facts['folder']}/images.npy"), facts["shards"]


def drawn_by(kept):
    """(shard, process) of everything that was drawn."""
    rows = [json.loads(line) for path in kept.glob("*/drawn.jsonl") for line in path.open()]
    return sorted((row["shard"], row["pid"]) for row in rows)
