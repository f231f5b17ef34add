"""Everything a training run leaves behind, in its folder and with its tracker."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from diffuse import checkpoints, plots
from diffuse.evaluation import Scores
from diffuse.runs import Run
from diffuse.trackers import Quiet
from diffuse.training import Step, Training


class Window:
    """The mean loss of some steps; it stays on the device until somebody asks."""

    def __init__(self, device: torch.device, total: float = 0.0, count: int = 0) -> None:
        self.total = torch.tensor(total, dtype=torch.float32, device=device)
        self.count = count

    def add(self, loss: Tensor) -> None:
        self.total += loss
        self.count += 1

    def close(self) -> float:
        """The mean; the next window begins."""
        mean = self.total.item() / max(1, self.count)
        self.total.zero_()
        self.count = 0
        return mean


class Journal:
    """Writes metrics, grids and checkpoints of one training."""

    def __init__(
        self,
        run: Run,
        tracker: Quiet,
        training: Training,
        batch: int,
        keep: int,  # newest checkpoints that stay
        about: dict[str, Any],  # what `sample` and `eval` need besides the weights
        window: Window,
    ) -> None:
        self.run, self.tracker, self.training = run, tracker, training
        self.batch, self.keep, self.about, self.window = batch, keep, about, window
        self.best: dict[str, Any] | None = run.facts.get("best")
        self.saved = training.step

    def log(self, step: Step, **values: float) -> None:
        self.run.log(step=step.number, images_seen=step.number * self.batch, **values)
        self.tracker.log(step.number, values)

    def steps(self, step: Step) -> None:
        """The mean loss since the last such line."""
        loss = self.window.close()
        self.log(step, loss=loss, lr=step.lr, grad_norm=step.grad_norm.item())
        self.run.facts["loss"] = loss

    def look(self, step: Step, test_loss: float, grid: Image.Image) -> None:
        """The held-out loss and the grid of the moment."""
        self.log(step, test_loss=test_loss)
        self.run.facts["test_loss"] = test_loss
        folder = self.run.folder / "samples"
        path = plots.save(grid, folder / f"step_{step.number:08d}.png")
        plots.save(grid, folder / "latest.png")
        self.tracker.image(step.number, "samples", path)

    def score(self, step: Step, scores: Scores) -> None:
        """A quick FID; the checkpoint with the lowest one is kept."""
        self.log(step, fid=scores.fid, kid=scores.kid, eval_n=scores.n)
        if self.best is None or scores.fid < self.best["fid"]:
            self.best = {"step": step.number, "fid": scores.fid, "n": scores.n}
            self.save()
            self.run.update(best=self.best)

    def save(self) -> None:
        """A checkpoint of this step, unless there is one; then the ones too many are deleted."""
        folder = self.run.folder / "checkpoints"
        if self.saved == self.training.step:
            return
        files, state = self.training.tensors()
        state |= self.about | {
            "images_seen": self.training.step * self.batch,
            "window": [self.window.total.item(), self.window.count],
        }
        checkpoints.save(folder, self.training.step, files, state)
        self.saved = self.training.step
        # the one just saved by name: a damaged one that training has not passed again looks newer
        spared = [self.saved, *([self.best["step"]] if self.best else [])]
        checkpoints.purge(folder, self.keep, spared)
        self.run.update(step=self.training.step, images_seen=state["images_seen"])
