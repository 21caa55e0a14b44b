"""Opening a file of a machine from outside, without being led out of it."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import IO

__all__ = ["open_below"]

_WAY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_below(root: Path, path: str) -> IO[bytes] | None:
    """A regular file below a directory, to be read; None if there is none.

    No symbolic link is followed, neither at the end nor on the way: it would be resolved as seen
    from here, not from the machine.

    Args:
        root: What the machine sees as `/`.
        path: As the machine sees it; has no `..` in it.
    """
    *way, name = [part for part in path.split("/") if part]
    assert ".." not in (*way, name)
    with contextlib.ExitStack() as stack:
        try:
            # The root itself may be a link of the kernel's, such as /proc/PID/root.
            at = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, at)
            for part in way:
                at = os.open(part, _WAY, dir_fd=at)
                stack.callback(os.close, at)
            # Nothing but a regular file may be opened: even that has effects on a device or pipe.
            if not stat.S_ISREG(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
                return None
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            file = os.open(name, flags, dir_fd=at)
        except (OSError, ValueError):
            return None
    if not stat.S_ISREG(os.fstat(file).st_mode):  # it was replaced meanwhile
        os.close(file)
        return None
    return os.fdopen(file, "rb")
