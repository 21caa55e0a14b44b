"""The machine of an engine's probe, which also shows whether machines can have block devices."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from pytest_flymachines.emulator.engines import disks
from pytest_flymachines.emulator.engines.base import (
    Engine,
    EngineError,
    GuestMount,
    MachineConfigForEngine,
    RunningMachine,
)

__all__ = ["TIMEOUT_S", "machine", "unlimited", "with_disk_or_without"]

TIMEOUT_S = 20.0
"""Within which a command in the machine of a probe has ended."""

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


@contextlib.asynccontextmanager
async def machine(
    engine: Engine,
    *,
    disk: bool,
    below: Path | None = None,
    image: str = "",
    argv: Sequence[str] | None = None,
    private_ip: str = "::1",
) -> AsyncIterator[RunningMachine]:
    """A machine of a probe, ended and removed afterwards.

    Args:
        engine: Starts it.
        disk: Give it a disk, and see that it is where the emulator will look for it.
        below: Where its directory is made; None is the computer's place for such.
        image: Of its config.
        argv: Of its main process, which must stay; None is the engine's.
        private_ip: Its 6PN address.

    Raises:
        EngineError, DiskError, OSError: It could not be started, or the disk not be found in it.
    """
    with (
        tempfile.TemporaryDirectory(dir=below, prefix="pytest-flymachines-probe-") as directory,
        _disk(Path(directory), wanted=disk) as mounts,
    ):
        path = Path(directory, "machine")
        path.mkdir()
        config = MachineConfigForEngine(
            id="probe",
            app="probe",
            directory=path,
            image=image,
            argv=argv,
            hostname="probe",
            private_ip=private_ip,
            mounts=mounts,
            log=path / "log",
        )
        try:
            started = await engine.start(config)
            try:
                await asyncio.to_thread(_look, started, mounts)
                yield started
            finally:
                await started.kill()
        finally:
            await engine.discard(path)


@contextlib.contextmanager
def _disk(directory: Path, *, wanted: bool) -> Iterator[list[GuestMount]]:
    """A small one for a machine; none if it is not wanted."""
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


def _look(machine: RunningMachine, mounts: list[GuestMount]) -> None:
    for mount in mounts:
        place = machine.mounted(mount)
        if place is None or not (place / "lost+found").is_dir():
            raise EngineError(f"{mount.device} is not found where a machine has it mounted")
