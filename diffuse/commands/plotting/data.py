"""`diffuse plot data`: training images, their mean and std in range, class counts."""

from pathlib import Path

import torch
from omegaconf import DictConfig

from diffuse.commands.plotting import Picture, Said
from diffuse.config import Job
from diffuse.data import open_dataset
from diffuse.data.images import moments
from diffuse.plots.dataset import dataset

IMAGES = 100


def data(cfg: DictConfig, job: Job) -> Picture:
    """A sheet of images, a class a row."""
    images = open_dataset(cfg.dataset, "train")
    low, high = cfg.range
    mean, std = moments(images.images, (low, high))
    c, h, w = images.spec.shape
    counts = torch.bincount(images.labels.clamp(min=0), minlength=len(images.spec.classes)).tolist()
    classes = dict(zip(images.spec.classes, counts, strict=False))
    facts = {
        "name": images.spec.name, "images": len(images), "shape": [c, h, w],
        "native": [images.spec.native_height, images.spec.native_width], "range": [low, high],
        "mean": mean, "std": std, "classes": classes, "sha256": images.sha256,
        "source": images.source,
    }  # fmt: skip
    rows = {
        "data": f"{images.spec.name}, {len(images):,} training images, {c}x{h}x{w}",
        "source": images.source,
        f"mean in [{low:g}, {high:g}]": f"{mean:.4f}",
        "std": f"{std:.4f}",
    } | {f"  {name}": f"{count:,}" for name, count in classes.items()}

    def draw(folder: Path) -> tuple[list[Path], Said]:
        n = cfg.n or IMAGES
        return dataset(images, (low, high), n, cfg.seed, folder / "data"), Said()

    return Picture("Data", Said(rows, facts), draw)
