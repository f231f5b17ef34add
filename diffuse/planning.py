"""From a config to how images are drawn, in how many calls: nothing of `diffuse plan`."""

import logging
import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from diffuse import config, grids, sampling
from diffuse.denoiser import Denoiser
from diffuse.errors import ConfigError
from diffuse.guidance import Guidance
from diffuse.noise_level import Predictor
from diffuse.objectives import Objective
from diffuse.samplers import Sampler
from diffuse.sampling import Plan
from diffuse.schedules import Schedule

log = logging.getLogger(__name__)

STEPS_A_CALL = 1000  # no more are tried: some samplers make as many calls in any number of steps


def meta(cfg: DictConfig) -> Mapping[str, Any]:
    """What a sampler's yaml says of itself."""
    node = cfg.sampler.get("meta", {})
    if not isinstance(node, Mapping | DictConfig):
        raise ConfigError(f"sampler.meta={node}: it belongs to the sampler's yaml, leave it alone")
    return node


def sampler(cfg: DictConfig) -> Sampler:
    """The sampler with its options; a walk over no levels shows a bad one: ConfigError."""
    needed = _needed(cfg)
    bound = config.bind("sampler", cfg.sampler, "denoise", "x", "sigmas", "randn", *needed)
    if needed:  # until a plan brings the real one: no walk survives this level, but calls count
        bound = partial(bound, level_of=lambda y: torch.full((len(y),), torch.nan).double())
    nowhere = torch.zeros(1, dtype=torch.float64)
    try:
        next(bound(lambda x, sigma: x, nowhere, nowhere, lambda: nowhere), None)
    except ValueError as error:
        raise ConfigError(f"sampler: {error}") from error
    return bound


def _needed(cfg: DictConfig) -> tuple[str, ...]:
    """What a sampler takes besides; `noise_level=` has to name a run where it takes levels."""
    name, given = cfg.sampler.name, cfg.get("noise_level")
    needs = meta(cfg).get("needs") == "noise_level"
    if given and not needs:
        raise ConfigError(f"noise_level={given}: {name} takes none; use sampler=ddim_predicted")
    if needs and not given:
        raise ConfigError(
            f"sampler: {name} takes the levels from a run of `diffuse noise_level`: name it by "
            "noise_level=, in diffuse sample and diffuse eval"
        )
    if needs and is_guided(cfg) and not guidance(cfg).everywhere:
        raise ConfigError(
            f"guidance_levels: {name} gives each image a level of its own; "
            "guidance_levels=[0,inf] guides at all"
        )
    if needs and cfg.reuse.name != "none":
        raise ConfigError(f"reuse: {name} gives each image a level of its own; use reuse=none")
    return ("level_of",) if needs else ()


def check_steps(cfg: DictConfig) -> None:
    """What can be wrong with `steps=` and `nfe=` before it is known how the run is guided."""
    known = guidance(cfg) if is_guided(cfg) else None
    chosen_steps(cfg, sampler(cfg), None, known, is_known=cfg.guidance is not None)


def chosen_steps(
    cfg: DictConfig,
    sampler: Sampler,
    most: int | None,  # levels of the schedule's table, where it has one
    guidance: Guidance | None,
    is_known: bool = True,  # whether that is all there will be
    calls: Callable[[int], int] | None = None,  # of so many steps; None: nobody knows the levels
) -> int | None:
    """`steps=`, or the steps that take `nfe=` calls, or what suits the sampler; None = it decides,
    or nobody knows yet.
    """
    about, name = meta(cfg), cfg.sampler.name
    given = [f"{key}={cfg[key]}" for key in ("steps", "nfe") if cfg[key] is not None]
    if about.get("adaptive"):
        if (given and not cfg.smoke) or cfg.reuse.name != "none":
            raise ConfigError(
                f"{given[0] if given else 'reuse'}: {name} chooses its own steps; "
                "set sampler.rtol= and sampler.atol= instead"
            )
        return None
    if len(given) == 2:
        raise ConfigError(f"{' and '.join(given)}: say one of them")
    if cfg.steps is not None:
        return cfg.steps
    if cfg.nfe is not None:
        if guidance is not None and not guidance.everywhere:
            return None if calls is None else _steps_of(cfg.nfe, name, calls)
        factors = [2] if guidance is not None else [1] if is_known else [1, 2]
        steps = _steps_of_calls(cfg, sampler, factors)
        return steps if is_known else None
    suited = about.get("steps")
    if suited is None:
        raise ConfigError("sampler: its yaml has no meta.steps; say steps=")
    return suited if most is None else min(suited, most)


def _steps_of_calls(cfg: DictConfig, sampler: Sampler, factors: Sequence[int]) -> int:
    """The steps that take `nfe=` calls, where a call of the sampler's is so many of the network.

    Of several such factors the first that has such steps counts; if none has, it says why not.
    """

    def calls(each: int, steps: int) -> int:
        return each * sum(made(cfg, sampling.calls(sampler, steps)))

    refused: list[ConfigError] = []
    for each in factors:
        try:
            return _steps_of(cfg.nfe, cfg.sampler.name, partial(calls, each))
        except ConfigError as error:
            refused.append(error)
    raise refused[0]


def _steps_of(nfe: int, name: str, calls: Callable[[int], int]) -> int:
    """The steps that make exactly so many calls: more steps never make fewer."""
    most = 1
    while calls(most) < nfe:
        if most >= STEPS_A_CALL * nfe:
            made = f"{calls(most)} even with steps={most}"
            raise ConfigError(f"nfe={nfe}: {name} makes {made}; use steps= instead")
        most *= 2
    steps = 1 + bisect_left(range(1, most), nfe, key=calls)
    if (reached := calls(steps)) != nfe:
        below = f"{calls(steps - 1)} with steps={steps - 1} and " if steps > 1 else ""
        raise ConfigError(
            f"nfe={nfe}: {name} makes {below}{reached} with steps={steps}; use one of these"
        )
    return steps


def is_guided(cfg: DictConfig) -> bool:
    """Is there guidance? `guidance=1` is none."""
    return cfg.guidance is not None and cfg.guidance != 1


def guidance(
    cfg: DictConfig,
    weak: Denoiser | None = None,
    sha256: str | None = None,
    step: int | None = None,
) -> Guidance:
    """As `guidance=`, `guide=` and `guidance_levels=` say."""
    low, high = cfg.guidance_levels or (0.0, math.inf)  # null: those of a run not known yet
    return Guidance(cfg.guidance, low, high, str(cfg.guide), weak, sha256, step)


def made(cfg: DictConfig, calls: int) -> list[bool]:
    """Which of a sampler's calls are made."""
    return config.build("reuse", cfg.reuse, calls=calls)


def plan(
    cfg: DictConfig,  # has sampler, grid, reuse, steps, nfe, clip, start and seed
    schedule: Schedule,
    trained: tuple[float, float],  # the range of levels the network knows
    pixels: tuple[float, float],
    batch: int,
    moments: tuple[float, float],
    objective: Objective,
    level_of: Predictor | None = None,
    guidance: Guidance | None = None,
) -> Plan:
    """How images are drawn; a grid or sampler that does not fit the schedule is a ConfigError."""
    walk = sampler(cfg)
    table = None if schedule.table is None else len(schedule.table)

    def walked(steps: int) -> tuple[Tensor, list[Tensor], list[bool]]:
        """Levels, those that the sampler asks at, and whether it really does."""
        levels = config.build("grid", cfg.grid, steps=steps, schedule=schedule)
        sigmas = grids.clipped(levels, *trained)
        asked = sampling.asked(walk, sigmas)
        return sigmas, asked, made(cfg, len(asked))

    def calls(steps: int) -> int:
        _, asked, kept = walked(steps)
        return _calls(kept, asked, guidance)

    steps = chosen_steps(cfg, walk, table, guidance, calls=calls)
    if steps is None:  # only the ends of the levels count
        sigmas, kept = torch.tensor([*reversed(trained), 0.0], dtype=torch.float64), None
        asked: list[Tensor] = []
    else:
        sigmas, asked, kept = walked(steps)
        if cfg.reuse.name != "none" and all(kept):
            fewer = max(1, len(kept) // 5)
            how = f"try reuse.last={fewer}" if "last" in cfg.reuse else "set its keys otherwise"
            log.warning("reuse=%s saves none of %d calls: %s", cfg.reuse.name, len(kept), how)
    return Plan(
        sampler=walk,
        sigmas=sigmas,
        range=pixels,
        clip=held(cfg.clip, objective, trained[1]),
        start=cfg.start,
        seed=cfg.seed,
        batch=batch,
        moments=moments,
        made=None if kept is None or all(kept) else tuple(kept),
        calls=None if kept is None else _calls(kept, asked, guidance),
        level_of=level_of,
        guidance=guidance,
    )


def held(clip: str, objective: Objective, top: float) -> str:
    """Where estimates of x0 are held: `auto` is in the range where an error of F is magnified.

    D = c_skip x + c_out F, and at the highest level the noise says nothing of x0. F for eps errs by
    c_out = -sigma there, as far as the noise reaches; for all others by little more than the data.
    """
    if clip != "auto":
        return clip
    level = torch.tensor([top], dtype=torch.float64)
    _, c_out, _ = objective.coefficients(level)
    return "range" if c_out.abs().item() > top / 2 else "none"


def _calls(kept: list[bool], asked: list[Tensor], guidance: Guidance | None) -> int:
    """Of the network: two where guidance acts."""
    made = [sigma for sigma, is_made in zip(asked, kept, strict=True) if is_made]
    if guidance is None:
        return len(made)
    return len(made) + sum(
        guidance.everywhere or bool(guidance.applies(sigma).all()) for sigma in made
    )
