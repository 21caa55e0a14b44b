"""Notice the end of the process that owns this emulator, however it ends."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable
from pathlib import Path

__all__ = ["OwnerGone", "watch"]

START_TIME = 19  # of the fields of /proc/PID/stat that follow the name


class OwnerGone(Exception):
    """The process that should own this emulator has ended."""


def watch(pid: int, gone: Callable[[], None]) -> Callable[[], None]:
    """Call `gone` once the process has ended.

    A process that started after this one is not the owner: it got the number of one that ended.

    Returns:
        Ends the watch.

    Raises:
        OwnerGone: It has ended already.
    """
    try:
        pidfd = os.pidfd_open(pid)
        late = _started(pid) > _started(os.getpid())
    except (ProcessLookupError, FileNotFoundError):
        raise OwnerGone(f"process {pid}, which should own this emulator, is gone") from None
    if late or select.select([pidfd], [], [], 0)[0]:
        os.close(pidfd)
        raise OwnerGone(f"process {pid}, which should own this emulator, is gone")
    loop = asyncio.get_running_loop()

    def ended() -> None:
        loop.remove_reader(pidfd)
        gone()

    loop.add_reader(pidfd, ended)

    def stop() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)

    return stop


def _started(pid: int) -> int:
    """When a process started, in clock ticks since boot."""
    stat = Path(f"/proc/{pid}/stat").read_text("latin-1")  # its name may be any bytes
    return int(stat.rpartition(")")[2].split()[START_TIME])
