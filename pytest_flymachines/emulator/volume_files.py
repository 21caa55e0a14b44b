"""What volumes and snapshots are made of: disks where the engine takes them, else directories.

A disk is a file `<id>.ext4`; an empty directory beside it, `<id>`, is where machines have it
mounted. A directory is `<id>` alone. What was made in one way stays so, whatever a later emulator
could do.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from pytest_flymachines.emulator.engines.base import (
    Engine,
    EngineError,
    GuestMount,
    RunningMachine,
)
from pytest_flymachines.emulator.engines.disks import Disk, DiskError, used_bytes

__all__ = ["VolumeFiles"]

GIB = 1024**3
# Copied while nothing writes to it, and let go of whatever becomes of the emulator.
FREEZE = 'fsfreeze -f "$1" && { shift; "$@"; ended=$?; fsfreeze -u "$0"; exit $ended; }'


class VolumeFiles:
    """The contents of all volumes and snapshots, by id.

    Args:
        directory: Where they lie.
        engine: Runs the machines that have them.
    """

    def __init__(self, directory: Path, engine: Engine) -> None:
        self._directory = directory
        self._engine = engine
        self._disks: dict[str, Disk] = {}

    def mount(self, volume: str, path: str) -> GuestMount:
        """A volume in a machine; its device is attached from now on.

        Raises:
            EngineError: It is a disk, and nobody can mount it here.
        """
        source = self._directory / volume
        disk = self._disk(volume)
        if disk is None:
            return GuestMount(source, path)
        if not self._engine.takes_devices:
            raise EngineError(
                f"volume {volume} is a disk, which root made; this emulator runs without root, or "
                f"with an engine (now {self._engine.name}) that cannot mount it"
            )
        try:
            device = disk.attach()
            disk.fit()
        except DiskError as error:
            raise EngineError(str(error)) from error
        return GuestMount(source, path, device)

    async def make(
        self, new: str, size_gb: int, source: str = "", holder: RunningMachine | None = None
    ) -> None:
        """Make a volume or snapshot: empty, or as a copy.

        Args:
            new: Its id; nothing of it is there yet.
            size_gb: Of a disk.
            source: Id of what is copied, if anything is.
            holder: The machine that has it mounted now, if any has.

        Raises:
            EngineError: It could not be made.
        """
        target = self._directory / new
        await asyncio.to_thread(target.mkdir, 0o755)
        original = self._disk(source) if source else None
        try:
            if original is not None:
                await self._copy_disk(original, source, holder, self._file(new))
                await asyncio.to_thread(Disk(self._file(new)).grow, size_gb * GIB)
            elif self._engine.takes_devices:
                content = self._directory / source if source else None
                made = Disk(self._file(new))
                await asyncio.to_thread(made.make, size_gb * GIB, content)
            elif source:
                copy = ["cp", "-aT", "--reflink=auto", "--", str(self._directory / source)]
                await _run([*copy, str(target)])
            else:
                (target / "lost+found").mkdir(mode=0o700)
        except (DiskError, OSError) as error:
            raise EngineError(f"could not make {new}: {error}") from error

    def grow(self, volume: str, size_gb: int, holder: RunningMachine | None) -> bool:
        """Make it larger.

        Returns:
            Whether the machine that has it sees that only after a restart.

        Raises:
            EngineError: It could not be made larger.
        """
        disk = self._disk(volume)
        if disk is None:
            return False
        try:
            disk.grow(size_gb * GIB)
        except OSError as error:
            raise EngineError(f"could not extend {volume}: {error}") from error
        return holder is not None and not disk.fit_mounted(self._place(volume, holder))

    async def used_bytes(self, volume: str, holder: RunningMachine | None = None) -> int:
        """How much of it is used."""
        disk = self._disk(volume)
        if disk is None:
            return await asyncio.to_thread(_size_of_tree, self._directory / volume)
        return await asyncio.to_thread(self._used, disk, self._place(volume, holder))

    async def remove(self, volume: str) -> None:
        """Remove it, if it is there."""
        if (disk := self._disk(volume)) is not None:
            disk.detach()
            disk.file.unlink()
            self._disks.pop(volume, None)
        if (self._directory / volume).exists():
            await self._engine.discard(self._directory / volume)

    def close(self) -> None:
        """Let go of all devices."""
        for disk in self._disks.values():
            disk.detach()

    def _file(self, volume: str) -> Path:
        return self._directory / f"{volume}.ext4"

    def _disk(self, volume: str) -> Disk | None:
        if volume not in self._disks and self._file(volume).exists():
            self._disks[volume] = Disk(self._file(volume))
        return self._disks.get(volume)

    def _place(self, volume: str, holder: RunningMachine | None) -> Path | None:
        disk = self._disk(volume)
        if holder is None or disk is None:
            return None
        return holder.mounted(GuestMount(self._directory / volume, "", disk.path))

    def _used(self, disk: Disk, place: Path | None) -> int:
        found = disk.mounted_at(place)
        if found < 0:
            return used_bytes(disk.file)
        try:
            status = os.fstatvfs(found)
        finally:
            os.close(found)
        return (status.f_blocks - status.f_bfree) * status.f_frsize

    async def _copy_disk(
        self, disk: Disk, volume: str, holder: RunningMachine | None, target: Path
    ) -> None:
        copy = ["cp", "--sparse=always", "--reflink=auto", "--", str(disk.file), str(target)]
        found = await asyncio.to_thread(disk.mounted_at, self._place(volume, holder))
        if found < 0:
            await asyncio.to_thread(os.sync)  # a mount that is ending may have to write
            await _run(copy)
            return
        try:
            place = f"/proc/self/fd/{found}"
            await _run(["sh", "-c", FREEZE, place, place, *copy], pass_fds=[found])
        finally:
            os.close(found)


async def _run(command: Sequence[str], pass_fds: Sequence[int] = ()) -> None:
    """Run a command that nobody at a terminal can interrupt.

    Raises:
        DiskError: With what it said.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        pass_fds=pass_fds,
        start_new_session=True,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    if process.returncode:
        raise DiskError(said.decode(errors="replace").strip() or f"{command[0]} failed")


def _size_of_tree(directory: Path) -> int:
    total = 0
    for root, _, files in os.walk(directory):
        for name in files:
            try:
                total += (Path(root) / name).lstat().st_blocks * 512
            except OSError:  # it went away meanwhile
                continue
    return total
