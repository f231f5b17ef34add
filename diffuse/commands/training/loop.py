"""The loop of a training: what happens when, the same in each of its processes."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from diffuse import assembly, memory
from diffuse.checkups import Checkup
from diffuse.commands.training.preparing import Work
from diffuse.console import Meter
from diffuse.divergence import Diverged
from diffuse.errors import DivergedError, reason
from diffuse.interrupts import Interrupts
from diffuse.journal import Journal, Silent
from diffuse.launching import Lost
from diffuse.scoring import Judge
from diffuse.training import Step, fit

log = logging.getLogger(__name__)


def loop(
    work: Work,
    journal: Journal | Silent,
    interrupts: Interrupts,
    meter: Meter | None = None,
    judge: Judge | None = None,
) -> bool:
    """Train to the end or until one of the processes is told to stop: False then."""
    every, ranks = work.cfg.train, work.ranks
    by_class = assembly.of_classes(work.cfg)
    checkup = Checkup(work.training, work.test, work.law, work.plan, by_class, ranks)

    def stop_looking(*_: object) -> None:
        """A look may last longer than we have until a kill: whoever is told to stop saves in it.

        And nobody looks on while another process is gone, which only ends a training, not a sweep.
        """
        if lost := ranks.gone():
            raise Lost(lost)
        if interrupts.caught is not None:
            journal.save(wait=True)
            if ranks.world == 1:  # others would wait for what this one was to draw
                raise _Stopped

    for net in filter(None, [checkup.copy.net, judge and judge.encoder]):
        net.register_forward_pre_hook(stop_looking)

    def look(names: list[str]) -> bool:
        """At the weights of the last step; what cannot be looked at is trained on. False: left."""
        number = work.training.step
        with suppress(_Stopped), ranks.as_one():
            with _tolerant(f"no samples of step {number:,}"):
                if "look" in names:
                    journal.look(number, checkup.loss(), checkup.samples(work.cfg.n))
            with _tolerant(f"no quick FID of step {number:,}"):
                if "score" in names:
                    journal.score(number, checkup.score(judge, every.eval_n))
            return True
        return False

    # a kill may have ended a look: the row it did not write says so
    if not look(ranks.agree([name for name in work.looks() if name not in journal.looked()])):
        return False
    for step in _steps(work, journal):
        journal.see(step)
        if meter and (meter.due() or step.last):
            log.debug(meter.show(step.number, f"loss {step.loss.item():.4f}"))
        if step.every(every.log_every):
            journal.steps(step)
        look(work.looks())
        stop = ranks.any(interrupts.caught is not None)
        if step.every(every.save_every) or step.number == work.weak_step or stop or step.last:
            journal.save(wait=stop or step.last)
        if stop:
            return False
    return True


class _Stopped(Exception):
    """A look was left when the training was told to stop; it is done again after a resume."""


@contextmanager
def _tolerant(missing: str) -> Iterator[None]:
    """Images that diverge, or do not fit into the memory beside the training, are one warning."""
    try:
        yield
    except (DivergedError, *memory.KINDS) as error:
        if not isinstance(error, DivergedError) and not memory.ran_out(error):
            raise
        log.warning("%s: %s", missing, reason(error))


def _steps(work: Work, journal: Journal | Silent) -> Iterator[Step]:
    """fit(), begun again at the last regular checkpoint if `train.on_nan=rollback` says so."""
    losses = work.ranks.losses(work.training.denoiser)
    while True:
        try:
            yield from fit(
                work.training, work.data, work.law, work.recipe, work.peaks, work.ranks, losses
            )
            return
        except Diverged as lost:
            journal.diverged(lost)
            if work.recipe.on_nan != "rollback":
                raise
            journal.roll_back(lost, work.ranks.agree(journal.last()))
