"""`known=true`: an evaluation that there is, of the same weights, settings, data and code."""

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffuse import (
    conditions,
    evaluations,
    hardware,
    passport,
    provenance,
    restored,
    run_folders,
    runs,
)
from diffuse.commands import describing, drawing, restoring, starting
from diffuse.commands.describing import code, dtype
from diffuse.commands.evaluating import scores
from diffuse.config import Job
from diffuse.data import ImageSet
from diffuse.encoders import Encoder, open_encoder
from diffuse.errors import DataError
from diffuse.restored import Trained
from diffuse.sampling import Plan
from diffuse.shards import outside

log = logging.getLogger(__name__)


def find(
    cfg: DictConfig, trained: Trained, plan: Plan, train: ImageSet, test: ImageSet
) -> Path | None:
    """The newest evaluation of these weights by these settings, data and code."""
    ours = _settings(cfg)
    for key, why in (("reference", "its file may have changed"), ("save", "the images are wanted")):
        if cfg[key]:
            log.info("known=true finds nothing with %s=%s: %s", key, cfg[key], why)
            return None
    data = train.sha256, test.sha256
    encoder = open_encoder(cfg.encoder, trained.spec, cfg.outputs, data)
    if why := _doubt(trained, plan, encoder):
        log.info("known=true finds nothing, all is measured again: %s", why)
        return None
    guidance = plan.guidance.record() if plan.guidance else None
    same = {"reference": passport.of_images(test, "test")}
    same |= {"real": passport.of_images(train, "train")}
    same |= {"encoder": passport.of_encoder(encoder), "code": code(trained, [plan], encoder)}
    same |= {"dtype": dtype(trained), "device": hardware.describe(trained.device)}
    number = restoring.class_number(cfg, trained)
    label, key = describing.class_of(trained, number)["label"], drawing.key(trained, plan, number)
    predictor = plan.level_of.sha256 if plan.level_of else None
    for folder in reversed(run_folders.every(Path(cfg.outputs), "eval")):
        facts = runs.read(folder)
        drawn = runs.table(facts, "sampler")
        if (
            facts.get("status") == "done"
            and runs.table(facts, "weights").get("sha256") == trained.sha256
            and runs.table(drawn, "noise_level").get("sha256") == predictor
            and drawn.get("guidance", "lost") == guidance
            and drawn.get("label", "lost") == label
            and facts.get("plan") == key  # its config may have been changed by hand
            and facts.get("versions") == provenance.versions()
            and (found := _whole(folder))
            and _settings(found[0]) == ours
            and {key: found[1].get(key) for key in same} == same
        ):
            return folder
    return None


def again(cfg: DictConfig, job: Job, trained: Trained, known: Path) -> int:
    """Show a record that there is; of a sweep, keep it as that of the job, which is then done."""
    record, folder = evaluations.read(known), known
    if job.folder is not None:
        folder, run = starting.of_run("eval", cfg, job, trained)
        with run.logged(), run.watched():
            log.info("known from %s", known)
            runs.write_json(folder / evaluations.FILE, record)
            before = runs.read(known)
            same = ("sampler", "fingerprint", "plan")
            run.finish("done", **{key: before.get(key) for key in same})
    return scores.show(job, folder, record, trained.spec.classes)


def _doubt(trained: Trained, plan: Plan, encoder: Encoder) -> str:
    """Why the same might be another number today, if so."""
    try:
        found = outside(drawing.identity(trained, plan, None))
    except TypeError as error:
        return str(error)
    found += conditions.of_others(*map(type, encoder.modules()))
    if encoder.options is not None and encoder.name not in found:
        found.append(encoder.name)
    return f"nobody knows what code from outside reads ({', '.join(found)})" if found else ""


def _whole(folder: Path) -> tuple[DictConfig, dict[str, Any]] | None:
    """The config and the record of an evaluation; one that is damaged is measured again."""
    try:
        return restored.config_of(folder), evaluations.read(folder)
    except DataError as damage:
        log.warning("%s", damage)
        return None


def _settings(cfg: DictConfig) -> dict[str, object]:
    """What of a config can change a number."""
    irrelevant = (
        "run", "checkpoint", "noise_level",  # their sha256 are compared
        "name", "hypothesis", "outputs", "tracker", "save", "known",
        "device", "devices",  # its description is compared
        "dataset",  # where the same images are
        "label",  # its number is compared
    )  # fmt: skip
    plain = OmegaConf.to_container(cfg)
    assert isinstance(plain, dict)
    chosen = {"best": cfg.checkpoint == "best"}  # by these images, which is a warning
    return chosen | {str(key): value for key, value in plain.items() if key not in irrelevant}
