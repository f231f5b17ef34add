"""What is looked at while training: the held-out loss, samples from fixed noise, a quick FID."""

import copy
from dataclasses import dataclass
from functools import partial

import torch
from PIL import Image
from torch import Tensor

from diffuse import plots, scoring
from diffuse.data import ImageSet, to_range
from diffuse.denoiser import Denoiser
from diffuse.guidance import weights_of
from diffuse.noise_laws import Law
from diffuse.ranks import ALONE, Ranks
from diffuse.sampling import Plan, batches, draw
from diffuse.scoring import Judge, Settings
from diffuse.seeds import generator
from diffuse.training import Training

HELD_OUT = 1024  # test images in a held-out loss
QUICK = Settings(kid_subsets=20, kid_subset_size=100)


@dataclass(frozen=True)
class Quick:
    """FID and KID of a few images: compare them at the same n and with the same encoder only."""

    n: int
    fid: float
    ci95: tuple[float, float]  # of the FID
    floor: float | None  # the FID of as many real images; None if there are not enough
    kid: float
    kid_ci95: tuple[float, float]
    encoder: str  # sha256


class Checkup:
    """Looks at a training without touching it: own copy, own noise, the averaged weights."""

    def __init__(
        self,
        training: Training,
        test: ImageSet,
        law: Law,
        plan: Plan,
        by_class: bool,  # are samples ordered by what they are of?
        ranks: Ranks = ALONE,
    ) -> None:
        self.training, self.test, self.law, self.plan = training, test, law, plan
        self.by_class, self.ranks = by_class, ranks
        self.copy = copy.deepcopy(training.denoiser).eval()
        self.floors: dict[int, float] = {}  # FID of n real images of the training split

    def averaged(self) -> Denoiser:
        """The denoiser with the averaged weights of the moment."""
        self.copy.net.load_state_dict(self.training.ema.weights)
        guidance = self.plan.guidance
        if guidance is not None and guidance.weak is not None:
            weights = self.training.weights(weights_of(guidance.weights))
            guidance.weak.net.load_state_dict(weights)
        return self.copy

    def samples(self, n: int) -> Image.Image:
        """The same n images every time, a class a row if the model knows classes."""
        drawn, labels = self._draw(n)
        return plots.by_class(drawn, labels) if self.by_class else plots.grid(drawn)

    def score(self, judge: Judge | None, n: int) -> Quick | None:
        """A quick FID, where there is a judge; the other processes help to draw."""
        drawn, _ = self._draw(n)
        if judge is None:
            return None
        rows = [scoring.rows_of(judge.encoder, drawn)]
        fid, kid = (
            scoring.measured(group, rows, judge.real, QUICK)[group] for group in ("fid", "kid")
        )
        (low, high), (kid_low, kid_high) = fid["ci95"], kid["ci95"]
        if n not in self.floors and n <= len(judge.train):
            real = [judge.floor(n)]
            self.floors[n] = scoring.measured("fid", real, judge.real, QUICK)["fid"]["value"]
        floor = self.floors.get(n)
        return Quick(
            n, fid["value"], (low, high), floor,
            kid["value"], (kid_low, kid_high), judge.encoder.sha256,
        )  # fmt: skip

    def _draw(self, n: int) -> tuple[Tensor, Tensor]:
        """The same images, whichever processes share the work."""
        denoiser, spec = self.averaged(), self.test.spec
        jobs = [
            partial(draw, denoiser, spec, self.plan, indices, labels)
            for indices, labels in batches(spec, self.plan.batch, n)
        ]
        parts = self.ranks.dealt(jobs)
        return torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts])

    def loss(self) -> float:
        """The mean loss of the weights being trained on up to 1,024 test images.

        Levels and noise are the same every time. One process computes it for all.
        """
        return self.ranks.dealt([self._loss])[0]

    @torch.no_grad()
    def _loss(self) -> float:
        denoiser = self.training.denoiser.eval()
        n = min(HELD_OUT, len(self.test))
        random = generator(self.plan.seed, "held out")
        sigma = self.law(n, random)
        eps = torch.randn((n, *self.test.spec.shape), generator=random)
        total = 0.0
        for part in torch.arange(n).split(128):
            x0 = to_range(self.test.batch(part), self.plan.range)
            label = self.test.labels[part.to(self.test.labels.device)]
            losses = denoiser.loss(x0, sigma[part], eps[part].to(x0.device), label)
            total += losses.sum().item()
        return total / n
