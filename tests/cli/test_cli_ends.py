"""How a command ends: its exit code, and what is said."""

import os
import signal
import subprocess
import sys

import pytest
from places import ROOT

from diffuse import cli
from diffuse.errors import DataError, DivergedError


def test_a_command_decides_its_own_exit_code(command):
    command.answer = lambda cfg, job: 4
    assert cli.main(["train"]) == 4
    command.answer = lambda cfg, job: sys.exit(143)
    assert cli.main(["train"]) == 143


@pytest.mark.parametrize("nothing", [None, 0])
def test_code_of_others_that_ends_the_command_is_no_success(nothing, command, capsys):
    command.raises(SystemExit(nothing))
    assert cli.main(["eval"]) == 1
    assert "error: unexpected RuntimeError: code that is not ours ended" in capsys.readouterr().err
    command.raises(SystemExit(7))
    assert cli.main(["eval"]) == 7


def test_ctrl_c_while_python_still_reads_the_command_ends_it_without_a_word(tmp_path):
    """A module that is read first presses it."""
    (tmp_path / "early").mkdir()
    (tmp_path / "early/difflib.py").write_text("import os\nos.kill(os.getpid(), 2)\n")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "early"), *sys.path])}
    words = [sys.executable, "-m", "diffuse", "train", "--help"]

    def ended(action):
        done = subprocess.run(
            words, env=env, cwd=tmp_path, capture_output=True, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, action),
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    assert ended(signal.SIG_DFL) == (-signal.SIGINT, "", "")
    assert "ImportError" in ended(signal.SIG_IGN)[2]  # nohup: it reads on, in that module


def test_a_foreseen_error_is_one_line_with_its_own_exit_code(command):
    command.raises(DivergedError("step 3: loss nan\nat 0.1"))
    assert command.error("train", code=4) == "step 3: loss nan at 0.1"


def test_sources_of_data_that_did_not_answer_have_a_line_each(command, capsys):
    command.raises(DataError("no source answered\n  the cache: empty\n  the Hub: silent"))
    assert cli.main(["train"]) == 3
    assert capsys.readouterr().err.splitlines()[-2:] == ["  the cache: empty", "  the Hub: silent"]


def test_an_unforeseen_error_names_its_type_and_where_the_traceback_is(
    command, capsys, monkeypatch
):
    command.raises(ZeroDivisionError("oh"))
    assert cli.main(["train"]) == 1
    err = capsys.readouterr().err
    assert err.splitlines()[0] == "error: unexpected ZeroDivisionError: oh"
    assert "HYDRA_FULL_ERROR=1" in err
    assert "Traceback" not in err
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert cli.main(["train"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "in answer" in err


def test_ctrl_c_is_130_and_a_full_disk_is_5(command, capsys):
    command.raises(KeyboardInterrupt())
    assert cli.main(["train"]) == 130
    command.raises(OSError(28, "No space left on device", "x.bin"))
    assert cli.main(["train"]) == 5
    assert "x.bin" in capsys.readouterr().err


TORCHS = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 42467328 bytes."


@pytest.mark.parametrize(
    ("verb", "error", "said"),
    [
        ("train", RuntimeError(TORCHS), ", which asked for 42467328 bytes more; a smaller network"),
        ("sample", RuntimeError("could not create a primitive"), "; a smaller batch= may fit"),
        (
            "plot grid",
            MemoryError("Unable to allocate 2.5 GiB"),
            ", which asked for 2.5 GiB more; ",
        ),
        ("compare a b", MemoryError(), ""),
    ],
)
def test_memory_that_there_is_not_is_said_so_outside_of_a_training_step(verb, error, said, command):
    command.raises(error)
    assert command.error(verb, 1).startswith(f"out of memory{said}")


def test_a_closed_pipe_is_141_and_silent():
    read, write = os.pipe()
    os.close(read)
    line = [sys.executable, "-m", "diffuse", "train", "--help"]
    answer = subprocess.run(line, stdout=write, stderr=subprocess.PIPE, cwd=ROOT)
    os.close(write)
    assert answer.returncode == 141
    assert answer.stderr == b""
