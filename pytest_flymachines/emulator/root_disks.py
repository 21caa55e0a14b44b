"""Root file systems that have a size, by `config.rootfs.size_gb`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pytest_flymachines.emulator.engines.base import Engine, EngineError, GuestMount
from pytest_flymachines.emulator.engines.disks import Disk, DiskError
from pytest_flymachines.emulator.model import Machine

__all__ = ["RootDisks"]

GIB = 1024**3


class RootDisks:
    """The disks that machines write their root file systems on.

    Args:
        engine: Runs the machines.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._disks: dict[str, Disk] = {}

    async def disk_of(self, machine: Machine, directory: Path) -> GuestMount | None:
        """That of a machine, made if it has none; None where a root has no size.

        Args:
            machine: The record.
            directory: Its own, which is new if its root file system is to be.

        Raises:
            EngineError: It could not be made.
        """
        size_gb = machine.config.rootfs.size_gb if machine.config.rootfs else 0
        if not size_gb or not (self._engine.takes_devices and self._engine.sizes_root):
            return None
        source = directory / "disk"
        source.mkdir(exist_ok=True)
        disk = self._disks.setdefault(machine.id, Disk(directory / f"{machine.id}.ext4"))
        try:
            if not disk.file.exists():
                await asyncio.to_thread(disk.make, size_gb * GIB)
            return GuestMount(source, "/", await asyncio.to_thread(disk.attach))
        except DiskError as error:
            raise EngineError(str(error)) from error

    def drop(self, machine_id: str) -> None:
        """Let go of a machine's, which nobody needs any more."""
        if disk := self._disks.pop(machine_id, None):
            disk.detach()

    def close(self) -> None:
        """Let go of all of them."""
        for machine_id in list(self._disks):
            self.drop(machine_id)
