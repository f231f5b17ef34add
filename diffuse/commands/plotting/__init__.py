"""The pictures of `diffuse plot`: what each has to say before it is drawn, and how to draw it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from diffuse.commands import restoring
from diffuse.config import Job
from diffuse.restored import Trained


@dataclass
class Said:
    """What a picture shows in numbers: as a table for people, as JSON for programs."""

    rows: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Picture:
    """A picture that can be drawn: all that can be wrong has been looked at."""

    title: str
    said: Said  # before it is drawn
    draw: Callable[[Path], tuple[list[Path], Said]]  # into a folder; the files, what it adds
    trained: Trained | None = None  # the run that it is of


def overlaid(cfg: DictConfig, job: Job, group: str) -> dict[str, Mapping[str, Any]]:
    """The choices of a group that share a picture: one, or those that stood between commas."""
    node = cfg[group]
    if isinstance(node.get("name"), str):
        return {job.choices[group]: node}
    return dict(node)


def called(job: Job, group: str) -> str:
    """The choice of a group with what was typed of its keys: linear betamax=0.01."""
    words = [word.lstrip("+") for word in job.overrides]
    keys = [word.removeprefix(f"{group}.") for word in words if word.startswith(f"{group}.")]
    return " ".join([job.choices[group], *keys])


def opened(cfg: DictConfig) -> tuple[Trained, str]:
    """The run that `run=` names, and which weights of it."""
    trained = restoring.trained(cfg)
    return trained, f"{trained.title}, {cfg.weights} weights"
