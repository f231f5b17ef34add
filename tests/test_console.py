"""What a person sees, where there is no terminal and where there is one."""

import errno
import json
import math
import shlex
import subprocess
import sys

import pytest
from rich.console import Console

from diffuse import checkpoints, cli, console, runs, stderr


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0.4 s"), (9.9, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 0 s"),
     (200, "3 min 20 s"), (3600, "1 h 0 min"), (7530, "2 h 5 min"), (float("inf"), "?")],
)  # fmt: skip
def test_a_duration_reads_like_one(seconds, words):
    assert console.clock(seconds) == words


@pytest.fixture
def time(monkeypatch):
    """A clock that stands still until it is moved."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_a_meter_says_how_fast_it_is_and_how_long_it_will_take(time, capsys):
    with console.Meter("train", total=110, done=10, images=4) as meter:
        assert not meter.due()
        time[0] += 20
        assert meter.due()
        line = meter.show(60, "loss 0.5")
        assert not meter.due()
    assert line == "train 60/110  loss 0.5  10 images/s  20 s left"
    out, err = capsys.readouterr()
    assert (out, err) == ("", line + "\n")


def test_a_meter_that_is_done_says_how_long_it_took(time):
    meter = console.Meter("sample", total=10)
    time[0] += 5
    assert meter.show(10) == "sample 10/10  2.0 images/s  in 5.0 s"


def test_on_a_terminal_the_meter_is_a_bar_that_goes_away(monkeypatch, capsys):
    terminal = Console(force_terminal=True, stderr=True, width=100)
    monkeypatch.setattr(console, "Console", lambda **_: terminal)
    with console.Meter("train", total=4) as meter:
        meter.show(2, "loss 0.5")
    out, err = capsys.readouterr()
    assert out == ""
    assert "loss 0.5" in err
    assert "2/4" in err


def test_a_table_is_plain_where_there_is_no_terminal(capsys):
    console.print_table("Title", {"a": "[1, 2]", "long": "x" * 300})
    assert capsys.readouterr().out == f"Title\n  a     [1, 2]\n  long  {'x' * 300}\n"


@pytest.mark.parametrize("text", ["classes=[cat, dog]", "/data/[old]/x", "[/x]", ":dog:"])
def test_on_a_terminal_brackets_and_colons_are_text_as_well(text, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes it a terminal
    monkeypatch.setenv("COLUMNS", "100")
    console.print_table(text, {text: text})
    assert capsys.readouterr().out.count(text) == 3
    console.print_columns(text, {text: {text: text}})
    assert capsys.readouterr().out.count(text) == 4
    with console.Meter(text, 10) as meter:
        meter.show(1, text)
    assert capsys.readouterr().err.count(text) >= 2


def test_a_dry_run_says_that_nothing_is_written(capsys):
    console.print_dry_run({"a": "1"}, json=False)
    assert capsys.readouterr().out == "Dry run (nothing is written)\n  a  1\n"
    console.print_dry_run({"a": "1"}, json=True)
    assert json.loads(capsys.readouterr().out) == {"a": "1"}


def test_json_can_be_read_again(capsys):
    console.print_json({"a": [1.5, None]})
    assert json.loads(capsys.readouterr().out) == {"a": [1.5, None]}
    console.print_json({"a": [math.inf, (-math.inf, 1)], "b": math.nan})
    said = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert said == {"a": [None, [None, 1]], "b": None}


class Closed:
    """A stderr that cannot be written to any more."""

    encoding = "utf-8"

    def __init__(self, error, terminal):
        self.error, self.terminal = error, terminal

    def isatty(self):
        return self.terminal

    def write(self, text):
        raise self.error

    def flush(self):
        raise self.error


UNWRITABLE = pytest.mark.parametrize(
    "number", [errno.EPIPE, errno.ENOSPC, errno.EIO], ids=["no reader", "a full disk", "hung up"]
)


@UNWRITABLE
@pytest.mark.parametrize("terminal", [False, True])
def test_work_goes_on_when_stderr_cannot_be_written_to(number, terminal, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", Closed(OSError(number, "gone"), terminal))
    with console.Meter("train", 10) as meter:
        assert (meter.bar is not None) == terminal
        assert meter.show(5).startswith("train 5/10")


@UNWRITABLE
def test_so_a_training_ends_as_it_would_and_an_error_keeps_its_exit_code(
    number, tiny, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stderr", Closed(OSError(number, "gone"), terminal=False))
    assert cli.main(f"train {tiny} train.steps=2".split()) == 0
    run = tmp_path / "outputs/train/tiny/v001"
    assert runs.read(run)["status"] == "done"
    assert checkpoints.steps(run / "checkpoints") == [2]
    assert cli.main(["train", "schedule=nonsense"]) == 2


@pytest.mark.parametrize(
    ("images", "said"),
    [(1234.5, "1,234"), (9.96, "10"), (8.24, "8.2"), (0.96, "1.0"), (0.0042, "0.0042")],
)
def test_a_rate_is_never_rounded_to_nothing(images, said):
    assert console.rate(images) == said


def test_so_it_is_for_a_process(start):
    with open("/dev/full", "w") as full:
        process = start(
            [sys.executable, "-m", "diffuse", "train", "schedule=nonsense"], stderr=full
        )
        assert process.wait(60) == 2


def test_where_there_is_no_stderr_nothing_goes_to_stdout(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr", None)
    stderr.say("a line")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("line", "code"), [("--version", 0), ("compare a b", 2), ("trian", 2)])
def test_a_closed_stdout_or_stderr_changes_no_exit_code(line, code, closed, tmp_path):
    words = f"{shlex.quote(sys.executable)} -m diffuse {line} {closed}"
    answer = subprocess.run(words, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == code
    assert "Traceback" not in answer.stderr


def test_no_file_of_ours_takes_the_number_of_a_stdout_that_is_closed(tmp_path):
    """What other code prints would be written into it."""
    code = (
        "import os, sys; from diffuse import cli; cli.main(['--version']); "
        "print(open('ours', 'w').fileno() > 2, file=open('said', 'w')); os.write(1, b'others')"
    )
    words = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} >&- 2>&-"
    assert subprocess.run(words, shell=True, cwd=tmp_path).returncode == 0
    assert (tmp_path / "said").read_text() == "True\n"
    assert (tmp_path / "ours").read_text() == ""
