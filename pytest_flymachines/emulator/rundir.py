"""The emulator's private directory: locked while it lives, swept by the next one when not."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TextIO

__all__ = ["RunDirectory", "StateLocked", "dead_directories", "lock_state"]

PREFIX = "pytest-flymachines-emulator-"
LOCK = "lock"


class StateLocked(Exception):
    """Another emulator uses this state directory."""


class RunDirectory:
    """A directory of this user's alone, below the temporary directory."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getuid()}-"))
        self._lock = (self.path / LOCK).open("a")
        # A sweep may hold it for a moment, and lets go of a lock that has no content yet.
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._lock.write(f"{os.getpid()}\n")
        self._lock.flush()

    async def remove(self, discard: Callable[[Path], Awaitable[None]]) -> None:
        """Remove it; `discard` removes what an engine left in it."""
        await discard(self.path)
        self._lock.close()


def lock_state(directory: Path) -> TextIO:
    """Take a state directory for this process, and make it if need be.

    Returns:
        What must be kept open as long as the directory is in use.

    Raises:
        StateLocked: Another emulator has it.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = (directory / LOCK).open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise StateLocked(f"state directory {directory} is in use by another emulator") from None
    return lock


def dead_directories() -> list[Path]:
    """Directories that emulators of this user left behind when they were killed."""
    dead = []
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}{os.getuid()}-*"):
        try:
            if path.lstat().st_uid == os.getuid() and not path.is_symlink() and _is_dead(path):
                dead.append(path)
        except OSError:  # in use, or gone meanwhile
            continue
    return dead


def _is_dead(path: Path) -> bool:
    """Whether nobody holds its lock, and somebody once did."""
    with (path / LOCK).open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return (path / LOCK).stat().st_size > 0
