"""Finding out, with the machine of an engine's probe, whether machines can have block devices."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

from pytest_flymachines.emulator.engines import disks
from pytest_flymachines.emulator.engines.base import EngineError, GuestMount, RunningMachine

__all__ = ["disk", "look", "unlimited", "with_disk_or_without"]

T = TypeVar("T")

_SIZE_BYTES = 8 * 2**20


async def with_disk_or_without(attempt: Callable[[bool], Awaitable[T]]) -> tuple[T, str]:
    """Start a machine with a disk or, if that fails, without.

    Args:
        attempt: Starts a machine, with a disk if it is told to, and raises `EngineError`, `OSError`
            or `DiskError`.

    Returns:
        What it gave, and why it was without a disk; empty if it had one.
    """
    why = disks.missing()
    if not why:
        try:
            return await attempt(True), ""
        except (EngineError, disks.DiskError, OSError) as error:
            why = str(error)
    return await attempt(False), why


def unlimited(why: str) -> tuple[str, ...]:
    """What a user should know where machines have no disks."""
    return (f"volumes are directories, without a limit of their size ({why})",) if why else ()


@contextlib.contextmanager
def disk(directory: Path, *, wanted: bool) -> Iterator[list[GuestMount]]:
    """A small one for a machine; none if it is not wanted.

    Raises:
        DiskError: There can be none.
    """
    if not wanted:
        yield []
        return
    # Of a name that no other emulator's has, by which a device is found again.
    made = disks.Disk(directory / f"{directory.name}.ext4")
    made.make(_SIZE_BYTES)
    source = directory / "disk"
    source.mkdir()
    try:
        yield [GuestMount(source, "/mnt", made.attach())]
    finally:
        made.detach()
        made.file.unlink()


def look(machine: RunningMachine, mounts: list[GuestMount]) -> None:
    """See that the disk is where the emulator will look for it.

    Raises:
        EngineError: It is not.
    """
    for mount in mounts:
        place = machine.mounted(mount)
        if place is None or not (place / "lost+found").is_dir():
            raise EngineError(f"{mount.device} is not found where a machine has it mounted")
