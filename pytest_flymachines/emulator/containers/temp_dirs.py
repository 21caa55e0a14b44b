"""The directories that containers of a machine share, by `config.volumes[].temp_dir`."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from pytest_flymachines.emulator.engines.base import Engine, EngineError, GuestMount
from pytest_flymachines.emulator.engines.disks import Disk, DiskError
from pytest_flymachines.emulator.model import Machine

__all__ = ["TempDirs"]

_MIB = 2**20
_MODE = 0o1777


class TempDirs:
    """Those of all machines; each lasts as long as a run of its machine.

    One of a size is a disk where the engine takes such, whatever its `storage_type`.

    Args:
        engine: Runs the machines.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._disks: dict[str, list[Disk]] = {}

    async def make(self, machine: Machine, directory: Path) -> dict[str, GuestMount]:
        """New ones for a run, by name; where they appear is for each container to say.

        Args:
            machine: The record.
            directory: Its own.

        Raises:
            EngineError: A disk could not be made.
        """
        self.drop(machine.id)
        below = directory / "shared"
        await asyncio.to_thread(shutil.rmtree, below, ignore_errors=True)
        mounts = {}
        for volume in machine.config.volumes or ():
            source = below / volume.name
            source.mkdir(parents=True)
            source.chmod(_MODE)
            size_mb = volume.temp_dir.size_mb if volume.temp_dir else 0
            device = ""
            if size_mb > 0 and self._engine.takes_devices:
                disk = Disk(below / f"{machine.id}-{volume.name}.ext4")
                try:
                    await asyncio.to_thread(disk.make, size_mb * _MIB, mode=_MODE)
                    device = await asyncio.to_thread(disk.attach)
                except DiskError as error:
                    raise EngineError(f"volume {volume.name}: {error}") from error
                self._disks.setdefault(machine.id, []).append(disk)
            mounts[volume.name] = GuestMount(source, "", device)
        return mounts

    def drop(self, machine_id: str) -> None:
        """Let go of a machine's, which nobody needs any more."""
        for disk in self._disks.pop(machine_id, ()):
            disk.detach()

    def close(self) -> None:
        """Let go of all of them."""
        for machine_id in list(self._disks):
            self.drop(machine_id)
