"""`diffuse plot fid_trajectory`: how good the images of a network are after each step."""

import logging
import time
from pathlib import Path

from omegaconf import DictConfig
from torch import Tensor

from diffuse import assembly, passport, scoring, values
from diffuse.commands import describing, guiding, restoring
from diffuse.commands.evaluating import doubts, judging
from diffuse.commands.plotting import Picture, Said, called, opened
from diffuse.commands.plotting.trajectory import check_steps
from diffuse.config import Job
from diffuse.console import Meter
from diffuse.data import to_uint8, unfit
from diffuse.encoders import check_encoder
from diffuse.errors import ConfigError, DataError
from diffuse.metrics import Estimate, fid_estimate
from diffuse.plots import fid_trajectory as pictures
from diffuse.plots.states import scaled, short
from diffuse.restored import Trained
from diffuse.sampling import Plan, batches, classes, walk
from diffuse.scoring.along import Along, Point, spread

log = logging.getLogger(__name__)

IMAGES = 512
MOST = 50  # steps that are measured
SHOWN = 6  # in the table


def fid_trajectory(cfg: DictConfig, job: Job) -> Picture:
    """FID of the estimate of x0, and of the state, after each step."""
    check_steps(cfg)
    check_encoder(cfg.encoder)
    n = cfg.n or IMAGES
    if n < values.SCORED:
        raise ConfigError(f"n must be at least {values.SCORED}, got {n}: a FID has an interval")
    trained, run = opened(cfg)
    restoring.as_its_own(cfg, job, trained.cfg)
    check_steps(cfg)  # of its own
    device = trained.device
    plan = restoring.planned(cfg, trained, assembly.sampling_batch(None, device))
    guiding.refuse_idle(cfg, job)
    label = restoring.class_number(cfg, trained)
    chosen = judging.selected(cfg)
    train, test, moved = judging.sets_of(trained, {})
    if len(train) < values.SCORED:
        raise DataError(f"a floor takes {values.SCORED} training images, there are {len(train)}")
    judge = assembly.judge(cfg, train=train, test=test)
    encoder = judge.encoder
    steps = len(plan.sigmas) - 1
    counted = f"{steps:,} step{'s' * (steps != 1)}"
    about = f"{called(job, 'sampler')}, {counted}, grid {called(job, 'grid')}"
    rows = {
        "run": run,
        "images": f"{n:,}, seed {cfg.seed}" + (f", class {cfg.label}" * (label is not None)),
        "sampler": f"{about}, clip {plan.clip}, start {plan.start}",
        "encoder": f"{encoder.name} ({encoder.sha256[:8]})",
    }

    def draw(folder: Path) -> tuple[list[Path], Said]:
        started = time.monotonic()
        real = scoring.real(judge, n)
        known = real.known_floor()
        said = doubts.few(n, encoder.dim, train) + doubts.of_features(encoder, len(test), train)
        for line in said:
            log.warning("%s", line)
        said += encoder.doubts  # said already
        said += doubts.of_classes(trained, test, label)
        record = describing.passport_of(  # the code as it is now
            job, trained, plan, encoder, weights=cfg.weights, n=n, seeds=1
        )
        along = Along(encoder, spread(steps, MOST))
        _walked(trained, plan, n, label, along)
        points = along.points(plan.sigmas.tolist(), real.moments)
        calls = max(along.calls.values())
        floor = fid_estimate(known.features, real.moments, known.blocks)
        title = f"FID along the way, {trained.title}: {about}, n={n:,}"
        drawn = pictures.draw(points, floor.value, len(known), title, folder)
        facts = {"n": n, "warnings": chosen + moved + said} | record | {
            "reference": passport.of_images(test, "test"),
            "real": passport.of_images(train, "train"),
            "sampler": describing.how(cfg, job, plan, calls, describing.class_of(trained, label)),
            "floor": floor.record(), "floor_n": len(known),
            "points": [point.record() for point in points],
            "seconds": round(time.monotonic() - started, 1),
        }  # fmt: skip
        return drawn, Said(_rows(points, floor, len(known)), facts)

    return Picture("FID along the way", Said(rows), draw, trained)


def _walked(trained: Trained, plan: Plan, n: int, label: int | None, along: Along) -> None:
    """Draw n images just as an evaluation does, and look at them on their way."""
    done, spec = 0, trained.spec
    trained.denoiser.eval()

    def pixels(x: Tensor) -> Tensor:
        return unfit(to_uint8(x, plan.range).cpu(), spec)

    with Meter("sample", n) as meter:
        for indices, _ in batches(spec, plan.batch, n, label):
            b, whole = len(indices), range(indices.start, indices.start + plan.batch)
            states = walk(trained.denoiser, spec, plan, whole, classes(spec, whole, label))
            for step, (x, denoised, calls) in enumerate(states, 1):
                if step in along.calls:
                    level = plan.sigmas[step].expand(b)
                    seen = scaled(x[:b], level, trained.denoiser.objective)
                    along.add(step, pixels(denoised[:b]), pixels(seen), calls)
                if meter.due():
                    meter.show(done)
            done += b


def _rows(points: list[Point], floor: Estimate, floor_n: int) -> dict[str, str]:
    """Some of the points, the best estimate, and the floor."""
    some = [points[k - 1] for k in spread(len(points), SHOWN)]
    rows = {
        f"step {point.step:,}": f"sigma {short(point.sigma)}, FID of denoised "
        f"{_said(point.denoised)}, of x {_said(point.x)}"
        for point in some
    }
    best = min(points, key=lambda point: point.denoised.value)
    return rows | {
        "at the end": f"FID {_said(points[-1].x, '  (95%: ')}",
        "best estimate": f"FID {_said(best.denoised, '  (95%: ')}, in step {best.step:,}",
        f"{floor_n:,} real images": f"FID {_said(floor, '  (95%: ')}",
    }


def _said(fid: Estimate, between: str = " (") -> str:
    return f"{fid.value:.3f}{between}{fid.low:.3f} to {fid.high:.3f})"
