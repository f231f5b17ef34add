"""Processes beside each other: of our own, which end when we do, and those of torchrun."""

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


def under_torchrun() -> bool:
    """Were we started by torchrun, or something like it, beside others?"""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def is_led() -> bool:
    """And not as the first of them, which says for all what there is to say."""
    return under_torchrun() and os.environ["RANK"] != "0"
