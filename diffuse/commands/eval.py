"""FID and KID of a training run, beside the same numbers of real images."""

import json
import logging
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from diffuse import assembly, config, hardware, runs
from diffuse.assembly import Trained
from diffuse.commands import sample, twins
from diffuse.config import Job
from diffuse.console import clock, print_json, print_table
from diffuse.data import open_dataset
from diffuse.evaluation import Judge
from diffuse.interrupts import Interrupts
from diffuse.sampling import Plan
from diffuse.trackers import Quiet

log = logging.getLogger(__name__)


def main(cfg: DictConfig, job: Job) -> int:
    """Check the config, restore the run, open its data, then claim a folder, draw and compare."""
    check(cfg)
    trained, plan = sample.restore(cfg)
    label = sample.class_number(cfg, trained)
    if cfg.dry_run:
        planned = sample.facts(cfg, job, trained, plan)
        print_json(planned) if job.json else print_table("Plan (nothing is written)", planned)
        return 0
    if cfg.known and (known := _known(cfg, trained, plan)):
        return _show(cfg, job, known, json.loads((known / "record.json").read_text()))
    test = open_dataset(trained.cfg.dataset, "test")
    judge = assembly.judge(cfg, test, open_dataset(trained.cfg.dataset, "train"))
    _warn(judge, cfg.n)
    folder, run = sample.begin("eval", cfg, job, trained)
    tracker = Quiet(config.build("tracker", cfg.tracker))
    with run.logged(), run.watched(), Interrupts(at_once=True):
        started = time.monotonic()
        tracker.start(folder, cfg.name, dict(run.facts))
        result = sample.draw(trained, plan, cfg.n, label)
        grid = sample.save_grid(folder, trained, result)
        if cfg.save:
            sample.save(folder, cfg.save, result)
        scores = judge.score(result.images, cfg.kid_subsets, cfg.kid_subset_size)
        drawn = sample.how(cfg, job, plan, result)
        record = scores.record() | _protocol(cfg, trained, plan, judge) | {"sampler": drawn}
        record["images_per_second"] = result.speed
        record["seconds"] = round(time.monotonic() - started, 1)
        runs.write_json(folder / "record.json", record)
        run.log(step=trained.state["step"], n=scores.n, fid=scores.fid, kid=scores.kid)
        tracker.log(trained.state["step"], {"fid": scores.fid, "kid": scores.kid})
        tracker.image(trained.state["step"], "samples", grid)
        run.finish("done", sampler=drawn, fingerprint=result.fingerprint)
        twins.warn(folder, Path(cfg.outputs))
        tracker.finish()
    return _show(cfg, job, folder, record)


def check(cfg: DictConfig) -> None:
    """Everything that can be wrong without looking at a run."""
    sample.check(cfg)
    config.bind("encoder", cfg.encoder, "spec")


def _warn(judge: Judge, n: int) -> None:
    """Of numbers that can be computed and mean little."""
    encoder, data = judge.encoder, judge.test.spec.name
    if n < encoder.dim:
        log.warning(
            "n=%d is less than the %d features of the encoder: the FID is mostly bias, compare it "
            "at this n only", n, encoder.dim,
        )  # fmt: skip
    if encoder.name not in ("pixels", f"{data}-classifier"):
        log.warning("the encoder %s was trained on other images than %s", encoder.name, data)


def _known(cfg: DictConfig, trained: Trained, plan: Plan) -> Path | None:
    """The newest evaluation of the same weights with the same settings and the same code."""
    ours = _settings(cfg)
    seer = plan.level_of.sha256 if plan.level_of else None
    for folder in reversed(runs.every(Path(cfg.outputs), "eval")):
        facts = runs.read(folder)
        if (
            (folder / "record.json").exists()
            and facts["weights"]["sha256"] == trained.sha256
            and (facts["sampler"].get("noise_level") or {}).get("sha256") == seer
            and (facts["git"], facts["versions"]) == (runs.git_revision(), runs.versions())
            and _settings(OmegaConf.load(folder / "config.yaml")) == ours
        ):
            return folder
    return None


def _settings(cfg: DictConfig | ListConfig) -> dict[str, object]:
    """What of a config can change a number."""
    irrelevant = (
        "run", "checkpoint", "noise_level",  # their sha256 are compared
        "name", "hypothesis", "outputs", "tracker", "save", "known",
    )  # fmt: skip
    plain = OmegaConf.to_container(cfg)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key not in irrelevant}


def _show(cfg: DictConfig, job: Job, folder: Path, record: dict[str, Any]) -> int:
    if job.json:
        print_json(record | {"folder": str(folder)})
        return 0
    weights = record["weights"]
    rows = _rows(record) | {
        "grid": str(folder / "samples.png"),
        "run": weights["run"],
        "record": str(folder / "record.json"),
    }
    print_table(f"FID of {Path(weights['run']).parent.name}, step {weights['step']:,}", rows)
    return 0


def _protocol(cfg: DictConfig, trained: Trained, plan: Plan, judge: Judge) -> dict[str, object]:
    """Everything the numbers depend on."""
    encoder, test = judge.encoder, judge.test
    return {
        "schema": runs.SCHEMA,
        "encoder": {
            "name": encoder.name,
            "sha256": encoder.sha256,
            "size": [encoder.height, encoder.width],
            "filter": encoder.filter,
        },
        "reference": {"dataset": test.spec.name, "split": "test", "n": len(test),
                      "sha256": test.sha256},
        "weights": sample.weights(cfg, trained),
        "range": list(plan.range),
        "seeds": {"seed": plan.seed, "first": 0, "last": cfg.n - 1},
        "device": hardware.describe(next(trained.denoiser.parameters()).device),
        "dtype": str(trained.denoiser.precision).removeprefix("torch."),
        "revision": runs.git_revision(),
        "versions": runs.versions(),
    }  # fmt: skip


def _rows(record: dict[str, Any]) -> dict[str, str]:
    """The record as a person wants it: each number beside what it is compared with."""
    fid, kid, encoder, drawn = record["fid"], record["kid"], record["encoder"], record["sampler"]
    low, high = fid["ci95"]
    kid_low, kid_high = (1e3 * bound for bound in kid["ci95"])
    levels = f"grid {drawn['grid']['name']}" if drawn["grid"] else "its own steps"
    reference, weights = record["reference"], record["weights"]
    floor = (
        "real images" if record["floor_n"] == record["n"] else f"{record['floor_n']} real images"
    )
    return {
        "FID": f"{fid['value']:.3f}  (95%: {low:.3f} to {high:.3f})",
        f"  {floor}": f"{fid['floor']:.3f}",
        "KID x 1000": f"{1e3 * kid['value']:.3f}  (95%: {kid_low:.3f} to {kid_high:.3f})",
        f"  {floor} ": f"{1e3 * kid['floor']:.3f}",
        "n": f"{record['n']:,}",
        "reference": f"{reference['dataset']} {reference['split']}, {reference['n']:,} images",
        "encoder": f"{encoder['name']} ({encoder['sha256'][:8]})",
        "weights": f"step {weights['step']:,}, {'ema' if weights['ema'] else 'raw'}",
        "sampler": f"{sample.named(drawn)}, {levels}, start {drawn['start']}",
        "NFE": f"{drawn['nfe']:g}",
        "speed": f"{record['images_per_second']:.1f} images/s",
        "time": clock(record["seconds"]),
    }


def summary(folder: Path) -> dict[str, str]:
    """One row of a sweep."""
    record = json.loads((folder / "record.json").read_text())
    low, high = record["fid"]["ci95"]
    return {
        "FID (95%)": f"{record['fid']['value']:.3f} ({low:.2f} to {high:.2f})",
        "real": f"{record['fid']['floor']:.3f}",
        "n": f"{record['n']:,}",
        "NFE": f"{record['sampler']['nfe']:g}",
        "images/s": f"{record['images_per_second']:.1f}",
    }
