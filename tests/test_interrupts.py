"""Signals: the first is noted, the second ends the process at once."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from places import ROOT

from diffuse import launching, runs
from diffuse.interrupts import Interrupts

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
ALL = pytest.mark.parametrize("number", Interrupts.SIGNALS)


@pytest.fixture(autouse=True)
def _not_by_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@ALL
def test_a_signal_is_noted_and_the_work_goes_on(number):
    before = [signal.getsignal(s) for s in Interrupts.SIGNALS]
    with Interrupts() as interrupts:
        assert interrupts.caught is None
        os.kill(os.getpid(), number)
        assert interrupts.caught == number
    assert interrupts.exit_code == (130 if number == signal.SIGINT else 143)
    assert [signal.getsignal(s) for s in Interrupts.SIGNALS] == before


@ALL
def test_where_there_is_nothing_to_tidy_up_it_ends_at_once(number):
    before = [signal.getsignal(s) for s in Interrupts.SIGNALS]

    def work():
        with Interrupts(at_once=True):
            os.kill(os.getpid(), number)
            pytest.fail("the work went on")

    with pytest.raises(SystemExit) as left:
        work()
    assert left.value.code == (130 if number == signal.SIGINT else 143)
    assert [signal.getsignal(s) for s in Interrupts.SIGNALS] == before


def test_a_burst_does_not_cut_short_how_the_first_signal_ends(tmp_path, monkeypatch):
    """`diffuse sample` listens twice: from its first moment on, and while it has a folder."""
    run = runs.Run.start(runs.claim(tmp_path, "sample", "a"), "sample", "", [])
    finish = runs.Run.finish

    def told(*args, **facts):
        os.kill(os.getpid(), signal.SIGTERM)
        finish(*args, **facts)

    def work():
        with Interrupts(at_once=True), run.watched(), Interrupts(at_once=True):
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("the work went on")

    monkeypatch.setattr(runs.Run, "finish", told)
    with pytest.raises(SystemExit) as left:
        work()
    assert left.value.code == 130
    assert runs.read(run.folder)["status"] == "stopped"


def test_what_begins_after_a_signal_hears_the_next_one():
    def work():
        with Interrupts(at_once=True), Interrupts(at_once=True):
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("the work went on")

    for _ in range(2):
        with pytest.raises(SystemExit):
            work()


STUBBORN = """
import time
from diffuse.interrupts import Interrupts
with Interrupts() as interrupts:
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
        if interrupts.caught:
            print("tidying up", flush=True)
            time.sleep(60)
"""


@BOTH
def test_the_second_signal_leaves_within_a_second(number, start):
    process = start([sys.executable, "-c", STUBBORN])
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "tidying up\n"
    time.sleep(0.5)
    process.send_signal(number)
    started = time.monotonic()
    assert process.wait(timeout=10) == 128 + number
    assert time.monotonic() - started < 3  # a second, where nothing else computes


BURST = """
import os, signal, time
from diffuse import interrupts
from diffuse.interrupts import Interrupts
interrupts.BURST = 0.25  # where much else computes 0.05 s are soon over
with Interrupts() as interrupts:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)
    time.sleep(0.3)
    print("tidied up", interrupts.exit_code)
"""


def test_several_signals_at_once_are_one():
    """As where `timeout` tells a group of processes, and one of them tells the others."""
    told = subprocess.run([sys.executable, "-c", BURST], capture_output=True, text=True, cwd=ROOT)
    assert (told.returncode, told.stdout) == (0, "tidied up 143\n")


BUSY = """
import torch
from diffuse.interrupts import Interrupts
torch.set_num_threads(1)
with Interrupts():
    matrix = torch.randn(5000, 5000)
    print("ready", flush=True)
    torch.linalg.eigvalsh(matrix)  # many seconds in which Python runs no handler
    print("done", flush=True)
"""


@pytest.mark.slow
def test_the_second_signal_leaves_within_a_second_out_of_a_long_computation(start):
    process = start([sys.executable, "-c", BUSY])
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert time.monotonic() - started < 3
    assert process.stdout.read() == ""


def test_nothing_of_a_signal_is_left_behind_when_it_is_over():
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with Interrupts():
            pass
    for _ in range(50):  # threads end in their own time; those of other tests may end, too
        after = threading.active_count(), len(os.listdir("/proc/self/fd"))
        if after <= before:
            break
        time.sleep(0.1)
    assert after[0] <= before[0]
    assert after[1] <= before[1]


RELAYED = """
import os, signal, threading, time
from diffuse.interrupts import Interrupts
with Interrupts() as interrupts:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.5)
    print(interrupts.caught, flush=True)
"""


@pytest.mark.parametrize("torchrun", [True, False])
def test_what_torchrun_passes_on_is_the_signal_that_was_there_before(torchrun):
    """Without it, half a second later is a second signal."""
    told = {"TORCHELASTIC_RUN_ID": "none"} if torchrun else {}
    answer = subprocess.run(
        [sys.executable, "-c", RELAYED], env={**os.environ, **told}, capture_output=True, text=True
    )
    expected = (0, f"{int(signal.SIGTERM)}\n") if torchrun else (143, "")
    assert (answer.returncode, answer.stdout) == expected


@pytest.mark.parametrize("before", [True, False])
def test_a_process_whose_torchrun_is_gone_is_told_once(before, monkeypatch):
    """Torchrun ends at a SIGUSR1 that its processes have caught: another signal ends their save."""
    sent = []
    monkeypatch.setattr(launching.os, "getppid", lambda: 1)
    monkeypatch.setattr(launching.os, "kill", lambda *words: sent.append(words))
    asked = threading.Event()
    monkeypatch.setattr(Interrupts, "asked", asked)
    if before:
        asked.set()
    launching._end_with(2)
    assert sent == ([] if before else [(os.getpid(), signal.SIGTERM)])


def test_a_terminal_that_is_closed_is_heard_unless_nohup_said_not_to():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            assert interrupts.caught is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


HUNG_UP = """
import os, signal, time
from diffuse.interrupts import Interrupts
with Interrupts() as interrupts:
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0.3)  # longer than a burst
    print("saved", interrupts.caught, interrupts.exit_code)
"""


def test_a_shell_and_the_kernel_both_say_that_a_terminal_was_closed():
    command = [sys.executable, "-c", HUNG_UP]
    told = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (told.returncode, told.stdout) == (0, f"saved {signal.SIGHUP} 143\n")
