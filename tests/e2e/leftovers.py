"""What runs on this computer and lies in its temporary directory, to see what a run leaves."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["alive", "emulators", "until"]


def alive(mark: str) -> list[str]:
    """Command lines of this computer's processes that contain `mark`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if mark in line and str(os.getpid()) != path.parent.name:
            found.append(line)
    return found


def emulators(scratch: Path) -> list[str]:
    """Directories of emulators; pytest's own base temp is pytest's to rotate."""
    return [str(p) for p in scratch.iterdir() if not p.name.startswith("pytest-of-")]


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition; false if it did not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
