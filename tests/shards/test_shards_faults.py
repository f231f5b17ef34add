"""Shards after kills, in many processes, and without room: each drawn once, all the same bytes."""

import json
import os
import signal
import threading
from collections import Counter

import pytest
import torch
from injected import forked, killed_at, without_room
from leftovers import until
from sharded import STEPS, drawn_by, drawn_lines, shard_files, whole

from diffuse.denoiser import Denoiser
from diffuse.errors import NoSpaceError
from diffuse.shards import store


@pytest.mark.parametrize("damage", [
    lambda content: content[:-1] + bytes([content[-1] ^ 1]), lambda content: content[:50],
    lambda content: b"", lambda content: b"\xff" * len(content),
])  # fmt: skip
def test_a_damaged_shard_is_drawn_again_with_one_warning(damage, draw, tmp_path, caplog):
    pixels, _, _ = draw(8)
    before = shard_files(tmp_path / "kept")
    path = sorted(tmp_path.glob("kept/*/shard-*"))[1]
    path.write_bytes(damage(path.read_bytes()))
    again, _, calls = draw(8)
    assert torch.equal(again, pixels)
    assert calls == STEPS
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "shard-000001" in caplog.text
    assert shard_files(tmp_path / "kept") == before
    assert draw(8)[2] == 0


def killed_in(draw, call):
    """What draws until it is killed, in the call-th call of the network."""

    def act():
        count = 0
        real = Denoiser.forward

        def forward(*args):
            nonlocal count
            count += 1
            if count == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args)

        Denoiser.forward = forward
        draw()

    return act


@pytest.mark.parametrize("call", [1, STEPS, STEPS + 1, 3 * STEPS])
def test_after_a_kill_only_what_is_missing_is_drawn_and_the_bytes_are_the_same(
    call, draw, denoiser, plan, tmp_path
):
    assert forked(killed_in(lambda: draw(12), call)) == -signal.SIGKILL
    done = (call - 1) // STEPS
    assert len(drawn_lines(tmp_path / "kept")) == done
    pixels, _, calls = draw(12)
    assert calls == (3 - done) * STEPS
    assert torch.equal(pixels, whole(denoiser, plan, 12)[0])
    draw(12, tmp_path / "in one go")
    assert shard_files(tmp_path / "kept") == shard_files(tmp_path / "in one go")
    assert not list(tmp_path.rglob("*.lock"))


def every_kill(draw, tmp_path, calls):
    """SIGKILL at each call to the system that names a file of the store."""
    for call in calls:
        root = tmp_path / f"kept{call}"
        code = killed_at(call, lambda root=root: draw(8, root), path=str(root))
        left = {name for name in shard_files(root) if name.endswith("safetensors")}
        pixels, _, drawn = draw(8, root)
        yield code, pixels, drawn == (2 - len(left)) * STEPS
        assert not list(root.rglob(".shard*"))


@pytest.mark.parametrize("call", [3, 6, 9, 12])
def test_a_kill_while_files_are_written_costs_one_shard_at_most(
    call, draw, denoiser, plan, tmp_path
):
    [(code, pixels, only_the_missing)] = every_kill(draw, tmp_path, [call])
    assert code == -signal.SIGKILL
    assert only_the_missing
    assert torch.equal(pixels, whole(denoiser, plan, 8)[0])


@pytest.mark.slow
def test_a_kill_at_every_call_to_the_system_leaves_nothing_wrong(draw, denoiser, plan, tmp_path):
    pixels, codes = whole(denoiser, plan, 8)[0], []
    for code, ours, only_the_missing in every_kill(draw, tmp_path, range(1, 1000)):
        codes.append(code)
        assert only_the_missing
        assert torch.equal(ours, pixels)
        if code == 0:
            break
    assert len(codes) > 15
    assert set(codes[:-1]) == {-signal.SIGKILL}


def at_once(*acts):
    """Each in a process of its own; their exit codes."""
    codes = [None] * len(acts)

    def run(k):
        codes[k] = forked(acts[k])

    threads = [threading.Thread(target=run, args=[k]) for k in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return codes


def checked(draw, expected, **more):
    return lambda: 0 if torch.equal(draw(len(expected), **more)[0], expected) else 7


def test_processes_at_once_draw_each_shard_once_and_all_have_the_same_images(
    draw, denoiser, plan, tmp_path
):
    expected, _ = whole(denoiser, plan, 20)
    acts = [checked(draw, expected, rank=rank, pause=0.01) for rank in (0, 1, 0)]
    assert at_once(*acts) == [0, 0, 0]
    assert drawn_lines(tmp_path / "kept") == [*range(5)]
    pids = {json.loads(x)["pid"] for p in tmp_path.glob("kept/*/drawn.jsonl") for x in p.open()}
    assert len(pids) > 1
    draw(20, tmp_path / "alone")
    assert shard_files(tmp_path / "kept") == shard_files(tmp_path / "alone")


def test_without_claims_processes_would_draw_twice_and_still_be_right(
    draw, denoiser, plan, tmp_path, monkeypatch
):
    """The control, which is also a file system that knows no locks."""
    monkeypatch.setattr(store.owners, "lock", lambda path: open(path, "ab"))  # noqa: SIM115
    expected, _ = whole(denoiser, plan, 12)
    acts = [checked(draw, expected, pause=0.01) for _ in range(3)]
    assert at_once(*acts) == [0, 0, 0]
    drawn = drawn_lines(tmp_path / "kept")
    assert len(drawn) > 3
    assert {*drawn} == {*range(3)}


def test_the_shards_of_a_process_that_was_killed_are_taken_over(draw, denoiser, plan, tmp_path):
    """It is killed in its second shard, which it holds when the other one begins with the rest."""
    expected, _ = whole(denoiser, plan, 16)
    victim = killed_in(lambda: draw(16, pause=0.1), 2 * STEPS)

    def other():
        until(lambda: drawn_by(tmp_path / "kept"))
        return checked(draw, expected, rank=1, pause=0.01)()

    assert at_once(victim, other) == [-signal.SIGKILL, 0]
    drawn = drawn_by(tmp_path / "kept")
    assert [shard for shard, _ in drawn] == [*range(4)]
    assert sorted(Counter(process for _, process in drawn).values()) == [1, 3]


def test_a_full_disk_is_named_and_keeps_what_is_there(draw, tmp_path):
    draw(4)
    said = tmp_path / "said"

    def act():
        try:
            draw(8)
        except NoSpaceError as error:
            print(error)
            return 5

    assert without_room(300, act, said) == 5, said.read_text()
    assert "no space for" in said.read_text()
    assert "shard-000001" in said.read_text()
    assert len(shard_files(tmp_path / "kept")) == 1
    assert draw(8)[2] == STEPS


def test_a_folder_that_cannot_be_written_to_costs_a_warning_and_nothing_is_wrong(
    draw, denoiser, plan, tmp_path, caplog
):
    """A file where the folder should be: root may write everywhere else."""
    (tmp_path / "kept").write_text("")
    pixels, _, calls = draw(12)
    assert torch.equal(pixels, whole(denoiser, plan, 12)[0])
    assert calls == 3 * STEPS
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "images are not kept" in caplog.text
