"""How far the FID of a run scatters, read from evaluations that there are: what `plan` goes by."""

import logging
import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from diffuse import evaluations, passport, restored, run_folders, runs
from diffuse.commands.evaluating.doubts import FEW
from diffuse.commands.evaluating.evaluated import configs
from diffuse.comparison import used_seeds
from diffuse.errors import ConfigError, DataError
from diffuse.meanings import LENGTHS
from diffuse.metrics import Spread, at_most, blocks_for, quantile
from diffuse.trainings import APART, near

log = logging.getLogger(__name__)

Record = Mapping[str, Any]
SURE = 0.8  # that trainings scatter no more than is planned with
ENOUGH = 3  # trainings: of two, the deviation is known to a factor of 32


class Scatter(NamedTuple):
    """The deviation between trainings, and what the true one may be, as they are few."""

    measured: float
    low: float  # of the 95% interval
    high: float
    planned: float  # it is at most that, with the confidence SURE


@dataclass(frozen=True)
class Measured:
    """What is known of a run."""

    trained: Path
    name: str  # as `run=` takes it
    records: list[Path]  # its newest evaluation, then those of its siblings
    value: float  # FID of the first,
    of: str  # and which weights that is of
    spread: Spread  # as planned with
    of_images: str  # where the deviation over images is from
    values: list[float]  # FID of each training that differs in its seed alone; none = there is one
    speed: float | None  # images a second; None: nobody knows
    training: float | None  # seconds
    next: list[str]  # the lines that would measure how trainings scatter, or better
    scatter: Scatter | None = None  # None: there is one training
    features: float | None = None  # images a second that the encoder sees
    least: int = 4  # images that mean something: two blocks of two, or enough for the features


def measured(outputs: Path, trained: Path, smoke: bool) -> Measured:
    """By the newest evaluation of a run that siblings were evaluated like; else the newest."""
    table, name = _evaluations(outputs, smoke), run_folders.typed(outputs, trained)
    ours = [folder for folder, run in table if run == trained.resolve()]
    whole = [(folder, known) for folder in reversed(ours) if (known := _whole(folder)) is not None]
    if not whole:
        raise ConfigError(
            f"plan: {trained} was not evaluated, so nothing is known of its FID; measure it first: "
            f"diffuse eval run={name} n=1024"
        )
    last = max(record["weights"]["step"] for _, record in whole)
    whole.sort(key=lambda one: one[1]["weights"]["step"] < last)  # what was looked at on the way
    (folder, record), siblings = whole[0], {}
    for older, known in whole:
        if siblings := _siblings(outputs, known, trained, table):
            folder, record = older, known
            break
    records = [record, *(evaluations.read(path) for path in siblings.values())]
    values = [one["fid"]["value"] for one in records] if siblings else []
    sd, where = over_images(records)
    scatter = scattered(values, sd, _draws(records)) if values else None
    seconds = [runs.facts_of(path).get("seconds") for path in (trained, *siblings)]
    known = [float(one) for one in seconds if isinstance(one, int | float) and one]
    return Measured(
        trained=trained,
        name=name,
        records=[folder, *siblings.values()],
        value=record["fid"]["value"],
        of=_of(record),
        spread=Spread(sd, record["n"], scatter.planned if scatter else 0.0),
        of_images=where,
        values=values,
        speed=_mean(records, "images_per_second"),
        training=statistics.fmean(known) if known else None,
        next=[] if len(values) >= ENOUGH else _next([trained, *siblings], record, outputs),
        scatter=scatter,
        features=_mean(records, "features_per_second"),
        least=max(Measured.least, FEW * record["encoder"].get("features", 0)),
    )


def _of(record: Record) -> str:
    """E.g. "step 1,778, ema"; a class, if there is one."""
    weights, label = record["weights"], record.get("sampler", {}).get("label_name")
    about = ", ".join([f"step {weights['step']:,}", *filter(None, [weights.get("name")])])
    return about if label is None else f"{about}, {label} alone"


def _mean(records: Sequence[Record], rate: str) -> float | None:
    """Records of older versions may lack a rate, or have rounded a slow one to 0."""
    known = [one[rate] for one in records if one.get(rate)]
    return statistics.fmean(known) if known else None


def _draws(records: Sequence[Record]) -> int | None:
    """Of each training, where no two were drawn from the same noise; None where some were."""
    seeds = [set(used_seeds(record) or ()) for record in records]
    apart = len(set().union(*seeds)) == sum(map(len, seeds))
    return len(seeds[0]) if apart else None


def over_images(records: Sequence[Record]) -> tuple[float, str]:
    """The deviation of one draw of n images, from the jackknife intervals of all draws there are.

    An interval is Student's t times it; the upper end, because the lower one may be cut off at 0.
    """
    found = []
    for record in records:
        fid = record["fid"]
        reach = quantile(blocks_for(record["n"]) - 1)
        draws = zip(fid.get("per_seed", [fid["value"]]), fid.get("per_seed_ci95", [fid["ci95"]]),
                    strict=True)  # fmt: skip
        found += [(high - value) / reach for value, (_, high) in draws]
    many = f"mean of {len(found)} jackknives" if len(found) > 1 else "a jackknife"
    return math.sqrt(statistics.fmean(sd**2 for sd in found)), many


def scattered(values: Sequence[float], images: float, draws: int | None) -> Scatter:
    """The deviation between trainings, without what the images of so many draws add to it.

    Images from the same noise are alike in all trainings: how much of their scatter is in the
    values is not known then, nothing is taken off, and the deviation is rather too large.
    """
    variance, added = statistics.variance(values), images**2 / draws if draws else 0.0
    factors = (1.0, *(at_most(len(values), sure) for sure in (0.025, 0.975, SURE)))
    return Scatter(*(math.sqrt(max(0.0, factor**2 * variance - added)) for factor in factors))


def _evaluations(outputs: Path, smoke: bool) -> list[tuple[Path, Path]]:
    """(folder, the training it is of), oldest first."""
    found = []
    for folder in run_folders.every(outputs, "eval"):
        facts = runs.read(folder)
        run = run_folders.of_record(outputs, facts.get("weights"))
        if run and (folder / evaluations.FILE).is_file() and (smoke or not facts.get("smoke")):
            found.append((folder, run.resolve()))
    return found


def _siblings(
    outputs: Path, record: Record, trained: Path, table: Sequence[tuple[Path, Path]]
) -> dict[Path, Path]:
    """Training -> its newest evaluation that was made as this one was, by another seed alone."""
    found: dict[Path, Path] = {}
    seeds: list[int] = []
    for folder, run in reversed(table):
        if run in found or run == trained.resolve() or not run.is_dir():
            continue
        other = _whole(folder)
        if other is None or not _made_alike(record, other):
            continue
        differs = configs(outputs, [record, other])
        lengths = differs.pop("train.steps", [1])  # of those that were timed
        if differs.keys() == {"seed"} and near(lengths) and differs["seed"][1] not in seeds:
            found[run] = folder
            seeds.append(differs["seed"][1])
    return dict(sorted(found.items()))


def _made_alike(one: Record, other: Record) -> bool:
    """Do two records differ in the weights alone?"""
    fields = passport.differing([one, other], passport.SAME)
    tried = {found.field for found in passport.differing([one, other], passport.TRIED)}
    alike = near([record["weights"]["step"] for record in (one, other)])
    return not fields and tried <= APART and alike


def _whole(folder: Path) -> Record | None:
    """A record; none if it is damaged, which is nothing to what is planned."""
    try:
        record = evaluations.read(folder)
        if "weights" not in record:
            raise DataError(f"{folder / evaluations.FILE} is damaged: it has no weights")
        return record
    except DataError as error:
        log.warning("%s", error)
        return None


def _here(word: str, trained: Path, outputs: Path) -> str:
    """`outputs=` as it was typed, if the run is there still; else where it is looked for now."""
    key, _, path = word.partition("=")
    if key != "outputs" or trained.resolve().is_relative_to(Path(path).resolve()):
        return word
    return f"outputs={outputs}"


def _next(trainings: Sequence[Path], record: Record, outputs: Path) -> list[str]:
    """The first training with a seed that none has, and the same evaluation of it.

    No line trains like a run whose settings were changed on its way.
    """
    trained = trainings[0]
    if any("changed" in one for one in runs.facts_of(trained).get("resumed", [])):
        return []
    saved = [restored.saved_config(path) for path in trainings]
    try:
        typed = yaml.safe_load((trained / "overrides.yaml").read_text()) or []
    except (OSError, yaml.YAMLError):
        typed = []
    about = runs.facts_of(trained)
    name = about.get("name", trained.parent.name)
    aside = ("seed=", "resume", "hypothesis=", *(f"{key}=" for key in LENGTHS))
    words = [_here(word, trained, outputs) for word in typed if not word.startswith(aside)]
    words.append(f"train.steps={saved[0].train.steps}")  # it may be longer than was typed
    words.append(f"seed={max(one.seed for one in saved) + 1}")
    words += ["--config-dir", about["config_dir"]] if "config_dir" in about else []
    evaluated = shlex.split(record.get("command", "diffuse eval"))
    steps = [run_folders.parted(word)[1] for word in evaluated if word.startswith("run=")]
    aside = ("run=", "name=", "--json", "hypothesis=")
    again = [word for word in evaluated if not word.startswith(aside)]
    again += [f"checkpoint={step}" for step in steps if step is not None]  # it was said of the run
    again.append(f"run={name}")  # its newest version, which is then this one
    lines = (["diffuse", "train", *words], dict.fromkeys(again))
    return [shlex.join(line) for line in lines]
