"""`diffuse plan`: the images and trainings that telling two FIDs apart takes, as measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from diffuse import run_folders
from diffuse.commands.evaluating import measured
from diffuse.commands.evaluating.measured import ENOUGH, SURE, Measured
from diffuse.config import Job
from diffuse.console import clock, print_columns, print_json, print_table, rate
from diffuse.errors import ConfigError
from diffuse.metrics import Need, needed, power_of, resolved

MOST = 1_000_000  # images of each training: nobody draws more
SIZES = (1, 4, 16)  # times the images there were, for what could be told apart


@dataclass(frozen=True)
class Cost:
    """What it takes for each of the two runs that are compared, nothing being there yet."""

    need: Need
    drawing: float | None  # seconds; None: nobody knows how fast it was
    features: float  # 0 where nobody knows
    training: float | None  # None: the run does not say how long it took

    @property
    def seconds(self) -> float | None:
        if self.drawing is None:
            return None
        return self.drawing + self.features + (self.training or 0.0)


def main(cfg: DictConfig, job: Job) -> int:
    """Find what was measured of a run, then say what it implies; nothing is written."""
    check(cfg)
    trained = run_folders.find(Path(cfg.outputs), cfg.run)
    found = measured.measured(Path(cfg.outputs), trained, cfg.smoke)
    costs = [] if cfg.delta is None else priced(cfg.delta, cfg.power, found)
    if job.json:
        print_json(_as_json(cfg, found, costs))
    else:
        _show(cfg, found, costs)
    return 0


def check(cfg: DictConfig) -> None:
    """What can be wrong without looking at a run."""
    if cfg.delta is not None and not 0 < cfg.delta < math.inf:
        raise ConfigError(f"delta must be more than 0, got {cfg.delta:g}: a difference of two FIDs")
    if not 0.05 < cfg.power < 1:
        raise ConfigError(f"power must be in (0.05, 1), got {cfg.power:g}; 0.8 is usual")


def priced(delta: float, power: float, found: Measured) -> list[Cost]:
    """Each way to resolve a difference, and its cost."""
    trainings = (2, 3, 4, 5, 8, 10, 16) if found.values else (1,)
    needs = needed(delta, found.spread, power, trainings, MOST)
    return [_cost(delta, need, found) for need in needs]


def _cost(delta: float, need: Need, found: Measured) -> Cost:
    n = max(need.n, found.least)
    need = need._replace(n=n, power=power_of(delta, found.spread, n, need.seeds))
    images, each = need.seeds * n, found.training
    seen = images / found.features if found.features else 0.0
    drawing = images / found.speed if found.speed else None
    return Cost(need, drawing, seen, None if each is None else need.seeds * each)


def cheapest(costs: Sequence[Cost]) -> Cost | None:
    """The one that takes least time, of several the one of fewest trainings; None: nobody knows."""
    known = [(seconds, c.need.seeds, c) for c in costs if (seconds := c.seconds) is not None]
    return min(known, key=lambda one: one[:2])[2] if known else None


def _show(cfg: DictConfig, found: Measured, costs: Sequence[Cost]) -> None:
    print_table(f"Measured: FID of {found.name}", _known(found))
    print()
    if cfg.delta is not None:
        title = f"To tell FIDs apart that differ by {cfg.delta:g} ({cfg.power:.0%} of the time)"
        if costs:
            best = cheapest(costs)
            print_columns(title, {_trainings(c.need.seeds): _cells(c, c is best) for c in costs})
            print("  for each of the two runs, nothing being there yet")
        else:
            print_table(title, {"there is no way": _why_not(cfg.power, found)})
        print()
    sizes = _resolved(cfg.power, found)
    print_columns(
        f"What can be told apart ({cfg.power:.0%} of the time)",
        {f"n={n:,}": {_trainings(k): f"{delta:.3g}" for k, delta in row.items()}
         for n, row in sizes.items()},
    )  # fmt: skip
    print("  the smallest difference of FIDs, by images and trainings of each run")
    print()
    print_table("This takes for granted", dict(assumptions(found)))
    if found.next:
        print("\nTo measure how far trainings scatter, train and evaluate again")
        for line in found.next:
            print(f"  {line}")


def _trainings(number: int) -> str:
    return f"{number} training{'s' * (number > 1)}"


def _cells(cost: Cost, best: bool) -> dict[str, str]:
    return {
        "images each": f"{cost.need.n:,}",
        "power": f"{cost.need.power:.0%}",
        "drawing": _time(cost.drawing),
        **({"features": clock(cost.features)} if cost.features else {}),
        "training": _time(cost.training),
        "in all": _time(cost.seconds) + (" <-" if best else ""),
    }


def _time(seconds: float | None) -> str:
    return "?" if seconds is None else clock(seconds)


def _known(found: Measured) -> dict[str, str]:
    spread = found.spread
    rows = {
        "FID": f"{found.value:.3f} at n={spread.n:,} ({found.of})",
        "over images": f"sd {spread.images:.3g} at n={spread.n:,} ({found.of_images})",
        **_over_trainings(found),
        "drawing": f"{rate(found.speed)} images/s" if found.speed else "?",
        **({"features": f"{rate(found.features)} images/s"} if found.features else {}),
        "training": "?" if found.training is None else f"{clock(found.training)} each",
        "records": str(found.records[0]),
    }
    for k, more in enumerate(found.records[1:], 1):
        rows[" " * k] = str(more)  # the keys of a table are different ones
    return rows


def _over_trainings(found: Measured) -> dict[str, str]:
    if not (known := found.scatter):
        return {"over trainings": "not known: there is one training of this config"}
    of = ", ".join(f"{value:.3f}" for value in found.values)
    return {
        "over trainings": f"sd {known.measured:.3g} as measured, of {len(found.values)}: {of}",
        "  the true sd": f"{known.low:.3g} to {known.high:.3g} (95%)",
        "  planned with": f"{known.planned:.3g}, which it is at most ({SURE:.0%} sure)",
    }


def _resolved(power: float, found: Measured) -> dict[int, dict[int, float]]:
    """n -> trainings -> the smallest difference."""
    number = sorted({2, 4, 8, max(2, len(found.values))}) if found.values else [1]
    sizes = [found.spread.n * times for times in SIZES]
    return {n: {k: resolved(found.spread, n, k, power) for k in number} for n in sizes}


def _why_not(power: float, found: Measured) -> str:
    if found.values:
        least = resolved(found.spread, MOST, 16, power)
        return f"trainings may scatter too much: 16 of {MOST:,} images each tell {least:.3g} apart"
    least = resolved(found.spread, MOST, 1, power)
    return f"{MOST:,} images tell {least:.3g} apart"


def assumptions(found: Measured) -> list[tuple[str, str]]:
    """What the numbers rest on, in a line each."""
    lines = [
        ("images", "the variance over images falls as 1 / n; the bias is the same in both runs"),
        ("fewer", f"much of a FID of fewer than {found.least:,} is bias: they are not proposed"),
        ("the other run", "scatters as this one does, and is measured in the same way"),
        ("the test", "two-sided at 5%, as in compare; the same noise in both can only help it"),
    ]
    if found.scatter:
        sd = f"sd {found.scatter.planned:.3g} at most"
        lines.append(("trainings", f"scatter as a normal does, with {sd}: {SURE:.0%} sure"))
        if len(found.values) < ENOUGH:
            lines.append(("a third", "training is worth more than any plan that is made of two"))
    else:
        lines.append(("trainings", "one each: a verdict on two checkpoints, not on two ways to "
                      "train"))  # fmt: skip
    lines.append(("time", "as it took here; what is there already is not subtracted"))
    return lines


def _as_json(cfg: DictConfig, found: Measured, costs: Sequence[Cost]) -> dict[str, Any]:
    best = cheapest(costs)
    ways: list[Mapping[str, Any]] = [
        {"n": c.need.n, "trainings": c.need.seeds, "power": c.need.power,
         "drawing_seconds": c.drawing, "features_seconds": c.features,
         "training_seconds": c.training, "seconds": c.seconds, "cheapest": c is best} for c in costs
    ]  # fmt: skip
    return {
        "delta": cfg.delta,
        "power": cfg.power,
        "run": str(found.trained),
        "measured": {
            "fid": found.value,
            **_spread(found),
            "trainings": found.values,
            "images_per_second": found.speed,
            "features_per_second": found.features,
            "training_seconds": found.training,
            "records": [str(path) for path in found.records],
        },
        "ways": ways,
        "resolved": [
            {"n": n, "trainings": k, "delta": delta}
            for n, row in _resolved(cfg.power, found).items()
            for k, delta in row.items()
        ],
        "assumptions": dict(assumptions(found)),
        "next": found.next,
    }


def _spread(found: Measured) -> dict[str, Any]:
    known = found.scatter
    return {"n": found.spread.n, "sd_images": found.spread.images,
            "sd_trainings": known and known.measured,
            "sd_trainings_ci95": known and [known.low, known.high],
            "sd_trainings_planned": known and known.planned}  # fmt: skip
