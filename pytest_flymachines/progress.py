"""What is told while a run goes on: the steps of a launch, and the tries that failed.

A worker has no terminal: it writes to a file, and the controller shows what is new in it.
"""

from __future__ import annotations

import os
import threading
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

__all__ = ["Progress", "Relay", "silent", "write_to"]

_LOOK_EVERY_S = 0.25


class Progress(Protocol):
    """Tells a user what happens.

    Args:
        text: One line.
        verbosity: pytest's verbosity from which on it is shown: 0 by default, 1 with `-v`.
    """

    def __call__(self, text: str, verbosity: int = 0) -> None:
        """Tell."""


def silent(text: str, verbosity: int = 0) -> None:
    """Tells nobody."""


def write_to(file: Path) -> Progress:
    """Tells whoever reads the file, such as a `Relay`."""
    return partial(_write, file)


def _write(file: Path, text: str, verbosity: int = 0) -> None:
    line = msgspec.json.encode([text, verbosity]) + b"\n"
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, line)  # whole: it is short, and the file is open for appending
    finally:
        os.close(handle)


class Relay:
    """Shows what workers on this computer tell, until closed.

    Args:
        file: To which they write.
        show: Shows it.
    """

    def __init__(self, file: Path, show: Progress) -> None:
        self._file = file
        self._show = show
        self._shown = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="fly-progress", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Show what is left, and stop."""
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(_LOOK_EVERY_S):
            self._look()
        self._look()

    def _look(self) -> None:
        try:
            with self._file.open("rb") as file:
                file.seek(self._shown)
                new = file.read()
        except FileNotFoundError:
            return
        whole = new[: new.rfind(b"\n") + 1]
        self._shown += len(whole)
        for line in whole.splitlines():
            text, verbosity = msgspec.json.decode(line, type=tuple[str, int])
            self._show(text, verbosity)
