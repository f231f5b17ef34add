"""From `run=` to a training run brought back to life, and how its images are drawn."""

import copy
from pathlib import Path

from omegaconf import DictConfig, flag_override

from diffuse import assembly, noise_level, planning, restored, run_folders
from diffuse.commands import guiding
from diffuse.config import Job
from diffuse.errors import ConfigError, nearest
from diffuse.restored import Trained
from diffuse.sampling import Plan

# how images are drawn: what is said together, and what then is left to the defaults of the command
DRAWN = (
    (("sampler", "grid"), ("steps", "nfe", "reuse")),
    (("steps", "nfe"), ()),
    (("reuse",), ()),
    (("clip",), ()),
    (("start",), ()),
)


def restore(cfg: DictConfig, job: Job | None) -> tuple[Trained, Plan]:
    """The run that `run=` names and how its images are drawn: as it drew its own, if nobody says.

    Steps are those of a sampler: whoever names one gets its own number of them. Without a job the
    config says all.
    """
    found = trained(cfg)
    if job:
        as_its_own(cfg, job, found.cfg)
    return found, planned(cfg, found, assembly.sampling_batch(cfg.batch, found.device))


def as_its_own(cfg: DictConfig, job: Job, saved: DictConfig) -> None:
    """Let images be drawn as the training drew its own, as far as no word was typed."""
    if job.typed("debug"):  # it says how, too
        return
    left = {key for keys, others in DRAWN if job.typed(*keys) for key in (*keys, *others)}
    with flag_override(cfg, ["struct", "readonly"], [False, False]):
        for key in (key for keys, _ in DRAWN for key in keys if key not in left):
            cfg[key] = copy.deepcopy(saved[key])
    if "sampler" not in left:  # which yamls they were, nobody knows
        job.choices.update(sampler=saved.sampler.name, grid=saved.grid.name)


def trained(cfg: DictConfig) -> Trained:
    """The run that `run=` names, with the weights of a checkpoint: run@500 is another way."""
    ref, which = run_folders.parted(cfg.run) if cfg.run else (None, None)
    if ref != cfg.run:
        if cfg.checkpoint not in (None, which):
            raise ConfigError(f"checkpoint={cfg.checkpoint}, but run={cfg.run}: say it once")
        cfg.run, cfg.checkpoint = ref, which
    folder = run_folders.find(Path(cfg.outputs), cfg.run, "add --multirun to do all, or ")
    return restored.restore(folder, cfg.checkpoint, cfg.weights, cfg)


def planned(cfg: DictConfig, trained: Trained, batch: int) -> Plan:
    """How images are drawn from a run, with the network that sees levels where one is named."""
    predictor = _predictor(Path(cfg.outputs), cfg.noise_level) if cfg.noise_level else None
    device = trained.device
    guiding.complete(cfg, trained.cfg)
    plan = planning.plan(
        cfg, trained.schedule, trained.levels, trained.range, batch, trained.moments,
        trained.denoiser.objective,
        None if predictor is None else noise_level.load(predictor, device),
        guiding.guidance(cfg, trained),
    )  # fmt: skip
    if plan.level_of is not None:
        try:
            plan.level_of.check(trained.spec, trained.range, plan.sigmas)
        except ValueError as error:
            raise ConfigError(f"noise_level: {error}") from error
    return plan


def class_number(cfg: DictConfig, trained: Trained) -> int | None:
    """`label=` as a number: a class by name or number."""
    if cfg.label is None:
        return None
    if not trained.conditional:
        raise ConfigError(f"label={cfg.label}, but {trained.folder} does not know classes")
    names = trained.spec.classes
    if str(cfg.label) in names:
        return names.index(str(cfg.label))
    if str(cfg.label).isdigit() and int(cfg.label) < len(names):
        return int(cfg.label)
    if str(cfg.label).isdigit():
        raise ConfigError(f"label: no class {cfg.label}; their numbers are 0 to {len(names) - 1}")
    raise ConfigError(f"label: no class {cfg.label!r}; {nearest(str(cfg.label), names)}")


def _predictor(outputs: Path, ref: str) -> Path:
    """The run that `noise_level=` names: a path, name (its newest version) or name/v001."""
    root = outputs / "noise_level"
    for folder in (Path(ref), root / ref, run_folders.latest(outputs, "noise_level", ref)):
        if folder is not None and (folder / "run.json").exists():
            return folder
    names = [str(folder.relative_to(root)) for folder in run_folders.every(outputs, "noise_level")]
    if not names:
        raise ConfigError(
            f"noise_level: no run {ref!r}, there is none in {root}: train one with "
            "diffuse noise_level"
        )
    raise ConfigError(f"noise_level: no run {ref!r} in {root}; {nearest(ref, names)}")
