"""Pictures of data."""

from pathlib import Path

import torch
from omegaconf import DictConfig

from diffuse import plots, runs, schemas
from diffuse.config import Job
from diffuse.console import print_json, print_table
from diffuse.data import open_dataset
from diffuse.data.images import moments


def main(cfg: DictConfig, job: Job) -> int:
    """`diffuse plot data`: training images, their mean and std in range, class counts."""
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
    if cfg.dry_run:
        print_json(facts) if job.json else print_table("Plan (nothing is written)", rows)
        return 0
    folder = job.folder or runs.claim(Path(cfg.outputs), "plot", cfg.name or images.spec.name)
    folder.mkdir(parents=True, exist_ok=True)
    config = schemas.as_yaml(cfg)
    run = runs.Run.start(folder, "plot", config, job.overrides, name=cfg.name, seed=cfg.seed)
    with run.watched():
        path = plots.dataset(images, (low, high), cfg.n, cfg.seed, folder / "data.png")
        run.finish("done", data=facts)
    if job.json:
        print_json(facts | {"plot": str(path)})
    else:
        print_table("Data", rows | {"picture": str(path)})
    return 0
