"""Fetching: the first source that answers and is genuine, once, and never for ever."""

import errno
import http.server
import logging
import multiprocessing
import os
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
from injected import without_room

from diffuse.data import debian, export_hub, open_dataset, sources
from diffuse.data.sources import NoAnswerError, SilentError, Source, download, fetch, watched
from diffuse.errors import DataError, NoSpaceError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def good(target, scratch):
    (target / "data").write_text("genuine")


def altered(target, scratch):
    (target / "data").write_text("something else")


def dead(target, scratch):
    raise NoAnswerError("nobody is home")


def check(folder):
    if (folder / "data").read_text() != "genuine":
        raise DataError("data is altered (checksum)")


def test_sources_are_tried_in_order_until_one_is_genuine(cache, caplog):
    caplog.set_level(logging.INFO, "diffuse.data")
    tried = [Source("first", dead), Source("second", altered), Source("third", good)]
    folder, origin = fetch("set", tried, check, "pray")
    assert (folder / "data").read_text() == "genuine"
    assert "third" in origin
    told = caplog.text
    assert told.index("first: nobody is home") < told.index("second: data is altered")


def test_the_cache_is_used_before_any_source(cache):
    fetch("set", [Source("first", good)], check, "pray")
    folder, _ = fetch("set", [Source("never asked", dead)], check, "pray")
    assert (folder / "data").read_text() == "genuine"


def test_when_nothing_answers_every_source_has_a_line_and_nothing_is_left_behind(cache):
    with pytest.raises(DataError) as caught:
        fetch("set", [Source("first", dead), Source("second", altered)], check, "pray")
    lines = str(caught.value).split("\n")
    assert lines[1:] == [
        f"  the cache: no folder {cache / 'set'}",
        "  first: nobody is home",
        "  second: data is altered (checksum)",
        "  what to do: pray",
    ]
    assert [path.name for path in cache.iterdir()] == ["set.lock"]


def test_what_a_killed_process_left_is_cleared_away(cache):
    left = cache / ".set-killed"
    left.mkdir(parents=True)
    fetch("set", [Source("first", good)], check, "pray")
    assert not left.exists()


def test_a_full_disk_and_a_cache_that_cannot_be_written_are_told_apart(
    cache, tmp_path, monkeypatch
):
    def full(target, scratch):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(NoSpaceError, match="DIFFUSE_CACHE"):
        fetch("set", [Source("first", full)], check, "pray")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DIFFUSE_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="DIFFUSE_CACHE"):
        fetch("set", [Source("first", good)], check, "pray")


def _fetch_counting(barrier, count):
    def slow(target, scratch):
        with Path(count).open("a") as file:
            file.write("fetched\n")
        time.sleep(0.3)
        good(target, scratch)

    barrier.wait()
    folder, _ = fetch("set", [Source("slow", slow)], check, "pray")
    check(folder)


def test_processes_that_start_at_once_fetch_once(tmp_path):
    fork = multiprocessing.get_context("fork")
    barrier, count = fork.Barrier(4), str(tmp_path / "count")
    crowd = [fork.Process(target=_fetch_counting, args=(barrier, count)) for _ in range(4)]
    for process in crowd:
        process.start()
    for process in crowd:
        process.join(20)
    assert [process.exitcode for process in crowd] == [0] * 4
    assert Path(count).read_text() == "fetched\n"


def test_a_command_that_hangs_is_ended(tmp_path):
    started = time.monotonic()
    with pytest.raises(SilentError, match=r"no answer within 1\.5 s"):
        watched(["sh", "-c", "echo $$ > pid; exec sleep 60"], tmp_path, patience=1.5)
    assert time.monotonic() - started < 15
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_slow_command_that_makes_progress_may_go_on(tmp_path):
    program = "for i in 1 2 3 4 5 6 7; do echo $i >> file; sleep 0.2; done"
    watched(["sh", "-c", program], tmp_path, patience=0.7)  # 1.4 s altogether
    assert (tmp_path / "file").read_text().split() == list("1234567")


def test_the_last_line_of_a_command_that_fails_is_the_reason(tmp_path):
    with pytest.raises(NoAnswerError, match=r"^E: no such package$"):
        watched(["sh", "-c", "echo E: no such package; echo bye; exit 7"], tmp_path)
    with pytest.raises(NoAnswerError, match="not installed"):
        watched(["no-such-command"], tmp_path)


def test_a_server_that_accepts_and_says_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file"
        started = time.monotonic()
        with pytest.raises(SilentError):
            download(url, tmp_path / "file", 100)
    assert time.monotonic() - started < 5


class _Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/file" else 404)
        self.end_headers()
        self.wfile.write(b"x" * 1000)

    def log_message(self, *args):
        pass


def test_a_download_is_complete_bounded_and_explains_itself(tmp_path):
    with http.server.HTTPServer(("127.0.0.1", 0), _Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        download(f"{url}/file", tmp_path / "file", 1000)
        assert (tmp_path / "file").read_bytes() == b"x" * 1000
        with pytest.raises(NoAnswerError, match="larger than the 999 bytes"):
            download(f"{url}/file", tmp_path / "larger", 999)
        with pytest.raises(NoAnswerError, match="404"):
            download(f"{url}/other", tmp_path / "other", 1000)
        server.shutdown()


def test_a_download_without_room_is_no_space_and_nobody_else_is_asked(cache, tmp_path):
    said = tmp_path / "said"
    with http.server.HTTPServer(("127.0.0.1", 0), _Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/file"

        def large(target, scratch):
            download(url, scratch / "data", 1000)

        def act():
            try:
                fetch("set", [Source("large", large), Source("other", good)], check, "pray")
            except NoSpaceError as error:
                print(error)
                return error.exit_code

        assert without_room(500, act, said) == 5, said.read_text()
        server.shutdown()
    assert str(cache / "set") in said.read_text()


@pytest.mark.parametrize(
    "line", ["exit 28", "echo 'E: write (28: No space left on device)'; exit 100"]
)
def test_a_command_without_room_is_not_one_without_an_answer(line, tmp_path):
    with pytest.raises(OSError, match="No space left on device") as caught:
        watched(["sh", "-c", line], tmp_path)
    assert caught.value.errno == errno.ENOSPC


def test_an_error_that_hides_a_full_disk_is_one():
    hiding = RuntimeError("generation failed")
    hiding.__cause__ = OSError(errno.EDQUOT, "Disk quota exceeded")
    assert export_hub._is_full(hiding)
    assert not export_hub._is_full(OSError(errno.ENOENT, "No such file or directory"))


APT = """#!/bin/sh
echo "$@" >> %(log)s
case "$*" in
    *Dir::State::Lists*update) exit 100 ;;  # one of several repositories is dead
    *Dir::State::Lists*download*) touch thing_1_all.deb ;;
    *) echo "E: Unable to locate package thing"; exit 100 ;;
esac
"""


def test_package_lists_are_refreshed_into_a_folder_of_our_own(tmp_path, monkeypatch):
    programs, scratch, log = tmp_path / "bin", tmp_path / "scratch", tmp_path / "log"
    programs.mkdir()
    scratch.mkdir()
    for name, text in {
        "apt-get": APT % {"log": log},
        "dpkg-deb": '#!/bin/sh\nmkdir "$3"; touch "$3/thing"\n',
    }.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    assert (debian.unpack_package("thing", scratch) / "thing").exists()
    first, update, second = log.read_text().splitlines()
    assert "Lists" not in first
    assert f"Dir::State::Lists={scratch}" in update
    assert f"Dir::State::Lists={scratch}" in second


@pytest.mark.slow
def test_the_real_fashion_mnist_comes_out_of_debians_package(monkeypatch):
    room = sys.modules["diffuse.data.fashion_mnist"]
    monkeypatch.setattr(room, "SOURCES", room.SOURCES[-1:])
    train, test = (
        open_dataset({"name": "fashion_mnist", "fit": "pad"}, s) for s in ("train", "test")
    )
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.labels.bincount().tolist() == [6000] * 10
    assert "Debian" in train.source
    assert (train.images.double().mean() / 255 * (32 / 28) ** 2).item() == pytest.approx(
        0.2860, abs=1e-4
    )
