"""Another process of a training: it computes its part, and the first one writes."""

import sys
from functools import partial

from diffuse import children, conditions, stderr
from diffuse.commands.training.loop import loop
from diffuse.commands.training.preparing import follow
from diffuse.errors import DivergedError
from diffuse.interrupts import Interrupts
from diffuse.journal import Silent
from diffuse.launching import Lost, Meet, left_behind
from diffuse.ranks import Ranks


def main(meet: Meet) -> int:
    """Do what the first process says, until the training is over."""
    with conditions.repeatable(), Interrupts() as interrupts:
        work, folder = follow(meet)
        if folder is not None:
            loop(work, Silent(work.training), interrupts)
    return interrupts.exit_code if interrupts.caught else 0


def child(where: str, world: int, rank: int) -> int:
    """A process that the first one has started: whatever is orderly is exit 0."""
    children.end_with_parent(1)
    stderr.log_here(least="error")  # the first one warns
    try:
        with left_behind(lambda: None):
            main(partial(Ranks.joined, rank, world, rank, where, world))
    except Lost:
        return 1  # the first one says why
    except DivergedError:
        return 0  # so it does of this, which is in all of them
    except Exception as error:
        print(f"process {rank}: {stderr.one_line(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(child(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
