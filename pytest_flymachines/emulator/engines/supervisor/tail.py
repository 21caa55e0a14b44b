"""The log of a machine: what its main process wrote last, however much it writes."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

__all__ = ["KEPT_BYTES", "PIECE_BYTES", "Tail", "open_log"]

KEPT_BYTES = 1024 * 1024
"""At least this much of the end is kept, and at most twice as much lies on the disk."""

PIECE_BYTES = 64 * 1024
"""How much is written at once, at most."""


def open_log(path: Path) -> int:
    """A descriptor for `Tail`."""
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


class Tail:
    """Appends to a file, and cuts off its beginning when it has become too long.

    Several can write to one file. A full disk loses output and disturbs nobody: it is not the
    machine's fault.

    Args:
        fd: From `open_log`, for this alone; stays the caller's.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, piece: bytes) -> None:
        """Append."""
        with contextlib.suppress(OSError):
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                os.write(self._fd, piece)
                size = os.fstat(self._fd).st_size
                if size > 2 * KEPT_BYTES:
                    self._cut(size)
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _cut(self, size: int) -> None:
        tail = os.pread(self._fd, KEPT_BYTES, size - KEPT_BYTES)
        # Begin with a whole line, if they are not endless.
        tail = tail[tail.find(b"\n", 0, PIECE_BYTES) + 1 :]
        # What is appended always lands at the end, also what is written at an offset.
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        fcntl.fcntl(self._fd, fcntl.F_SETFL, flags & ~os.O_APPEND)
        try:
            os.ftruncate(self._fd, os.pwrite(self._fd, tail, 0))
        finally:
            fcntl.fcntl(self._fd, fcntl.F_SETFL, flags)
