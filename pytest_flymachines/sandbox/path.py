"""`SandboxPath`: a path inside the machine, with pathlib's verbs."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import PurePath, PurePosixPath
from typing import TYPE_CHECKING, ClassVar, NoReturn, Self

from pytest_flymachines.errors import SandboxFileNotFound, SandboxNotADirectory, file_error
from pytest_flymachines.sandbox.channel import Channel, FileInfo
from pytest_flymachines.sandbox.text import encode_data, encode_path, encode_text

if TYPE_CHECKING:
    from pytest_flymachines.sandbox.files import FileVerbs

__all__ = ["SandboxPath", "bound_path"]


class SandboxPath(PurePosixPath):
    """A path inside a machine; made by `Sandbox.path`.

    It joins, splits and compares as any `PurePosixPath`, and has the verbs of `pathlib.Path`,
    which act in the machine. It is no `os.PathLike` for this computer: `open(path)` raises
    instead of opening a local file that happens to have the same name. Its verbs raise what those
    of `Sandbox` raise: a `SandboxFileError` that is also the builtin error for the case.
    """

    # Python 3.11 makes derived paths (`path / "x"`, `path.parent`) from the class alone, so the
    # machine is the class's: each sandbox has a subclass of its own
    _files: ClassVar[FileVerbs]

    @property
    def _channel(self) -> Channel:
        return self._files._channel  # noqa: SLF001 - a part of the handle

    @property
    def _bytes(self) -> bytes:
        return encode_path(self)

    def __bytes__(self) -> bytes:
        return self._bytes

    def __fspath__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} is a path in machine {self._files.attachment.machine_id}, not on this "
            "computer: use its own read_text(), write_bytes() and so on, or str(path)"
        )

    def __repr__(self) -> str:
        return f"SandboxPath({str(self)!r})"

    # reading

    def read_bytes(self) -> bytes:
        """Content of the file."""
        return self._files.read_file(self)

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Content of the file as text; line ends stay as they are."""
        return self._files.read_text(self, encoding, errors)

    def stat(self, *, follow_symlinks: bool = True) -> FileInfo:
        """What is known of the file; has `st_size` and its siblings too."""
        return self._files.stat(self, follow_symlinks=follow_symlinks)

    def lstat(self) -> FileInfo:
        """Like `stat`, of a symlink itself."""
        return self.stat(follow_symlinks=False)

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is something of this path."""
        return self._files.exists(self, follow_symlinks=follow_symlinks)

    def is_file(self) -> bool:
        """Whether it is a regular file, or a symlink to one."""
        return self._is("file")

    def is_dir(self) -> bool:
        """Whether it is a directory, or a symlink to one."""
        return self._is("directory")

    def is_symlink(self) -> bool:
        """Whether it is a symlink."""
        return self._is("symlink", follow=False)

    def is_fifo(self) -> bool:
        """Whether it is a FIFO, or a symlink to one."""
        return self._is("fifo")

    def is_socket(self) -> bool:
        """Whether it is a Unix socket, or a symlink to one."""
        return self._is("socket")

    def _is(self, kind: str, *, follow: bool = True) -> bool:
        try:
            return self.stat(follow_symlinks=follow).kind == kind
        except (SandboxFileNotFound, SandboxNotADirectory):
            return False

    def readlink(self) -> Self:
        """Where the symlink points.

        Raises:
            OSError: It is no symlink.
        """
        target = self.lstat().target
        if target is None:
            raise file_error(errno.EINVAL, str(self), "not a symlink")
        return type(self)(target)

    def owner(self) -> str:
        """Name of the owner in the machine, or the number of one without name."""
        return self._name_of("passwd", self.stat().uid)

    def group(self) -> str:
        """Name of the group in the machine, or the number of one without name."""
        return self._name_of("group", self.stat().gid)

    def _name_of(self, database: str, number: int) -> str:
        for line in self._files.read_text(f"/etc/{database}", errors="replace").splitlines():
            fields = line.split(":")
            if len(fields) > 2 and fields[2] == str(number):
                return fields[0]
        return str(number)

    def iterdir(self) -> Iterator[Self]:
        """The directory's entries, sorted by name."""
        for entry in self._files.list_files(self):
            yield self / entry.name

    def glob(self, pattern: str) -> Iterator[Self]:
        """Paths below that match a relative pattern, sorted; see `Sandbox.glob`."""
        parts = PurePosixPath(pattern).parts
        if not parts or parts[0] == "/":
            raise ValueError(f"{pattern!r} is no relative pattern")
        try:
            found = self._channel.walk(self._bytes, parts)
        except (SandboxFileNotFound, SandboxNotADirectory):
            return
        for entry in found:
            yield self / entry.name

    def rglob(self, pattern: str) -> Iterator[Self]:
        """Like `glob` with `**/` before the pattern."""
        return self.glob(f"**/{pattern}")

    # writing

    def write_bytes(self, data: bytes | bytearray | memoryview) -> int:
        """Write the whole file; number of bytes. Its directory must exist."""
        return self._files.write_file(self, encode_data(data), parents=False)

    def write_text(self, data: str, encoding: str = "utf-8", errors: str = "strict") -> int:
        """Write the whole file; number of characters. Its directory must exist."""
        self._files.write_file(self, data.encode(encoding, errors), parents=False)
        return len(data)

    def touch(self, mode: int = 0o666, exist_ok: bool = True) -> None:
        """Make an empty file, or set its times to now."""
        self._channel.touch(self._bytes, mode=mode, exist_ok=exist_ok)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Make a directory."""
        self._channel.mkdir(self._bytes, mode=mode, parents=parents, exist_ok=exist_ok)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove a file or symlink.

        Raises:
            SandboxIsADirectory: It is a directory; `rmdir` and `Sandbox.remove` remove those.
        """
        try:
            directory = self.lstat().kind == "directory"
        except SandboxFileNotFound:
            if missing_ok:
                return
            raise
        if directory:
            raise file_error(errno.EISDIR, str(self))
        self._files.remove(self, missing_ok=missing_ok)

    def rmdir(self) -> None:
        """Remove an empty directory."""
        if self.lstat().kind != "directory":
            raise file_error(errno.ENOTDIR, str(self))
        self._files.remove(self)

    def rename(self, target: str | PurePath) -> Self:
        """Rename, replacing a file at `target`; the new path."""
        self._channel.rename(self._bytes, encode_path(target))
        return type(self)(str(target))

    def replace(self, target: str | PurePath) -> Self:
        """The same as `rename`."""
        return self.rename(target)

    def chmod(self, mode: int) -> None:
        """Set permission bits; of what a symlink points to."""
        self._channel.chmod(self._bytes, mode)

    def symlink_to(self, target: str | PurePath) -> None:
        """Make this path a symlink to `target`."""
        self._channel.symlink(self._bytes, encode_text(target))


def bound_path(files: FileVerbs) -> type[SandboxPath]:
    """The class of the paths of one sandbox."""
    return type("SandboxPath", (SandboxPath,), {"_files": files, "__slots__": ()})
