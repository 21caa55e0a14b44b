"""Files of the machine: read, write, list, stat, make, remove, rename, glob."""

from __future__ import annotations

import math
from collections.abc import Iterable

from pytest_flymachines.errors import SandboxFileError
from pytest_flymachines.sandbox.arguments import (
    check_errors,
    check_mode,
    check_text_encoding,
    file_pieces,
    whole_number,
)
from pytest_flymachines.sandbox.attachment import Attached
from pytest_flymachines.sandbox.channel import FileInfo
from pytest_flymachines.sandbox.path import ABSENT, SandboxPath, bound_path
from pytest_flymachines.sandbox.patterns import has_magic
from pytest_flymachines.sandbox.text import PathArg, decode_name, encode_data, encode_path

__all__ = ["FileVerbs"]


class FileVerbs(Attached):
    """Files, by path; a relative path is relative to the workspace.

    All raise the `SandboxFileError` that is also the builtin error for the case:
    `SandboxFileNotFound`, `SandboxFileExists`, `SandboxIsADirectory`, `SandboxNotADirectory`,
    `SandboxPermissionDenied`; and `ValueError` for a path that is empty or has a NUL.
    """

    _path_class: type[SandboxPath] | None = None

    def path(self, path: PathArg = ".") -> SandboxPath:
        """A path of this machine with the verbs of `pathlib.Path`; nothing is asked yet.

        Args:
            path: Relative to the workspace, which is the default.

        Raises:
            ValueError: It is empty or has a NUL.
        """
        if self._path_class is None:
            self._path_class = bound_path(self)
        return self._path_class(decode_name(encode_path(path)))

    def read_file(self, path: PathArg, *, offset: int = 0, size: int | None = None) -> bytes:
        """Content of a file: all of it, or a part.

        Args:
            path: A symlink is followed.
            offset: Bytes to leave out from the start.
            size: Bytes to read at most; default to the end.

        Raises:
            SandboxFileNotFound: There is no such file.
            SandboxIsADirectory: It is a directory.
        """
        whole_number("offset", offset, "a number of bytes, 0 or more", 0, math.inf)
        if size is not None:
            accepted = "a number of bytes, 0 or more, or None for all"
            whole_number("size", size, accepted, 0, math.inf)
        return b"".join(self._channel.read(encode_path(path), offset=offset, size=size))

    def read_text(self, path: PathArg, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Content of a file as text; line ends stay as they are.

        Args:
            path: A symlink is followed.
            encoding: Default UTF-8.
            errors: What to do with what is not in it, as in `bytes.decode`.

        Raises:
            UnicodeDecodeError: It is not in `encoding`, and `errors` is `strict`.
            SandboxFileError: As `read_file`.
        """
        check_text_encoding(encoding)
        check_errors(errors)
        return self.read_file(path).decode(encoding, errors)

    def write_file(
        self,
        path: PathArg,
        data: bytes | bytearray | memoryview | str | Iterable[bytes],
        *,
        mode: int | None = None,
        parents: bool = True,
    ) -> int:
        """Write a whole file; nobody ever sees half of it.

        Args:
            path: A symlink is followed.
            data: Bytes, text (written as UTF-8), or pieces of bytes for what is too large to
                be held at once.
            mode: Permission bits; default those of the file that is replaced, else 0o644.
            parents: Make missing directories.

        Returns:
            Number of bytes written.

        Raises:
            SandboxIsADirectory: There is a directory of this path.
            SandboxFileNotFound: A directory is missing, and `parents` is false.
            SandboxFileError: Any other reason; the disk may be full, for instance.
        """
        if mode is not None:
            check_mode(mode)
        pieces = file_pieces(data)
        return self._channel.write(encode_path(path), pieces, mode=mode, parents=parents)

    def append_file(self, path: PathArg, data: bytes | str) -> None:
        """Add bytes, or text as UTF-8, to the end of a file, which is made if missing.

        Args:
            path: A symlink is followed.
            data: What to add.

        Raises:
            SandboxFileNotFound: Its directory is missing.
        """
        self._channel.append(encode_path(path), encode_data(data))

    def list_files(self, path: PathArg = ".") -> list[FileInfo]:
        """Entries of a directory, sorted by name, in one request.

        Args:
            path: The directory; default the workspace.

        Raises:
            SandboxFileNotFound: There is no such directory.
            SandboxNotADirectory: It is none.
        """
        return self._channel.listdir(encode_path(path))

    def stat(self, path: PathArg, *, follow_symlinks: bool = True) -> FileInfo:
        """What is known of one file.

        Args:
            path: The file.
            follow_symlinks: Tell of what a symlink points to, not of itself.

        Raises:
            SandboxFileNotFound: There is no such file.
        """
        return self._channel.stat(encode_path(path), follow=follow_symlinks)

    def exists(self, path: PathArg, *, follow_symlinks: bool = True) -> bool:
        """Whether there is a file, directory or other thing of this path.

        Args:
            path: Relative to the workspace.
            follow_symlinks: A symlink that leads nowhere does not count.

        Raises:
            SandboxPermissionDenied: It cannot be told: a directory above may not be entered.
        """
        try:
            self.stat(path, follow_symlinks=follow_symlinks)
        except SandboxFileError as error:
            if error.errno not in ABSENT:
                raise
            return False
        return True

    def mkdir(
        self, path: PathArg, *, mode: int = 0o777, parents: bool = False, exist_ok: bool = False
    ) -> None:
        """Make a directory.

        Args:
            path: The directory.
            mode: Permission bits, less the umask 022.
            parents: Make missing directories above it, too.
            exist_ok: A directory that is there already is no error.

        Raises:
            SandboxFileExists: There is something of this path.
            SandboxFileNotFound: A directory above is missing, and `parents` is false.
        """
        check_mode(mode)
        self._channel.mkdir(encode_path(path), mode=mode, parents=parents, exist_ok=exist_ok)

    def remove(self, path: PathArg, *, recursive: bool = False, missing_ok: bool = False) -> None:
        """Remove a file, a symlink, an empty directory or, if `recursive`, a tree.

        Args:
            path: A symlink is removed itself.
            recursive: With all that is in it.
            missing_ok: Nothing of this path is no error.

        Raises:
            SandboxFileNotFound: There is nothing of this path, and `missing_ok` is false.
            SandboxFileError: The directory is not empty, and `recursive` is false.
        """
        self._channel.remove(encode_path(path), recursive=recursive, missing_ok=missing_ok)

    def rename(self, source: PathArg, target: PathArg) -> None:
        """Rename `source`; a file at `target` is replaced, a directory never moved into.

        Raises:
            SandboxFileNotFound: There is no `source`.
            SandboxFileError: `target` is a directory that is not empty, or `source` none.
        """
        self._channel.rename(encode_path(source), encode_path(target))

    def glob(self, pattern: PathArg) -> list[SandboxPath]:
        """Paths that match, sorted; see `pathlib.Path.glob`.

        A leading dot is nothing special, symlinks are not followed below the fixed part of the
        pattern, and `**` at the end takes everything below.

        Args:
            pattern: Relative to the workspace, or absolute.

        Raises:
            ValueError: It is empty or has a NUL.
            SandboxFileError: The directory before its first wildcard cannot be read.
        """
        whole = self.path(pattern)
        parts = list(whole.parts)
        fixed = next((n for n, part in enumerate(parts) if has_magic(part)), len(parts))
        top = self.path("/".join(parts[:fixed]).replace("//", "/") or ".")
        if fixed < len(parts):
            return list(top.glob("/".join(parts[fixed:])))
        return [whole] if whole.exists(follow_symlinks=False) else []
