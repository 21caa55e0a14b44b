"""`SandboxPath`: a path inside the machine, with pathlib's verbs."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import PurePath, PurePosixPath
from typing import TYPE_CHECKING, ClassVar, NoReturn, Self

from pytest_flymachines.errors import (
    SandboxFileError,
    SandboxFileNotFound,
    SandboxNotADirectory,
    file_error,
)
from pytest_flymachines.sandbox.arguments import (
    check_errors,
    check_glob,
    check_mode,
    check_text_encoding,
)
from pytest_flymachines.sandbox.channel import Channel, FileInfo
from pytest_flymachines.sandbox.text import encode_data, encode_path

if TYPE_CHECKING:
    from pytest_flymachines.sandbox.files import FileVerbs

__all__ = ["ABSENT", "SandboxPath", "bound_path"]

#: What says that there is nothing of a path, as to pathlib: ELOOP is a circle of symlinks.
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


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
        """Content of the file.

        Raises:
            SandboxFileNotFound: There is no such file.
            SandboxIsADirectory: It is a directory.
            SandboxPermissionDenied: The machine's user may not read it.
        """
        return self._files.read_file(self)

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Content of the file as text; line ends stay as they are.

        Args:
            encoding: Default UTF-8.
            errors: What to do with what is not in it, as in `bytes.decode`.

        Raises:
            UnicodeDecodeError: It is not in `encoding`, and `errors` is `strict`.
            SandboxFileError: As `read_bytes`.
        """
        return self._files.read_text(self, encoding, errors)

    def stat(self, *, follow_symlinks: bool = True) -> FileInfo:
        """What is known of the file; has `st_size` (bytes) and its siblings too.

        Args:
            follow_symlinks: Tell of what a symlink points to, not of itself.

        Raises:
            SandboxFileNotFound: There is no such file.
            SandboxNotADirectory: Something above it is no directory.
        """
        return self._files.stat(self, follow_symlinks=follow_symlinks)

    def lstat(self) -> FileInfo:
        """Like `stat`, of a symlink itself.

        Raises:
            SandboxFileNotFound: There is no such file.
            SandboxNotADirectory: Something above it is no directory.
        """
        return self.stat(follow_symlinks=False)

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is something of this path.

        Args:
            follow_symlinks: A symlink that leads nowhere does not count.

        Raises:
            SandboxPermissionDenied: It cannot be told: a directory above may not be entered.
        """
        return self._files.exists(self, follow_symlinks=follow_symlinks)

    def is_file(self) -> bool:
        """Whether it is a regular file, or a symlink to one.

        Raises:
            SandboxPermissionDenied: As `exists`.
        """
        return self._is("file")

    def is_dir(self) -> bool:
        """Whether it is a directory, or a symlink to one.

        Raises:
            SandboxPermissionDenied: As `exists`.
        """
        return self._is("directory")

    def is_symlink(self) -> bool:
        """Whether it is a symlink.

        Raises:
            SandboxPermissionDenied: As `exists`.
        """
        return self._is("symlink", follow=False)

    def is_fifo(self) -> bool:
        """Whether it is a FIFO, or a symlink to one.

        Raises:
            SandboxPermissionDenied: As `exists`.
        """
        return self._is("fifo")

    def is_socket(self) -> bool:
        """Whether it is a Unix socket, or a symlink to one.

        Raises:
            SandboxPermissionDenied: As `exists`.
        """
        return self._is("socket")

    def _is(self, kind: str, *, follow: bool = True) -> bool:
        try:
            return self.stat(follow_symlinks=follow).kind == kind
        except SandboxFileError as error:
            if error.errno not in ABSENT:
                raise
            return False

    def readlink(self) -> Self:
        """Where the symlink points.

        Raises:
            SandboxFileNotFound: There is nothing of this path.
            SandboxFileError: It is no symlink (errno EINVAL).
        """
        target = self.lstat().target
        if target is None:
            raise file_error(errno.EINVAL, str(self), "not a symlink")
        return type(self)(target)

    def owner(self) -> str:
        """Name of the owner in the machine, or the number of one without name.

        Raises:
            SandboxFileNotFound: There is no such file, or no `/etc/passwd`.
        """
        return self._name_of("passwd", self.stat().uid)

    def group(self) -> str:
        """Name of the group in the machine, or the number of one without name.

        Raises:
            SandboxFileNotFound: There is no such file, or no `/etc/group`.
        """
        return self._name_of("group", self.stat().gid)

    def _name_of(self, database: str, number: int) -> str:
        for line in self._files.read_text(f"/etc/{database}", errors="replace").splitlines():
            fields = line.split(":")
            if len(fields) > 2 and fields[2] == str(number):
                return fields[0]
        return str(number)

    def iterdir(self) -> Iterator[Self]:
        """The directory's entries, sorted by name; asked for when the first is taken.

        Raises:
            SandboxFileNotFound: There is no such directory.
            SandboxNotADirectory: It is none.
            SandboxPermissionDenied: The machine's user may not read it.
        """
        for entry in self._files.list_files(self):
            yield self / entry.name

    def glob(self, pattern: str) -> Iterator[Self]:
        """Paths below that match, sorted; none where there is no such directory.

        Args:
            pattern: Relative; see `Sandbox.glob`.

        Raises:
            ValueError: `pattern` is empty or absolute.
            SandboxFileError: The directory cannot be read.
        """
        parts = PurePosixPath(check_glob(pattern)).parts
        try:
            found = self._channel.walk(self._bytes, parts)
        except (SandboxFileNotFound, SandboxNotADirectory):
            return
        for entry in found:
            yield self / entry.name

    def rglob(self, pattern: str) -> Iterator[Self]:
        """Like `glob` with `**/` before `pattern`.

        Raises:
            ValueError: `pattern` is empty or absolute.
            SandboxFileError: The directory cannot be read.
        """
        return self.glob(f"**/{check_glob(pattern)}")

    # writing

    def write_bytes(self, data: bytes | bytearray | memoryview) -> int:
        """Write `data` as the whole file; number of bytes. Mode and owner stay; new: 0o644.

        Raises:
            SandboxFileNotFound: Its directory is missing; `Sandbox.write_file` makes it.
            SandboxIsADirectory: It is a directory.
            SandboxFileError: Any other reason; the disk may be full, for instance.
        """
        return self._files.write_file(self, encode_data(data), parents=False)

    def write_text(self, data: str, encoding: str = "utf-8", errors: str = "strict") -> int:
        """Write `data` as the whole file; number of characters. Line ends stay as they are.

        Args:
            data: Text.
            encoding: Default UTF-8.
            errors: What to do with what cannot be encoded, as in `str.encode`.

        Raises:
            UnicodeEncodeError: It cannot be encoded, and `errors` is `strict`.
            SandboxFileError: As `write_bytes`.
        """
        if not isinstance(data, str):
            raise TypeError(f"data={data!r}: expected text; write_bytes() writes bytes")
        check_text_encoding(encoding)
        check_errors(errors)
        self._files.write_file(self, data.encode(encoding, errors), parents=False)
        return len(data)

    def touch(self, mode: int = 0o666, exist_ok: bool = True) -> None:
        """Make an empty file, or set its times to now.

        Args:
            mode: Permission bits of a new file, less the umask 022.
            exist_ok: A file that is there already is no error.

        Raises:
            SandboxFileNotFound: Its directory is missing.
            SandboxFileExists: It is there, and `exist_ok` is false.
        """
        self._channel.touch(self._bytes, mode=check_mode(mode), exist_ok=exist_ok)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Make a directory.

        Args:
            mode: Permission bits, less the umask 022.
            parents: Make missing directories above it, too.
            exist_ok: A directory that is there already is no error.

        Raises:
            SandboxFileExists: There is something of this path.
            SandboxFileNotFound: A directory above is missing, and `parents` is false.
        """
        self._channel.mkdir(self._bytes, mode=check_mode(mode), parents=parents, exist_ok=exist_ok)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove a file or symlink.

        Args:
            missing_ok: Nothing of this path is no error.

        Raises:
            SandboxFileNotFound: There is nothing of this path, and `missing_ok` is false.
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
        """Remove an empty directory.

        Raises:
            SandboxFileNotFound: There is nothing of this path.
            SandboxNotADirectory: It is no directory.
            SandboxFileError: It is not empty (errno ENOTEMPTY); `Sandbox.remove` takes trees.
        """
        if self.lstat().kind != "directory":
            raise file_error(errno.ENOTDIR, str(self))
        self._files.remove(self)

    def rename(self, target: str | PurePath) -> Self:
        """Rename, replacing a file at `target`; the new path.

        Args:
            target: Relative to the workspace, as in pathlib to the current directory.

        Raises:
            SandboxFileNotFound: There is nothing of this path, or no directory for `target`.
            SandboxFileError: `target` is a directory that is not empty, or this is none.
        """
        self._channel.rename(self._bytes, encode_path(target))
        return type(self)(str(target))

    def replace(self, target: str | PurePath) -> Self:
        """The same as `rename`, `target` and errors included.

        Raises:
            SandboxFileError: As `rename`.
        """
        return self.rename(target)

    def chmod(self, mode: int) -> None:
        """Set the permission bits to `mode`; of what a symlink points to.

        Raises:
            SandboxFileNotFound: There is no such file.
            SandboxPermissionDenied: The machine's user does not own it.
        """
        self._channel.chmod(self._bytes, check_mode(mode))

    def symlink_to(self, target: str | PurePath) -> None:
        """Make this path a symlink to `target`, which is taken as it is and need not exist.

        Raises:
            SandboxFileExists: There is something of this path.
            SandboxFileNotFound: Its directory is missing.
        """
        self._channel.symlink(self._bytes, encode_path(target))


def bound_path(files: FileVerbs) -> type[SandboxPath]:
    """The class of the paths of one sandbox."""
    return type("SandboxPath", (SandboxPath,), {"_files": files, "__slots__": ()})
