"""`diffuse plot noise`: images under noise, and what a network would be asked for. No training."""

from pathlib import Path

import torch
from omegaconf import DictConfig

from diffuse import assembly, config
from diffuse.commands.plotting import Picture, Said
from diffuse.config import Job
from diffuse.data import open_dataset, to_range
from diffuse.data.images import moments
from diffuse.plots import states
from diffuse.plots.figures import sheet
from diffuse.seeds import generator

IMAGES = 4
MEASURED = 1000  # images that the deviations are taken from


def noise(cfg: DictConfig, job: Job) -> Picture:
    """A sheet of x and one of the objective's target, by t."""
    images = open_dataset(cfg.dataset, "train")
    pixels = assembly.pixel_range(cfg)
    assembly.fill_sigma_data(cfg, moments(images.images, pixels)[1])
    objective = config.build("objective", cfg.objective)
    schedule = config.build("schedule", cfg.schedule)
    t = torch.linspace(0, 1, cfg.columns, dtype=torch.float64)
    sigma = schedule.sigma(t)

    n = min(cfg.n or IMAGES, len(images))
    random = generator(cfg.seed, "plot")
    order = torch.randperm(len(images), generator=random)[: max(n, MEASURED)]
    x0 = to_range(images.batch(order), pixels)
    eps = torch.randn(x0.shape, generator=random)
    x, target = states.noised(x0[:n], eps[:n], sigma, objective)

    said = Said(facts={"objective": objective.name, "levels": []})
    for u, s in zip(t, sigma, strict=True):
        wide, asked = states.noised(x0, eps, s[None], objective)
        seen = objective.coefficients(s)[2].item() * wide.std().item()
        said.rows[f"t {u:.2f}"] = (
            f"sigma {states.short(s.item())}, input's std {seen:.3f}, target's {asked.std():.3f}"
        )
        said.facts["levels"].append(
            {"t": u.item(), "sigma": s.item(), "input_std": seen, "target_std": asked.std().item()}
        )

    def draw(folder: Path) -> tuple[list[Path], Said]:
        about = f"{images.spec.name}, schedule {job.choices['schedule']}, objective"
        columns, heading = states.times(sigma, t)
        low, high = states.TARGETS
        shown = states.scaled(x, sigma, objective)
        noisy = sheet(
            folder / "noise", states.beside(shown, range=pixels),
            f"what the network sees, c_in x: {about} {objective.name}", [""] * n, columns, heading,
        )  # fmt: skip
        asked = sheet(
            folder / "target", states.beside(target, range=(low, high)),
            f"what it is asked for, from {low:g} (black) to {high:g} (white): {about} "
            f"{objective.name}", [""] * n, columns, heading,
        )  # fmt: skip
        return [*noisy, *asked], Said()

    return Picture("Noise", said, draw)
