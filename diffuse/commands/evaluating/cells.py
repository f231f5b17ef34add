"""The cells of `diffuse pareto`: a sampler at a number of network calls, ready to be drawn."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffuse import planning
from diffuse.commands import drawing, guiding
from diffuse.commands.drawing import sharing
from diffuse.comparison import difference
from diffuse.errors import ConfigError
from diffuse.guidance import Guidance
from diffuse.restored import Trained
from diffuse.sampling import Plan
from diffuse.shards import Store, count


@dataclass(frozen=True)
class Cell:
    """A sampler on its own grid, in so many steps."""

    sampler: str  # the yaml that was chosen
    asked: list[int]  # calls an image: what was asked for, and came to these steps
    cfg: DictConfig  # as of `diffuse sample`
    plan: Plan

    @property
    def steps(self) -> int:
        return len(self.plan.sigmas) - 1

    @property
    def calls(self) -> int:
        """Of the network, for an image."""
        assert self.plan.calls is not None
        return self.plan.calls

    def seeds(self, count: int) -> Iterator[Plan]:
        """A plan for each seed."""
        return (replace(self.plan, seed=self.plan.seed + k) for k in range(count))

    def __str__(self) -> str:
        return f"{self.sampler} in {self.calls} call{'s' * (self.calls != 1)}"


@dataclass(frozen=True)
class LeftOut:
    """A sampler that cannot be had at so few calls, or at any number that one says."""

    sampler: str
    asked: int | None  # None: at none of them
    reason: str


def laid_out(cfg: DictConfig, trained: Trained, batch: int) -> tuple[list[Cell], list[LeftOut]]:
    """Every sampler at every number of calls, or at the nearest below that it can make."""
    guiding.complete(cfg, trained.cfg)
    guidance = guiding.guidance(cfg, trained)
    cells: list[Cell] = []
    left_out: list[LeftOut] = []
    for name, nodes in cfg.samplers.items():
        ours = _drawn_as(cfg, nodes)
        planned = _planner(ours, trained, batch, guidance)
        if planning.meta(ours).get("adaptive"):
            left_out.append(LeftOut(name, None, "it chooses its own number of calls"))
            continue
        try:
            least = planned(1).calls
        except ConfigError as error:
            left_out.append(LeftOut(name, None, str(error).removeprefix("sampler: ")))
            continue
        found: dict[int, Cell] = {}
        for nfe in sorted(cfg.nfe):
            steps = within(nfe, lambda steps: _calls(planned, steps))  # noqa: B023 (used at once)
            if steps is None:
                reason = f"a single step takes {least} calls"
                left_out.append(LeftOut(name, nfe, reason))
            elif steps in found:
                found[steps].asked.append(nfe)
            else:
                said = OmegaConf.merge(ours, {"steps": steps})
                assert isinstance(said, DictConfig)
                found[steps] = Cell(name, [nfe], said, planned(steps))
        cells += found.values()
    return cells, left_out


def _drawn_as(cfg: DictConfig, nodes: Mapping[str, Any]) -> DictConfig:
    """The config of `diffuse sample` for one of the samplers."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    for key in ("samplers", "encoder", "seeds"):  # not each of our callers has all
        plain.pop(key, None)
    alone = {"steps": None, "nfe": None, "reuse": {"name": "none"}, "noise_level": None}
    return OmegaConf.create({**plain, **nodes, **alone, "save": None})


def _planner(
    cfg: DictConfig, trained: Trained, batch: int, guidance: Guidance | None
) -> Callable[[int], Plan]:
    """Steps -> how images are drawn in so many."""

    def planned(steps: int) -> Plan:
        said = OmegaConf.merge(cfg, {"steps": steps})
        assert isinstance(said, DictConfig)
        return planning.plan(
            said, trained.schedule, trained.levels, trained.range, batch, trained.moments,
            trained.denoiser.objective, guidance=guidance,
        )  # fmt: skip

    return planned


def _calls(planned: Callable[[int], Plan], steps: int) -> float:
    """Infinitely many for steps that the grid does not have."""
    try:
        return planned(steps).calls or math.inf
    except ConfigError:
        return math.inf


def within(nfe: int, calls: Callable[[int], float]) -> int | None:
    """The most steps that make at most so many calls, by bisection; None if one makes more.

    Every step makes a call at least, so `nfe` steps are enough to look at, and mostly right.
    """
    if calls(nfe) <= nfe:
        return nfe
    low, high = 0, nfe
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if calls(middle) <= nfe else (low, middle)
    return low or None


def store(cell: Cell, plan: Plan, trained: Trained, label: int | None) -> Store | None:
    """Where images of this plan are kept, to look at only; None if they are not."""
    try:
        identity = drawing.identity(trained, plan, label)
    except TypeError:
        return None
    return Store(sharing.folder(cell.cfg.outputs), identity)


def stores(cell: Cell, trained: Trained, label: int | None, seeds: int) -> list[Store]:
    """Where the images of each seed are kept, to look at only; none if they are not."""
    first = store(cell, cell.plan, trained, label)
    return drawing.of_seeds(first, cell.plan.seed, seeds) if first else []


def missing(cell: Cell, plan: Plan, trained: Trained, label: int | None, n: int) -> int:
    """How many of n images were not drawn before."""
    shards = count(n, plan.batch)
    kept = store(cell, plan, trained, label)
    there = sum(k < shards for k in kept.there()) if kept else 0
    return n - min(n, there * plan.batch)


def mark(cells: Sequence[dict[str, Any]]) -> None:
    """Write into each cell of a record how far it is from the best, and whether that is noise.

    `cheapest` is the one of fewest calls within noise of the best, of several the one of lower FID.
    All cells are drawn from the same noise, so their differences are paired. A cell without a value
    is none of it.
    """
    scored = [cell for cell in cells if cell.get("value") is not None]
    for cell in cells:
        cell |= {"best": False, "within_noise": False, "cheapest": False, "minus_best": None}
    if not scored:
        return
    best = min(scored, key=lambda cell: cell["value"])
    best |= {"best": True, "within_noise": True}
    for cell in scored:
        if cell is not best:
            found = difference(best, cell, same_seeds=True)
            cell["minus_best"] = {"value": found.value, "ci95": [found.low, found.high]}
            cell["within_noise"] = not found.shown
    near = [cell for cell in scored if cell["within_noise"]]
    min(near, key=lambda cell: (cell["nfe"], cell["value"]))["cheapest"] = True
