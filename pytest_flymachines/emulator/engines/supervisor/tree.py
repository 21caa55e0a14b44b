"""The descendants of a process, by /proc, and their end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["children", "descendants", "kill_children", "kill_tree"]


def children(pid: int) -> list[int]:
    """The direct children of a process; none if it is gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found


def descendants(pid: int) -> Iterator[int]:
    """All processes below one, parents before their children."""
    for child in children(pid):
        yield child
        yield from descendants(child)


def kill_tree(pid: int, *, itself: bool = True) -> None:
    """Kill a process and all below it that have not been adopted by somebody else.

    They are stopped first, so that none forks while the others are being killed.
    """
    seen: set[int] = set()
    while fresh := [p for p in _tree(pid, itself=itself) if p not in seen]:
        for process in fresh:
            _signal(process, signal.SIGSTOP)
        seen.update(fresh)
    for process in seen:
        _signal(process, signal.SIGKILL)


def kill_children(reaped: Callable[[int, int], None]) -> None:
    """Kill and reap every descendant of this process, a subreaper, until none is left.

    Args:
        reaped: Told the pid and the wait status of each.
    """
    while True:
        kill_tree(os.getpid(), itself=False)
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                reaped(*ended)
        except ChildProcessError:
            return
        time.sleep(0.002)


def _tree(pid: int, *, itself: bool) -> Iterator[int]:
    if itself:
        yield pid
    yield from descendants(pid)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
