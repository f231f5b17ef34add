"""Which process a run folder belongs to: one that is there, and only one."""

import errno
import os

import pytest
from injected import at_once

from diffuse import owners, runs
from diffuse.errors import ConfigError


def begun(outputs):
    folder = runs.claim(outputs, "train", "a")
    return runs.Run.start(folder, "train", "", [], name="a")


def test_a_process_that_has_only_the_number_is_another_one(tmp_path):
    """In containers numbers are small and the same every time."""
    run = begun(tmp_path)
    assert runs.is_alive(run.folder)
    run.update(process=f"{os.getpid()}@another boot/1")
    assert not runs.is_alive(run.folder)
    run.update(process="")  # written where the kernel has no /proc
    assert runs.is_alive(run.folder)


CONTINUE = """
import sys
from pathlib import Path
from diffuse import runs
from diffuse.errors import ConfigError
print("ready", flush=True)
sys.stdin.readline()
try:
    run = runs.Run.reopen(Path(sys.argv[1]), "train")
except ConfigError as error:
    print("refused" if "by another process" in str(error) else error, flush=True)
else:
    print("mine", flush=True)
sys.stdin.readline()
"""


def test_of_four_that_continue_a_run_at_once_one_does_and_a_dead_one_holds_nothing(tmp_path):
    folder = begun(tmp_path).folder
    started = at_once(4, CONTINUE, str(folder))
    said = [process.stdout.readline().strip() for process in started]
    assert sorted(said) == ["mine", "refused", "refused", "refused"]
    for process in started:
        process.kill()
        process.communicate()
    with runs.Run.reopen(folder, "train").watched():
        pass
    runs.Run.reopen(folder, "train")


def test_a_run_that_cannot_be_written_to_is_refused_in_words(tmp_path, monkeypatch):
    folder = begun(tmp_path).folder

    def locked(path):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(owners, "lock", locked)
    with pytest.raises(ConfigError, match=r"v001 cannot be written to: Read-only file system$"):
        runs.Run.reopen(folder, "train")
