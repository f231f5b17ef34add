"""What a training leaves behind, waiting until it is there, and what happens at a step."""

import contextlib
import json
import os
import signal
import time

from diffuse import checkpoints, cli, files
from diffuse.training import fit

RUN = "outputs/train/tiny/v001"


def rows(run):
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def begin_with(run, here, there):
    """Let a run have been begun with other words in its config."""
    text = files.read_sealed(run / "config.yaml").partition("\n")[2]
    assert here in text
    files.write_sealed(run / "config.yaml", text.replace(here, there))


def what_is_left(run):
    """The last checkpoint, the rows and the last grid if there is one, to the byte."""
    last = checkpoints.newest(run / "checkpoints")
    files = [*last.iterdir(), run / "metrics.jsonl", *(run / "samples").glob("latest.png")]
    return {path.name: path.read_bytes() for path in files}


def undisturbed(words, folder):
    """What a training that nothing happens to leaves behind."""
    with contextlib.chdir(folder):
        assert cli.main(["train", *words.split()]) == 0
    return what_is_left(folder / RUN)


def until(true, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def stop(number=signal.SIGTERM):
    """Tell this process so."""
    os.kill(os.getpid(), number)


def at_step(number, act, when=lambda *args: True):
    """fit(), with something that happens after a step: always, or as its arguments then are."""

    def stepping(*args):
        for step in fit(*args):
            if step.number == number and when(*args):
                act()
            yield step

    return stepping
