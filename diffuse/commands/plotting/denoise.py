"""`diffuse plot denoise`: one call of a trained network at every level."""

from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from diffuse import assembly
from diffuse.commands.evaluating import judging
from diffuse.commands.plotting import Picture, Said, opened
from diffuse.config import Job
from diffuse.data import ImageSet, to_range
from diffuse.data.images import fitted
from diffuse.plots import states
from diffuse.plots.figures import sheet
from diffuse.restored import Trained
from diffuse.seeds import generator

IMAGES = 4
MEASURED = 256  # images that the errors are taken from
BATCH = 64


def denoise(cfg: DictConfig, job: Job) -> Picture:
    """Test images under noise, the estimates of them, and the truth; then from noise alone."""
    trained, run = opened(cfg)
    _, test, moved = judging.sets_of(trained, {})
    if trained.cfg.dataset.get("clusters"):
        _, test = assembly.real_sets(trained.cfg.dataset, as_learnt=True)
    images = replace(test, images=fitted(test.images, trained.spec.fit), spec=trained.spec)
    t = torch.arange(1, cfg.columns + 1, dtype=torch.float64) / cfg.columns
    sigma = trained.schedule.sigma(t).clamp(*trained.levels)
    rows = {
        "run": run,
        "images": f"{images.spec.name} test, seed {cfg.seed}",
        "levels": f"sigma from {sigma[0]:.3g} to {sigma[-1]:.3g}",
    }

    def draw(folder: Path) -> tuple[list[Path], Said]:
        random = generator(cfg.seed, "plot")
        order = torch.randperm(len(images), generator=random)[:MEASURED]
        x0 = to_range(images.batch(order), trained.range).cpu()
        eps = torch.randn(x0.shape, generator=random)
        levels = sigma.float()[:, None, None, None, None]
        highest = (1 + sigma[-1:] ** 2).sqrt().float() * eps  # the start "vp": no image under it
        x = torch.cat([x0 + levels * eps, highest[None]])
        sigmas = torch.cat([sigma, sigma[-1:]])
        labels = images.labels.cpu()[order]
        estimates = torch.stack(
            [_estimate(trained, *at, labels) for at in zip(x, sigmas, strict=True)]
        )
        said = _numbers(t, sigma, x0, estimates, _blind(trained, images))
        said.facts["warnings"] = moved
        path = folder / "denoise"
        return _draw(trained, cfg.n or IMAGES, x, x0, estimates, sigmas, said, path), said

    return Picture("One step from noise", Said(rows), draw, trained)


@torch.no_grad()
def _estimate(trained: Trained, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
    """The network's estimate of x0 [b c h w], unclipped."""
    device = trained.device
    denoiser = trained.denoiser.eval()
    parts = zip(x.split(BATCH), labels.split(BATCH), strict=True)
    return torch.cat([denoiser(part.to(device), sigma, of.to(device)).cpu() for part, of in parts])


def _blind(trained: Trained, images: ImageSet) -> float:
    """The mean squared error of the mean image: the least that is possible without looking.

    A network that knows classes would give each class's own.
    """
    x0 = to_range(images.images, trained.range)
    kinds = images.labels if trained.conditional else torch.zeros_like(images.labels)
    parts = [x0[kinds == kind] for kind in kinds.unique()]
    return sum((p - p.mean(0)).square().sum().item() for p in parts) / x0.numel()


def _numbers(t: Tensor, sigma: Tensor, x0: Tensor, estimates: Tensor, blind: float) -> Said:
    """The mean squared error at each level, and how wide the estimates from noise alone are."""
    errors = (estimates[:-1] - x0).square().mean(dim=(1, 2, 3, 4)).tolist()
    alone = estimates[-1]
    spread = {"min": alone.min(), "max": alone.max(), "mean": alone.mean(), "std": alone.std()}
    levels = [
        {"t": u, "sigma": s, "mse": e}
        for u, s, e in zip(t.tolist(), sigma.tolist(), errors, strict=True)
    ]
    rows = {
        f"t {at['t']:.2f}": f"sigma {states.short(at['sigma'])}, mse {at['mse']:.4f}"
        for at in levels
    }
    rows["mean image"] = f"mse {blind:.4f}, the least without looking at x"
    rows["from noise alone"] = ", ".join(f"{name} {v:.3f}" for name, v in spread.items())
    facts = {"n": len(x0), "levels": levels, "mean_image_mse": blind}
    return Said(rows, facts | {"noise": {name: v.item() for name, v in spread.items()}})


def _draw(
    trained: Trained, n: int, x: Tensor, x0: Tensor, estimates: Tensor, sigmas: Tensor,
    said: Said, path: Path,
) -> list[Path]:  # fmt: skip
    """n images a column, others in each; where there was only noise the truth is left white."""
    place = torch.arange(n * len(x)).view(len(x), n) % len(x0)
    column = torch.arange(len(x))[:, None]
    noisy = states.scaled(x[column, place], sigmas[:, None], trained.denoiser.objective)
    truth = x0[place]
    truth[-1] = trained.range[1]
    kinds = [kind.transpose(0, 1) for kind in (noisy, estimates[column, place], truth)]
    titles = [
        f"{at['t']:.2f}\n{states.short(at['sigma'])}\n{at['mse']:.3f}"
        for at in said.facts["levels"]
    ]
    titles.append(f"noise\n{states.short(sigmas[-1].item())}\n")
    name = trained.spec.name
    return sheet(
        path,
        states.beside(*kinds, range=trained.range),
        f"{trained.title}: one call of the network\n"
        f"mean squared error (mse) of {len(x0)} {name} test images; "
        f"without looking at x it is {said.facts['mean_image_mse']:.3f}",
        ["noisy", "denoised", "truth"] * n,
        titles,
        "t\nsigma\nmse",
        groups=3,
    )
