"""`diffuse plot preprocessing`: what is done to images before they are compared, in FID."""

import logging
import time
from pathlib import Path

from omegaconf import DictConfig

from diffuse import assembly, evaluations, hardware, passport, values
from diffuse.commands.evaluating import doubts
from diffuse.commands.plotting import Picture, Said
from diffuse.config import Job
from diffuse.console import Meter
from diffuse.encoders import check_encoder
from diffuse.errors import ConfigError
from diffuse.plots import preprocessing as pictures
from diffuse.scoring.preprocessing import Effect, effects, no_half, sorted_by_size, treatments

log = logging.getLogger(__name__)

IMAGES = 1024


def preprocessing(cfg: DictConfig, job: Job) -> Picture:
    """Real images as they are, then resized, through JPEG, truncated, in half precision."""
    check_encoder(cfg.encoder)
    train, test = assembly.real_sets(cfg.dataset)
    n = cfg.n or min(IMAGES, len(train))
    if n > len(train):
        raise ConfigError(f"n={n}, but {train.spec.name} train holds {len(train)} images")
    if n < values.SCORED:
        raise ConfigError(f"n must be at least {values.SCORED}, got {n}: a FID has an interval")
    judge = assembly.judge(cfg, train=train, test=test)
    spec = test.spec
    encoder, reason = judge.encoder, no_half(judge.encoder)
    left_out = {"bfloat16": f"{encoder.name} does not compute in it: {reason}"} if reason else {}
    wanted = treatments((spec.native_height, spec.native_width), encoder, cfg.seed)
    rows = {
        "images": f"{n:,} of {spec.name} train, beside {len(test):,} of its test split",
        "encoder": f"{encoder.name} ({encoder.sha256[:8]}), {encoder.dim} features",
        "treatments": f"{len(wanted) - 1}, of one side only unless it says both",
        **{f"no {name}": why for name, why in left_out.items()},
    }

    def draw(folder: Path) -> tuple[list[Path], Said]:
        started = time.monotonic()
        code = passport.of_code(encoder)  # as it is now
        warned = doubts.few(n, encoder.dim) + doubts.of_features(encoder, len(test), train)
        for line in warned:
            log.warning("%s", line)
        warned += encoder.doubts  # said already
        found: list[Effect] = []
        with Meter("treatment", len(wanted), images=n) as meter:
            for effect in effects(judge, n, cfg.seed):
                found.append(effect)
                if meter.due():
                    meter.show(len(found))
        about = f"{n:,} training images of {spec.name}"
        drawn = pictures.draw(found, about, encoder.name, folder)
        facts = {
            "schema": evaluations.SCHEMA, "n": n, "warnings": warned,
            "encoder": passport.of_encoder(encoder),
            "reference": passport.of_images(test, "test"),
            "real": passport.of_images(train, "train"),
            "untouched": found[0].record(), "effects": [e.record() for e in sorted_by_size(found)],
            "left_out": left_out, "seeds": {"seed": cfg.seed, "count": 1}, "range": [0, 255],
            "dtype": "float32", **passport.of_machine(hardware.device(cfg.device)), "code": code,
            "command": job.line,
            "seconds": round(time.monotonic() - started, 1),
        }  # fmt: skip
        return drawn, Said(_rows(found), facts)

    return Picture("What preprocessing does to a FID", Said(rows), draw)


def _rows(found: list[Effect]) -> dict[str, str]:
    """The FID as it is, then what is added to it, the most first."""
    value, low, high = found[0].fid
    rows = {found[0].treatment.name: f"FID {value:.3f}  (95%: {low:.3f} to {high:.3f})"}
    for effect in sorted_by_size(found):
        value, low, high = effect.change
        rows[f"  {effect.treatment.name}"] = f"{value:+.3f}  (95%: {low:+.3f} to {high:+.3f})"
    return rows
