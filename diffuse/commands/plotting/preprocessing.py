"""`diffuse plot preprocessing`: what is done to images before they are compared, in FID."""

from pathlib import Path

from omegaconf import DictConfig

from diffuse import assembly, hardware, passport, ranges
from diffuse.commands.plotting import Picture, Said
from diffuse.config import Job
from diffuse.console import Meter
from diffuse.data import open_dataset
from diffuse.encoders import check_encoder
from diffuse.errors import ConfigError
from diffuse.plots import preprocessing as pictures
from diffuse.scoring.preprocessing import Effect, effects, sorted_by_size, treatments

IMAGES = 1024


def preprocessing(cfg: DictConfig, job: Job) -> Picture:
    """Real images as they are, then resized, through JPEG, truncated, in half precision."""
    check_encoder(cfg.encoder)
    train, test = open_dataset(cfg.dataset, "train"), open_dataset(cfg.dataset, "test")
    n = min(cfg.n or IMAGES, len(train))
    if n < ranges.SCORED:
        raise ConfigError(f"n must be at least {ranges.SCORED}, got {n}: a FID has an interval")
    judge = assembly.judge(cfg, test, train)
    spec = test.spec
    wanted = treatments((spec.native_height, spec.native_width), judge.encoder, cfg.seed)
    encoder = judge.encoder
    rows = {
        "images": f"{n:,} of {spec.name} train, beside {len(test):,} of its test split",
        "encoder": f"{encoder.name} ({encoder.sha256[:8]}), {encoder.dim} features",
        "treatments": f"{len(wanted) - 1}, of one side only unless it says both",
    }

    def draw(folder: Path) -> tuple[list[Path], Said]:
        found: list[Effect] = []
        with Meter("treatment", len(wanted), images=n) as meter:
            for effect in effects(judge, n, cfg.seed):
                found.append(effect)
                if meter.due():
                    meter.show(len(found))
        about = f"{n:,} training images of {spec.name}"
        facts = {
            "n": n, "encoder": passport.of_encoder(encoder),
            "reference": passport.of_images(test, "test"),
            "real": passport.of_images(train, "train"),
            "untouched": found[0].record(), "effects": [e.record() for e in sorted_by_size(found)],
            **passport.of_machine(hardware.device(cfg.device)),
        }  # fmt: skip
        return pictures.draw(found, about, encoder.name, folder), Said(_rows(found), facts)

    return Picture("What preprocessing does to a FID", Said(rows), draw)


def _rows(found: list[Effect]) -> dict[str, str]:
    """The FID as it is, then what is added to it, the most first."""
    value, low, high = found[0].fid
    rows = {found[0].treatment.name: f"FID {value:.3f}  (95%: {low:.3f} to {high:.3f})"}
    for effect in sorted_by_size(found):
        value, low, high = effect.change
        rows[f"  {effect.treatment.name}"] = f"{value:+.3f}  (95%: {low:+.3f} to {high:+.3f})"
    return rows
