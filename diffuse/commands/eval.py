"""FID and KID of a training run or of images, beside the same numbers of real images."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

from diffuse import (
    assembly,
    config,
    evaluations,
    hardware,
    meanings,
    measures,
    passport,
    provenance,
    runs,
    scoring,
)
from diffuse.assembly import Trained
from diffuse.commands import (
    drawing,
    evaluation_pictures,
    judging,
    outside,
    sample,
    saving,
    scores,
    twins,
)
from diffuse.commands.saving import Result
from diffuse.config import Job
from diffuse.console import print_json, print_table
from diffuse.data import ImageSet
from diffuse.encoders import Encoder, check_encoder, open_encoder
from diffuse.errors import ConfigError
from diffuse.interrupts import Interrupts
from diffuse.sampling import Plan
from diffuse.trackers import Quiet

log = logging.getLogger(__name__)


def main(cfg: DictConfig, job: Job) -> int:
    """Check the config, restore the run, open its data, then claim a folder, draw and compare."""
    check(cfg)
    if cfg.images is not None:
        return outside.main(cfg, job)
    if cfg.dataset:
        raise ConfigError("dataset: goes with images=; a run is compared with what it learnt from")
    trained, plan = sample.restore(cfg)
    label = sample.class_number(cfg, trained)
    if cfg.dry_run:
        planned = sample.facts(cfg, job, trained, plan)
        print_json(planned) if job.json else print_table("Plan (nothing is written)", planned)
        return 0
    classes = trained.spec.classes
    chosen = judging.selected(cfg)
    test, train = assembly.real_sets(trained.cfg.dataset)
    if cfg.known and not cfg.reference and (known := _known(cfg, trained, plan, test, train)):
        return scores.show(job, known, evaluations.read(known), classes)
    judge = assembly.judge(cfg, test, train)
    statistics = judging.statistics(cfg, judge.encoder)
    real = scoring.real(judge, cfg.n, statistics.moments if statistics else None)
    asked = torch.arange(cfg.n) % len(classes) if trained.conditional and label is None else None
    wanted = judging.groups(cfg, job, asked, cfg.n, real)
    by_class = "per_class" in wanted
    folder, run = sample.begin("eval", cfg, job, trained)
    tracker = Quiet(config.build("tracker", cfg.tracker))
    with run.logged(), run.watched(), Interrupts(at_once=True):
        started = time.monotonic()
        tracker.start(folder, cfg.name, dict(run.facts))
        about = passport_of(cfg, job, trained, plan, judge.encoder)  # the code as it is now
        results = _drawn(cfg, trained, plan, label, folder)
        first = results[0]
        said = judging.warnings(
            judge.encoder, cfg.n, first.images, real, statistics, asked if by_class else None
        )
        record = judging.scored(cfg, wanted, [(r.images, asked) for r in results], real)
        drawn = _sampler(cfg, job, plan, results, sample.class_of(trained, label))
        record |= {"n": cfg.n, "warnings": chosen + said} | judging.reference(
            real, statistics, test
        )
        record |= about | {"sampler": drawn}
        record |= _drawing(results)
        record["seconds"] = round(time.monotonic() - started, 1)
        record["grid"] = str(folder / "samples.png")
        record["pictures"] = evaluation_pictures.draw(folder, record, first.images, real)
        runs.write_json(folder / evaluations.FILE, record)
        values = {name: score["value"] for name, score in measures.scores(record).items()}
        run.log(step=trained.state["step"], n=cfg.n, **values)
        tracker.log(trained.state["step"], values)
        tracker.image(trained.state["step"], "samples", folder / "samples.png")
        run.finish("done", sampler=drawn, fingerprint=first.fingerprint)
        twins.warn(folder, Path(cfg.outputs))
        tracker.finish()
    return scores.show(job, folder, record, classes)


def check(cfg: DictConfig) -> None:
    """Everything that can be wrong without looking at a run."""
    sample.check(cfg)
    check_encoder(cfg.encoder)
    judging.check(cfg)
    if cfg.seeds > 1 and cfg.seed + cfg.seeds > 2**63:
        raise ConfigError(f"seeds={cfg.seeds}: from seed={cfg.seed} on there are not that many")


def _drawn(
    cfg: DictConfig, trained: Trained, plan: Plan, label: int | None, folder: Path
) -> list[Result]:
    """n images of each seed; those of a seed are in their files before the next one is begun."""
    results: list[Result] = []
    for k in range(cfg.seeds):
        ours = replace(plan, seed=plan.seed + k)
        results.append(drawing.draw(trained, ours, cfg.n, label, cfg))
        if k == 0:
            saving.save_grid(folder, trained, results[0])
        if cfg.save:
            home = folder if cfg.seeds == 1 else folder / f"seed_{ours.seed}"
            home.mkdir(exist_ok=True)
            saving.save(home, cfg.save, trained, results[k])
    return results


def _drawing(results: Sequence[Result]) -> dict[str, Any]:
    """What it took to draw the images of all seeds."""
    number = sum(len(result.images) for result in results)
    seconds = sum(len(result.images) / result.speed for result in results)
    shards = [result.shards for result in results]
    return {
        "images_per_second": round(number / seconds, 2),
        "shards": {key: sum(one[key] for one in shards) for key in shards[0]},
    }


def _sampler(
    cfg: DictConfig, job: Job, plan: Plan, results: Sequence[Result], of_class: dict[str, object]
) -> dict[str, Any]:
    """How images were drawn; the calls are those of all seeds."""
    how = sample.how(cfg, job, plan, results[0], of_class)
    return how | {"nfe": sum(result.nfe for result in results) / len(results)}


def passport_of(
    cfg: DictConfig, job: Job, trained: Trained, plan: Plan, encoder: Encoder
) -> dict[str, Any]:
    """Everything else that the numbers depend on."""
    decays = meanings.decays(trained.cfg.train)
    named = cfg.weights.removeprefix("ema_")
    decay = None if cfg.weights == "raw" else decays[0] if named == "ema" else float(named)
    batch = trained.cfg.train.batch
    average = {
        "decay": decay,
        "half_life": None if decay is None else passport.half_life(decay, batch),  # images
        "images_seen": trained.state.get("images_seen", trained.state["step"] * batch),
    }
    return {
        "schema": evaluations.SCHEMA,
        "encoder": passport.of_encoder(encoder),
        "weights": sample.weights(cfg, trained) | average,
        "range": list(plan.range),
        "seeds": {"seed": plan.seed, "count": cfg.seeds, "first": 0, "last": cfg.n - 1},
        "dtype": _dtype(trained),
        **passport.of_machine(trained.device),
        "code": _code(trained, plan, encoder),
        "command": judging.command(job),
    }


def _known(
    cfg: DictConfig, trained: Trained, plan: Plan, test: ImageSet, train: ImageSet
) -> Path | None:
    """The newest evaluation of these weights by these settings, data and code."""
    ours = _settings(cfg)
    data = train.sha256, test.sha256
    encoder = open_encoder(cfg.encoder, trained.spec, cfg.outputs, data)
    guidance = plan.guidance.record() if plan.guidance else None
    same = {"reference": passport.of_images(test, "test")}
    same |= {"real": passport.of_images(train, "train")}
    same |= {"encoder": passport.of_encoder(encoder), "code": _code(trained, plan, encoder)}
    same |= {"dtype": _dtype(trained), "device": hardware.describe(trained.device)}
    seer = plan.level_of.sha256 if plan.level_of else None
    for folder in reversed(runs.every(Path(cfg.outputs), "eval")):
        facts = runs.read(folder)
        if (
            facts.get("status") == "done"
            and facts.get("weights", {}).get("sha256") == trained.sha256
            and (facts["sampler"].get("noise_level") or {}).get("sha256") == seer
            and facts["sampler"].get("guidance") == guidance
            and facts["versions"] == provenance.versions()
            and _settings(OmegaConf.load(folder / "config.yaml")) == ours
            and (record := evaluations.read(folder))
            and {key: record.get(key) for key in same} == same
        ):
            return folder
    return None


def _dtype(trained: Trained) -> str:
    return str(trained.denoiser.precision).removeprefix("torch.")


def _code(trained: Trained, plan: Plan, encoder: Encoder) -> str:
    walk = getattr(plan.sampler, "func", plan.sampler)
    network = map(type, trained.denoiser.net.modules())
    return passport.of_code(encoder, *network, trained.denoiser.objective.coefficients, walk)


def _settings(cfg: DictConfig | ListConfig) -> dict[str, object]:
    """What of a config can change a number."""
    irrelevant = (
        "run", "checkpoint", "noise_level",  # their sha256 are compared
        "name", "hypothesis", "outputs", "tracker", "save", "known", "devices",
    )  # fmt: skip
    plain = OmegaConf.to_container(cfg)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key not in irrelevant}


def summary(folder: Path) -> dict[str, str]:
    """One row of a sweep."""
    record = evaluations.read(folder)
    low, high = record["fid"]["ci95"]
    floor = record["fid"].get("floor")
    row = {
        "FID (95%)": f"{record['fid']['value']:.3f} ({low:.2f} to {high:.2f})",
        "real": "" if floor is None else f"{floor:.3f}",
        "n": f"{record['n']:,}",
    }
    if "sampler" in record:
        row["NFE"] = f"{record['sampler']['nfe']:g}"
        row["images/s"] = f"{record['images_per_second']:.1f}"
    return row
