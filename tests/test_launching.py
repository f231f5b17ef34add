"""Which of several processes is named when a training ends because of one."""

import contextlib
import logging
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from injected import forked
from leftovers import until

from diffuse import cli, launching, ranks, runs
from diffuse.commands import train
from diffuse.commands.training import following
from diffuse.errors import ConfigError, DivergedError, NoSpaceError
from diffuse.launching import Lost
from diffuse.ranks import Ranks

ENDS = {"1": "sys.stdin.read(1); sys.exit(1)", "2": "os.kill(os.getpid(), signal.SIGKILL)"}
SAID = "process 2 of this training was ended by SIGKILL"


@contextlib.contextmanager
def two_that_fail(monkeypatch, grace):
    """Both are children: the second one is killed, and the first one fails without it."""
    made = []

    def start(module, where, world, rank):
        code = f"import os, signal, sys; {ENDS[rank]}"
        made.append(subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE))
        return made[-1]

    monkeypatch.setattr(launching.children, "start", start)
    monkeypatch.setattr(launching, "GRACE", grace)
    with launching._started(3, "nowhere") as (gone, _):
        assert gone().startswith(SAID)
        made[0].stdin.write(b"x")
        made[0].stdin.flush()
        assert made[0].wait(60) == 1
        yield gone


@pytest.mark.parametrize(("rank", "told"), [("0", True), ("1", False)])
def test_of_torchruns_processes_the_first_one_says_what_there_is_to_say(
    rank, told, monkeypatch, capsys
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    logger = logging.getLogger("diffuse")
    monkeypatch.setattr(logger, "handlers", [])

    def say(*_):
        logger.info("so it is")
        logger.error("that is wrong")
        return 0

    monkeypatch.setattr(cli, "run_command", say)
    assert cli.main(["train", "train.steps=1"]) == 0
    assert capsys.readouterr().err == "so it is\n" * told + "error: that is wrong\n"


def test_of_several_that_fail_the_first_one_is_named(monkeypatch):
    """Others fail because they have lost it, whatever their number is."""
    with two_that_fail(monkeypatch, 60.0) as gone:
        assert gone().startswith(SAID)


def test_so_it_is_if_nobody_notices_and_the_run_says_so(monkeypatch, tmp_path):
    def act():
        run = runs.Run.start(runs.claim(tmp_path, "train", "lost"), "train", "", [])
        hear = launching.last_words(partial(train._lost, run))
        with run.watched(), hear, two_that_fail(monkeypatch, 2.0):
            time.sleep(60)

    assert forked(act, tmp_path / "said") == 1
    assert (tmp_path / "said").read_text().startswith(f"error: {SAID}")
    facts = runs.read(tmp_path / "train/lost/v001")
    assert facts["status"] == "failed"
    assert facts["reason"].startswith(f"Lost: {SAID}")


def test_the_first_process_can_ask_at_any_time_whether_another_one_is_gone(monkeypatch):
    monkeypatch.setattr(launching.Ranks, "joined", lambda rank, world, *_: Ranks(rank, world))
    kill = "import os, signal, sys; sys.stdin.read(1); os.kill(os.getpid(), signal.SIGKILL)"
    children = []

    def start(*_):
        children.append(subprocess.Popen([sys.executable, "-c", kill], stdin=subprocess.PIPE))
        return children[-1]

    monkeypatch.setattr(launching.children, "start", start)
    with launching.crew(2) as meet:
        met = meet()
        assert met.gone() is None
        children[0].stdin.write(b"x")
        children[0].stdin.flush()
        until(met.gone)
        assert met.gone().startswith("process 1 of this training was ended by SIGKILL")


def test_a_process_has_its_threads_again_when_the_others_are_gone(monkeypatch):
    """Else each later job of a sweep would compute with a half of those of the one before."""
    monkeypatch.setattr(launching.children, "start", lambda *_: waiting())
    monkeypatch.setattr(ranks.dist, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(Ranks, "agree", lambda self, value: value)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        with launching.crew(2) as meet:
            meet()
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("local", "error"),
    [
        ("2", "LOCAL_RANK=2, but torch finds 2 GPUs, from 0: start fewer"),
        (None, "LOCAL_RANK is not set: it says whose GPU is which, and torchrun sets it"),
        ("one", "LOCAL_RANK is 'one', no number: it says whose GPU is which, and torchrun sets it"),
        ("1", None),
    ],
)
def test_a_process_of_torchrun_without_a_gpu_of_its_own_is_refused_at_once(
    local, error, tiny, diffuse, monkeypatch
):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else a GPU sets it, for good
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "2")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local:
        monkeypatch.setenv("LOCAL_RANK", local)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(train, "crew", lambda devices: pytest.fail("it would meet the others"))
    if error:
        assert diffuse.error(f"train {tiny} device=cuda") == error
    else:
        launching.check(1, torch.device("cuda"))
        with pytest.raises(ConfigError, match=r"device=cuda:1 under torchrun, which has a GPU for"):
            launching.check(1, torch.device("cuda:1"))


@pytest.mark.parametrize(("said", "local"), [({}, 0), ({"LOCAL_RANK": "1"}, 1)])
def test_on_a_cpu_its_number_on_the_machine_is_nothing_to_ask_for(said, local, monkeypatch):
    for key, value in {"WORLD_SIZE": "3", "RANK": "2", **said}.items():
        monkeypatch.setenv(key, value)
    launching.check(1, torch.device("cpu"))
    monkeypatch.setattr(Ranks, "joined", lambda *words: words)
    assert launching._torchrun() == (2, 3, local, "env://")


def waiting():
    """A child that is there until its stdin ends."""
    code = "import sys; sys.stdin.read()"
    return subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE)


@pytest.mark.parametrize("error", [NoSpaceError("no space for x (9 bytes)"), None])
def test_after_an_error_no_child_is_left_when_the_group_is_destroyed(error, monkeypatch):
    """NCCL waits for what is under way, and they for us: for half an hour."""
    child, left = waiting(), []
    monkeypatch.setattr(launching.children, "start", lambda *_: child)
    monkeypatch.setattr(launching.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(
        launching.dist, "destroy_process_group", lambda: left.append(child.poll() is None)
    )
    with contextlib.suppress(NoSpaceError), launching.crew(2):
        if error:
            raise error
    assert left == [error is None]
    assert child.wait() == 0


def test_who_cannot_end_the_others_ends_without_leaving_them(monkeypatch):
    left = []
    monkeypatch.setattr(launching.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(launching.dist, "destroy_process_group", lambda: left.append("group"))
    with pytest.raises(NoSpaceError), launching.left_behind(lambda: None):
        raise NoSpaceError("full")
    assert not left
    with launching.left_behind(lambda: None):
        pass
    assert left == ["group"]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DivergedError("step 3: loss nan"), 0, ""),  # the first process says so
        (Lost("the first process is gone"), 1, ""),
        (ConfigError("no such thing"), 1, "process 1: no such thing\n"),
    ],
)
def test_a_process_fails_unless_what_ends_it_ends_all_alike(error, code, said, monkeypatch, capsys):
    def main(meet):
        raise error

    monkeypatch.setattr(following, "main", main)
    monkeypatch.setattr(following.children, "end_with_parent", lambda code: None)
    monkeypatch.setattr(following.stderr, "log_here", lambda **least: None)
    assert following.child("nowhere", 2, 1) == code
    assert capsys.readouterr().err == said


def test_nobody_looks_on_when_another_process_is_gone_and_a_sweep_goes_on(diffuse, monkeypatch):
    """Rank 0 is in no collective then, which would notice."""
    lost = "process 1 of this training was ended by SIGKILL"
    monkeypatch.setattr(launching, "ALONE", Ranks(gone=lambda: lost))
    assert diffuse.train("train.steps=2 -m seed=1,2") == 1
    for k in "01":
        assert runs.read(Path(f"outputs/train/tiny/v001/{k}"))["reason"] == f"Lost: {lost}"
        assert re.search(rf"job {k} failed.*{lost}", diffuse.err), diffuse.err
    monkeypatch.setattr(launching, "ALONE", Ranks())
    assert diffuse.train("train.steps=2 -m seed=1,2") == 0
