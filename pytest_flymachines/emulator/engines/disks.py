"""Disks: files with an ext4 file system in them, behind block devices of this computer.

For root only, where there are loop devices. Such a file is sparse: it takes the room that its
content takes. A device lasts as long as somebody has it open or mounted, so that of an emulator
that is killed nothing is left.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import struct
import subprocess
import time
from pathlib import Path
from typing import IO

__all__ = ["Disk", "DiskError", "missing", "used_bytes"]

_CONTROL = "/dev/loop-control"
# Of <linux/loop.h> and <linux/fs.h>.
_GET_FREE = 0x4C82
_CONFIGURE = 0x4C0A
_GET_STATUS = 0x4C05
_SET_CAPACITY = 0x4C07
_AUTOCLEAR = 4
_INFO = "=5Q4I64s64s32s2Q"
_RESIZE = 0x40086610  # EXT4_IOC_RESIZE_FS
_BLOCK = 4096
_UNMOUNT_S = 10.0
_TOOLS = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
_OPTIONS = "nodiscard,lazy_itable_init=1,lazy_journal_init=1"


class DiskError(Exception):
    """A disk could not be made or used; the text says why."""


def missing() -> str:
    """Why there can be no disks here; empty if nothing is seen that speaks against them."""
    if os.geteuid() != 0:
        return "only root has block devices"
    if shutil.which("mkfs.ext4", path=_TOOLS) is None:
        return "no mkfs.ext4 (Debian: package e2fsprogs)"
    try:
        os.close(os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{_CONTROL}: {error.strerror}"
    return ""


class Disk:
    """A file with an ext4 file system, and its device while it is attached.

    Args:
        file: Where it is, or is to be.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._device = -1
        self.path = ""

    def make(
        self, size_bytes: int, content: Path | None = None, *, mode: int | None = None
    ) -> None:
        """Make the file; it must not exist.

        Args:
            size_bytes: Of the device.
            content: A directory whose content it begins with.
            mode: Permissions of its uppermost directory; those of one that is not to outlive a
                crash, so that it needs no journal. None is a volume, with `0o755`.

        Raises:
            DiskError: With what mkfs said.
        """
        try:
            with self.file.open("xb") as file:
                file.truncate(size_bytes)
        except OSError as error:
            raise DiskError(str(error)) from error
        command = ["mkfs.ext4", "-q", "-F", "-E", _OPTIONS]
        if content is not None:
            command += ["-d", str(content)]
        if mode is not None:
            command += ["-m", "0", "-O", "^has_journal"]
        said = _run([*command, str(self.file)])
        if said is None and mode is not None:
            root = f"set_inode_field <2> mode 0{stat.S_IFDIR | mode:o}"
            said = _run(["debugfs", "-w", "-R", root, str(self.file)])
        if said is not None:
            self.file.unlink()
            raise DiskError(said)

    def grow(self, size_bytes: int) -> None:
        """Make the device larger; the file system follows by `fit_mounted` or `fit`."""
        if size_bytes > self.file.stat().st_size:
            os.truncate(self.file, size_bytes)
        if self._device >= 0:
            fcntl.ioctl(self._device, _SET_CAPACITY)

    def attach(self) -> str:
        """Path of its device; the same until `detach`.

        A device that an emulator before this one has not yet let go of is taken over: two of
        one file would destroy it.

        Raises:
            DiskError: The kernel gives none.
        """
        if self._device >= 0:
            return self.path
        try:
            self._take_over() or self._take_free()
        except OSError as error:
            raise DiskError(f"no block device for {self.file}: {error}") from error
        return self.path

    def detach(self) -> None:
        """Let go of the device, which ends with its last mount."""
        if self._device >= 0:
            os.close(self._device)
            self._device = -1

    def mounted_at(self, directory: Path | None) -> int:
        """A descriptor of a directory, if this disk is what is mounted there; else -1.

        To be closed by the caller.
        """
        if directory is None or self._device < 0:
            return -1
        try:
            found = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return -1
        if os.fstat(found).st_dev == os.fstat(self._device).st_rdev:
            return found
        os.close(found)
        return -1

    def fit_mounted(self, directory: Path | None) -> bool:
        """Have the file system that is mounted at this directory fill a device that has grown.

        Returns:
            False if that cannot be done now: it is not mounted there, or the kernel refuses, as it
            does where root is without CAP_SYS_RESOURCE.
        """
        found = self.mounted_at(directory)
        if found < 0:
            return False
        try:
            blocks = os.lseek(self._device, 0, os.SEEK_END) // _BLOCK
            fcntl.ioctl(found, _RESIZE, struct.pack("=Q", blocks))
        except OSError:
            return False
        finally:
            os.close(found)
        return True

    def fit(self) -> None:
        """The same for one that is attached and not mounted; it waits for a mount that is ending.

        Raises:
            DiskError: With what resize2fs said.
        """
        with self.file.open("rb") as file:
            if _field(file, 4) + (_field(file, 0x150) << 32) >= self._blocks(file):
                return
        deadline = time.monotonic() + _UNMOUNT_S
        for command in (["e2fsck", "-f", "-p"], ["resize2fs"]):
            while (said := _run([*command, self.path], accepted=(0, 1))) is not None:
                if time.monotonic() > deadline:
                    raise DiskError(f"{self.file} could not grow: {said}")
                time.sleep(0.05)

    def _blocks(self, file: IO[bytes]) -> int:
        return self.file.stat().st_size // (1024 << _field(file, 24))

    def _take_over(self) -> bool:
        for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):
                if (
                    Path(entry.read_text("utf-8", "surrogateescape").rstrip("\n")).name
                    != self.file.name
                ):
                    continue
                path = f"/dev/{entry.parts[3]}"
                device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                if self._is_ours(device):
                    self._device, self.path = device, path
                    return True
                os.close(device)
        return False

    def _is_ours(self, device: int) -> bool:
        info = bytearray(struct.calcsize(_INFO))
        try:
            fcntl.ioctl(device, _GET_STATUS, info)
        except OSError:  # It was free by then.
            return False
        status = self.file.stat()
        backing_inode = struct.unpack(_INFO, info)[1]
        return bool(backing_inode == status.st_ino)

    def _take_free(self) -> bool:
        control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
        file = os.open(self.file, os.O_RDWR | os.O_CLOEXEC)
        try:
            while True:
                path = f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}"
                device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                name = self.file.name.encode()[:63]
                info = struct.pack(_INFO, *(0,) * 8, _AUTOCLEAR, name, b"", b"", 0, 0)
                config = struct.pack("=2I", file, 0) + info + bytes(64)
                try:
                    fcntl.ioctl(device, _CONFIGURE, config)
                except OSError as error:
                    os.close(device)
                    if error.errno != errno.EBUSY:  # Else somebody was quicker.
                        raise
                else:
                    self._device, self.path = device, path
                    return True
        finally:
            os.close(file)
            os.close(control)


def used_bytes(file: Path) -> int:
    """What is used of a disk that is not mounted, as `df` would say.

    Source: https://docs.kernel.org/filesystems/ext4/globals.html#super-block.
    """
    with file.open("rb") as disk:
        total = _field(disk, 4) + (_field(disk, 0x150) << 32)
        free = _field(disk, 12) + (_field(disk, 0x158) << 32)
        return max(total - free - _field(disk, 0x248), 0) * (1024 << _field(disk, 24))


def _field(disk: IO[bytes], offset: int) -> int:
    """A number of the super-block."""
    disk.seek(1024 + offset)
    number: int = struct.unpack("<I", disk.read(4))[0]
    return number


def _run(command: list[str], accepted: tuple[int, ...] = (0,)) -> str | None:
    """What a tool said that failed; None if it did not."""
    environment = {**os.environ, "PATH": _TOOLS}
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    if done.returncode in accepted:
        return None
    said = (done.stderr or done.stdout).decode(errors="replace").strip()
    return said or f"{command[0]} ended with {done.returncode}"
