"""Everything a training run leaves behind, in its folder and with its tracker."""

import logging
import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from diffuse import checkpoints, hardware, plots, runs
from diffuse.background import Background
from diffuse.checkups import Quick
from diffuse.divergence import ROLLBACKS, Diverged, said
from diffuse.errors import DivergedError, NoSpaceError, reason
from diffuse.runs import Run
from diffuse.seen import Seen
from diffuse.trackers import Quiet
from diffuse.training import Step, Training

log = logging.getLogger(__name__)

ROWS = {"look": "test_loss", "score": "fid"}  # what a look leaves in metrics.jsonl


def threaded(device: torch.device) -> bool:
    """Whether checkpoints are written meanwhile: on a CPU that takes from the training's time."""
    return device.type == "cuda"


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of this moment: the next step changes the originals."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


class Journal:
    """Writes metrics, samples and checkpoints of one training."""

    def __init__(
        self,
        run: Run,
        tracker: Quiet,
        training: Training,
        batch: int,
        keep: int,  # newest checkpoints that stay,
        multiple: int | None,  # and those whose step is a multiple of this
        about: dict[str, Any],  # what `sample` and `eval` need besides the weights
        seen: Seen,
        drawn: str = "",  # how images of a quick FID are drawn
        weak_step: int | None = None,  # a step whose checkpoint stays, too
        back_to: int | None = None,  # rollbacks go to a multiple of this
    ) -> None:
        self.run, self.tracker, self.training = run, tracker, training
        self.batch, self.keep, self.multiple = batch, keep, multiple
        self.about, self.seen, self.drawn, self.back_to = about, seen, drawn, back_to
        self.weak = _weak(run.folder / "checkpoints", weak_step, training.step)
        self.best = _whole(run.facts.get("best"))
        self.saved = training.step
        self.background = Background(threaded(seen.device))

    def images(self, step: int) -> int:
        """Seen until this step; before the last resume, batches may have been of another size."""
        return self.seen.images + (step - self.seen.step) * self.batch

    def log(self, step: int, **values: float) -> None:
        """A row of metrics.jsonl, for the tracker, too."""
        self.run.log(step=step, images_seen=self.images(step), **values)
        self.tracker.log(step, values)

    def looked(self) -> set[str]:
        """The looks at the last step that came to their end: each leaves its row there."""
        rows = self.run.logged_at(self.training.step)
        return {look for look, row in ROWS.items() if row in rows}

    def see(self, step: Step) -> None:
        """Every step: its loss, or that it was left out."""
        self.background.look()
        self.seen.add(step)
        if step.skipped:
            count = self.training.skipped
            log.warning("%s; left out, no weight was changed (%d so far)", said(step), count)
            self.diagnose(step)
            self.run.update(skipped=count)

    def steps(self, step: Step) -> None:
        """The mean loss since the last such line, and the spikes."""
        values = {"lr": step.lr}
        if self.seen.window.count:  # else all were left out
            values = {"loss": self.seen.window.close(), **values}
            self.run.facts["loss"] = values["loss"]
        if math.isfinite(norm := step.grad_norm.item()):  # else the step changed nothing
            values["grad_norm"] = norm
        self.log(step.number, **values)
        for spike in self.seen.losses.spikes():
            log.warning("%s", spike)
            # a row of this step: a resume from one in between writes it again
            row = {"spike_step": spike.step, "spike": spike.loss, "spike_median": spike.median}
            self.log(step.number, **row)

    def look(self, step: int, test_loss: float, samples: Image.Image) -> None:
        """The held-out loss and the samples of the moment."""
        folder = self.run.folder / "samples"
        path = plots.save(samples, folder / f"step_{step:08d}.png")
        plots.save(samples, folder / "latest.png")
        self.tracker.image(step, "samples", path)
        self.run.facts["test_loss"] = test_loss
        self.log(step, test_loss=test_loss)

    def score(self, step: int, quick: Quick | None) -> None:
        """A quick FID; the checkpoint with the lowest one is kept."""
        assert quick is not None
        about = {"n": quick.n, "encoder": quick.encoder, "drawing": self.drawn}
        best = self.best or {}
        if different := [key for key in about if best.get(key, about[key]) != about[key]]:
            log.warning(
                "the best checkpoint begins anew: the FID of step %d had a different %s",
                best["step"], " and ".join(different),
            )  # fmt: skip
            best = {}
        # the best one again: its checkpoint may be damaged
        if not best or quick.fid < best["fid"] or step == best["step"]:
            self.best = {"step": step, "fid": quick.fid, "ci95": [*quick.ci95], **about}
            self.save(wait=True)
            self.run.update(best=self.best)
        fid = {"fid": quick.fid, "fid_low": quick.ci95[0], "fid_high": quick.ci95[1]}
        if quick.floor is not None:
            fid["fid_real"] = quick.floor
        kid = {"kid": quick.kid, "kid_low": quick.kid_ci95[0], "kid_high": quick.kid_ci95[1]}
        self.log(step, **fid, **kid, eval_n=quick.n)

    def save(self, wait: bool = False) -> None:
        """A checkpoint of this step, unless there is one; then the ones too many are deleted.

        Beside a GPU a thread writes a copy of now while training goes on, unless told to `wait`.
        """
        if self.saved != self.training.step:
            self.saved = self.training.step
            files, state = self.training.tensors()
            state |= self.about | {"images_seen": self.images(self.saved)}
            state |= self.seen.state()
            if self.background.pool:
                files = {name: copied(tensors) for name, tensors in files.items()}
            # this one by name: a damaged one that training has not passed again looks newer
            spared = [self.saved, *self.weak, *([self.best["step"]] if self.best else [])]
            # the peak depends on the machine: a row of it would differ from one run to the next
            memory = hardware.peak_memory(self.seen.device)
            facts = {"step": self.saved, "images_seen": state["images_seen"], "memory": memory}
            self.background.do(
                partial(self._write, self.saved, files, state, spared),
                partial(self._written, facts),
            )
        if wait:
            self.background.wait()

    def _write(
        self, step: int, files: dict[str, dict[str, Tensor]], state: Any, spared: list[int]
    ) -> None:
        folder = self.run.folder / "checkpoints"
        checkpoints.save(folder, step, files, state)
        regular = [k for k in checkpoints.steps(folder) if k <= step and self.is_regular(k)]
        checkpoints.purge(folder, self.keep, [*spared, *regular[-1:]], self.multiple, step)

    def is_regular(self, step: int) -> bool:
        """Is there a checkpoint of this step in every such training, stopped or not?"""
        return self.back_to is not None and step % self.back_to == 0

    def _written(self, facts: dict[str, int]) -> None:
        log.debug("step %d saved; peak memory %.0f MiB", facts["step"], facts["memory"] / 2**20)
        self.run.update(**facts)

    def diagnose(self, step: Step) -> None:
        """diverged.json, for who wants to know why; of several such steps it is the last."""
        runs.write_json(self.run.folder / "diverged.json", step.why)

    def diverged(self, lost: Diverged) -> None:
        """Training does not go on from there. NoSpaceError of a checkpoint that came before."""
        self.background.wait()
        try:
            self.diagnose(lost.step)
        except NoSpaceError as full:  # it must not hide what went wrong
            log.warning("no diagnosis: %s", full)

    def settle(self) -> None:
        """Training ends by an error: a checkpoint that is still being written comes to its end."""
        try:
            self.background.wait()
        except Exception as error:  # it must not hide what went wrong
            log.warning("the checkpoint before it was not saved: %s", reason(error, None))

    def last(self) -> Path | None:
        """The checkpoint to go back to: no signal and no look has made it."""
        return checkpoints.newest(self.run.folder / "checkpoints", self.is_regular)

    def roll_back(self, lost: Diverged, newest: Path | None) -> None:
        """Go to the last checkpoint, from where all is drawn anew; else the run has diverged."""
        checkpoint = _rolled_back(self.training, lost, newest)
        self.saved, count = self.training.step, self.training.rollbacks
        self.seen = Seen.of(checkpoint, self.seen.device)
        checkpoints.forget(self.run.folder / "checkpoints", self.saved)
        if self.best and self.best["step"] > self.saved:
            self.best = None
            self.run.facts.pop("best")
        self.run.truncate_log(self.saved)
        self.run.update(rollbacks=count)
        log.warning(
            "%s; back to step %d, rollback %d of %d", said(lost.step), self.saved, count, ROLLBACKS
        )


def _whole(best: Any) -> dict[str, Any] | None:
    """What run.json says of the best checkpoint, unless it is damaged there."""
    kinds = {"step": int, "fid": float}
    whole = isinstance(best, dict) and all(isinstance(best.get(k), kinds[k]) for k in kinds)
    return best if whole else None


def _weak(folder: Path, wanted: int | None, now: int) -> list[int]:
    """Steps whose checkpoint stays, to be guided away from: the wanted one.

    A training that is extended may have passed it: then the nearest that there is stays, too.
    """
    if wanted is None:
        return []
    there = [step for step in checkpoints.steps(folder) if wanted <= now and step <= now]
    return [wanted, *sorted(there, key=lambda step: abs(step - wanted))[:1]]


class Silent:
    """The journal of a process that writes nothing: it only goes back where the first one does."""

    def __init__(self, training: Training) -> None:
        self.training = training

    def see(self, step: Step) -> None:
        pass

    def steps(self, step: Step) -> None:
        pass

    def looked(self) -> set[str]:
        return set()

    def look(self, step: int, test_loss: float, samples: Image.Image) -> None:
        pass

    def score(self, step: int, quick: Quick | None) -> None:
        pass

    def save(self, wait: bool = False) -> None:
        pass

    def diverged(self, lost: Diverged) -> None:
        pass

    def last(self) -> None:
        """The first one says which: here a thread of its may still be writing the newest one."""

    def roll_back(self, lost: Diverged, newest: Path | None) -> None:
        """To the checkpoint that the first one goes back to."""
        _rolled_back(self.training, lost, newest)


def _rolled_back(training: Training, lost: Diverged, newest: Path | None) -> Path:
    """Load the newest checkpoint and return it; DivergedError where there is no going back."""
    count = training.rollbacks + 1
    if newest is None or count > ROLLBACKS:
        reason = "no checkpoint to go back to" if newest is None else f"{ROLLBACKS} rollbacks"
        raise DivergedError(f"{lost} ({reason})") from lost
    training.load(newest)
    training.rollbacks = count
    return newest
