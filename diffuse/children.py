"""Processes of our own: they import what we do, and end when we do."""

import os
import subprocess
import sys
import threading
from typing import Any


def start(module: str, *words: str, **how: Any) -> "subprocess.Popen[Any]":
    """`python -m module words`; its stdin is a pipe whose end tells it that we are gone.

    It imports from the places that this process does: never from the folder it is started in.
    """
    places = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": places},
        start_new_session=True,  # Ctrl-C is for us
        **how,
    )


def end_with_parent(code: int) -> None:
    """In such a process, from now on: its stdin ends when its parent is gone, however it went."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os._exit(code)

    threading.Thread(target=wait, daemon=True).start()
