"""Checkpoints, with a fault injected at every point of a second save and in every file of one."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from injected import Killed
from places import ROOT

from diffuse import checkpoints, files
from diffuse.errors import DataError, NoSpaceError

FILES = ["ema.safetensors", "model.safetensors", "state.json", checkpoints.MANIFEST]


def save(folder, step, fill=None):
    tensors = {"w": torch.full((50,), float(step if fill is None else fill))}
    return checkpoints.save(folder, step, {"model": tensors, "ema": tensors}, {"step": step})


def value(path):
    return checkpoints.load_tensors(path, "model")["w"][0].item()


SYSTEM = ("open", "fsync", "rename", "mkdir", "close")


def dies_at(monkeypatch, call):
    """Let the process die at the call-th system call of a save; returns how many there were."""
    count = [0]

    def dying(real):
        def wrapped(*args, **kwargs):
            count[0] += 1
            if count[0] >= call:  # whoever is dead does not tidy up, either
                raise Killed
            return real(*args, **kwargs)

        return wrapped

    for name in SYSTEM:
        monkeypatch.setattr(os, name, dying(getattr(os, name)))
    monkeypatch.setattr("builtins.open", dying(open))
    # nothing is tidied up by a process that is dead
    monkeypatch.setattr(checkpoints.shutil, "rmtree", dying(checkpoints.shutil.rmtree))
    return count


def test_a_save_that_a_signal_stops_leaves_nothing(tmp_path, monkeypatch):
    def stopped(folder):
        raise SystemExit(143)

    monkeypatch.setattr(files, "sync_folder", stopped)
    with pytest.raises(SystemExit):
        checkpoints.save(tmp_path, 1, {"model": {"w": torch.ones(1)}}, {})
    assert not list(tmp_path.iterdir())


def test_saving_a_step_again_never_leaves_it_without_a_checkpoint(tmp_path):
    """One that is kept alone may be saved twice: for its score and by the clock."""
    for call in range(1, 60):
        folder = tmp_path / str(call)
        save(folder, 1)
        with pytest.MonkeyPatch.context() as patch:
            count = dies_at(patch, call)
            try:
                save(folder, 1)
            except Killed:
                assert checkpoints.newest(folder) is not None
                continue
        assert count[0] < call
        return


def test_a_damaged_checkpoint_is_replaced_when_training_passes_it_again(tmp_path):
    path = save(tmp_path, 5, fill=1)
    (path / "model.safetensors").write_bytes(b"")
    save(tmp_path, 5, fill=2)
    checkpoints.verify(path)
    assert value(path) == 2


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES = {
    "one flipped bit": flipped,
    "cut short": lambda content: content[:-7],
    "empty": lambda content: b"",
    "longer": lambda content: content + b"x",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("name", FILES)
def test_damage_to_any_file_is_found_and_named_and_passed_over(name, damage, tmp_path, caplog):
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    content = (path / name).read_bytes()
    (path / name).write_bytes(damage(content))
    with pytest.raises(DataError) as caught:
        checkpoints.verify(path)
    assert name in str(caught.value) or name == checkpoints.MANIFEST
    assert str(path) in str(caught.value)
    assert checkpoints.newest(tmp_path) == checkpoints.at(tmp_path, 1)
    assert "looking for an older checkpoint" in caplog.text


def test_one_that_its_training_deletes_while_it_is_looked_at_is_not_damaged(
    tmp_path, monkeypatch, caplog
):
    save(tmp_path, 1)
    verify = checkpoints.verify

    def slow(path):
        if path == checkpoints.at(tmp_path, 1):
            save(tmp_path, 2)
            checkpoints.purge(tmp_path, keep=1)
        verify(path)

    monkeypatch.setattr(checkpoints, "verify", slow)
    assert checkpoints.newest(tmp_path) == checkpoints.at(tmp_path, 2)
    assert caplog.text == ""


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_gone_is_named(name, tmp_path):
    path = save(tmp_path, 1)
    (path / name).unlink()
    with pytest.raises(DataError, match=name):
        checkpoints.verify(path)
    assert checkpoints.newest(tmp_path) is None


def test_the_manifest_is_written_last_and_knows_every_byte(tmp_path):
    path = save(tmp_path, 1)
    manifest = json.loads((path / checkpoints.MANIFEST).read_text())
    assert {*manifest, checkpoints.MANIFEST} == {p.name for p in path.iterdir()} == set(FILES)
    assert checkpoints.sha256(path, "ema") == manifest["ema.safetensors"]["sha256"]


def test_what_is_renamed_is_on_the_disk_and_what_is_linked_is_renamed(tmp_path, monkeypatch):
    """Each step of a save outlasts a power cut before the next one begins."""
    done, folder = [], tmp_path / "run/checkpoints"
    folder.parent.mkdir()

    def noted(word, real):
        def call(*args):
            what = os.readlink(f"/proc/self/fd/{args[0]}") if word == "fsync" else str(args[0])
            done.append((word, Path(what).name.rsplit("-", 1)[0]))
            return real(*args)

        return call

    for word in ("fsync", "rename", "replace"):
        monkeypatch.setattr(os, word, noted(word, getattr(os, word)))
    save(folder, 1)
    words = [word for word, _ in done]
    synced = [name for word, name in done[: words.index("rename")] if word == "fsync"]
    assert sorted(synced[:-2]) == sorted(set(FILES) - {checkpoints.MANIFEST})
    assert synced[-2:] == [checkpoints.MANIFEST, ".tmp-step_00000001"]
    after, link = done[words.index("rename") :], done[-2][1]
    assert after == [
        ("rename", ".tmp-step_00000001"), ("fsync", "checkpoints"), ("fsync", "run"),
        ("replace", link), ("fsync", "checkpoints"),
    ]  # fmt: skip
    assert link.startswith(".latest")
    done.clear()
    save(folder, 2)
    assert ("fsync", "run") not in done  # it is there


FILLS = """
import resource, signal, sys, torch
from pathlib import Path
from diffuse import checkpoints, files
from diffuse.errors import NoSpaceError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = Path(sys.argv[1])
small, large = ({"model": {"w": torch.zeros(n)}} for n in (10, 100_000))
checkpoints.save(folder, 1, small, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    checkpoints.save(folder, 2, large, {})
except NoSpaceError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_a_file_that_may_not_grow_is_no_space_and_the_old_checkpoint_stays(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FILLS, str(tmp_path)],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert "step_00000002" in done.stdout
    assert "400," in done.stdout  # the bytes it would have taken
    assert checkpoints.steps(tmp_path) == [1]
    checkpoints.verify(checkpoints.at(tmp_path, 1))
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", [2, 4, 6])
def test_a_full_disk_is_no_space_wherever_it_is_noticed(call, code, tmp_path, monkeypatch):
    save(tmp_path, 1)
    real, count = os.fsync, [0]

    def full(descriptor):
        count[0] += 1
        if count[0] == call:
            raise OSError(code, os.strerror(code))
        return real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoSpaceError, match=r"no space for .*step_00000002 \([\d,]+ bytes\)"):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert value(checkpoints.newest(tmp_path)) in (1.0, 2.0)
    assert not list(tmp_path.glob(".tmp-*"))


def test_the_newest_are_kept_and_the_protected_and_what_a_living_process_writes(tmp_path):
    for step in (1, 2, 3, 4, 5):
        save(tmp_path, step)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    pids = (gone.pid, os.getppid(), os.getpid())  # a namesake's: in containers numbers are small
    dead, living, namesake = (tmp_path / f".tmp-step_9-{pid}" for pid in pids)
    for left in (dead, living, namesake):
        left.mkdir()
    checkpoints.purge(tmp_path, keep=2, protect=[1])
    assert checkpoints.steps(tmp_path) == [1, 4, 5]
    assert (dead.exists(), living.exists(), namesake.exists()) == (False, True, False)


def test_what_is_packed_is_unpacked():
    state = {
        "state": {0: {"step": torch.tensor(3.0), "m": torch.eye(2)}, 12: {"m": torch.zeros(0)}},
        "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99), "params": [0, 12], "foreach": None}],
        "flag": True,
    }
    tensors = {}
    packed = json.loads(json.dumps(checkpoints.pack(state, tensors)))
    back = checkpoints.unpack(packed, tensors)
    assert set(back["state"]) == {0, 12}
    assert torch.equal(back["state"][0]["m"], torch.eye(2))
    assert back["state"][0]["step"].item() == 3
    assert back["param_groups"] == [{**state["param_groups"][0], "betas": [0.9, 0.99]}]
    assert back["flag"] is True
    assert len(tensors) == 3


def test_tied_weights_are_written_twice_and_read_back(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3)
    tied = {"first": weight, "second": weight, "row": weight[1]}
    path = checkpoints.save(tmp_path, 1, {"model": tied}, {"step": 1})
    loaded = checkpoints.load_tensors(path, "model")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tied.items())


def test_a_manifest_with_a_name_twice_is_found_though_each_file_it_names_is_whole(tmp_path):
    """One bit makes ema_0.9980 of it ema_0.9990, and JSON would take the later one of two."""
    tensors = {name: {"w": torch.ones(2)} for name in ("model", "ema_0.9980", "ema_0.9990")}
    path = checkpoints.save(tmp_path, 1, tensors, {})
    manifest = path / checkpoints.MANIFEST
    text = manifest.read_bytes()
    manifest.write_bytes(text.replace(b"ema_0.9980", b"ema_0.9990"))
    with pytest.raises(DataError, match="no readable MANIFEST"):
        checkpoints.verify(path)
    manifest.write_bytes(text)
    checkpoints.verify(path)


def test_a_file_of_weights_that_no_manifest_knows_is_found(tmp_path):
    path = save(tmp_path, 1)
    for name in ("._model", "ema_fp16"):  # of a file system, and somebody's own
        shutil.copy(path / "ema.safetensors", path / f"{name}.safetensors")
    checkpoints.verify(path)
    shutil.copy(path / "ema.safetensors", path / "ema_0.9990.safetensors")
    with pytest.raises(DataError, match=r"ema_0\.9990\.safetensors is not in MANIFEST"):
        checkpoints.verify(path)
