"""What runs on this computer and lies in its temporary directory, to see what a run leaves."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_flymachines.emulator.engines.supervisor.tree import children, descendants

__all__ = ["alive", "descending", "emulators"]

_SET_CHILD_SUBREAPER = 36


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


@contextlib.contextmanager
def descending() -> Iterator[Callable[[], list[str]]]:
    """Gives what lists the processes that descend from this one since now.

    Meanwhile this process adopts orphans in init's stead, so none gets out of sight. What was
    there before, such as an emulator of other tests, may go on making processes of its own.
    """
    libc = ctypes.CDLL(None)
    me = os.getpid()
    before = set(children(me))

    def look() -> list[str]:
        for pid in set(children(me)) - before:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        fresh = set(children(me)) - before
        return [_shown(pid) for child in fresh for pid in (child, *descendants(child))]

    libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield look
    finally:
        libc.prctl(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _shown(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        words = b""
    return f"{pid}: {words.replace(bytes(1), b' ').decode(errors='replace')}"


def emulators(scratch: Path) -> list[str]:
    """Directories of emulators; pytest's own base temp is pytest's to rotate."""
    return [str(p) for p in scratch.iterdir() if not p.name.startswith("pytest-of-")]
