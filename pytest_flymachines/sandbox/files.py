"""Files of the machine: read, write, list, stat, make, remove, rename, glob."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_flymachines.errors import SandboxFileNotFound, SandboxNotADirectory
from pytest_flymachines.sandbox.attachment import Attached
from pytest_flymachines.sandbox.channel import FileInfo
from pytest_flymachines.sandbox.path import SandboxPath, bound_path
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
        """A path of this machine with the verbs of `pathlib.Path`."""
        if self._path_class is None:
            self._path_class = bound_path(self)
        return self._path_class(decode_name(encode_path(path)))

    def read_file(self, path: PathArg, *, offset: int = 0, size: int | None = None) -> bytes:
        """Content of a file: all of it, or `size` bytes from `offset`."""
        return b"".join(self._channel.read(encode_path(path), offset=offset, size=size))

    def read_text(self, path: PathArg, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Content of a file as text; line ends stay as they are."""
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
        """
        if isinstance(data, bytes | bytearray | memoryview | str):
            data = [encode_data(data)]
        return self._channel.write(encode_path(path), data, mode=mode, parents=parents)

    def append_file(self, path: PathArg, data: bytes | str) -> None:
        """Add to the end of a file, which is made if missing."""
        self._channel.append(encode_path(path), encode_data(data))

    def list_files(self, path: PathArg = ".") -> list[FileInfo]:
        """Entries of a directory, sorted by name."""
        return self._channel.listdir(encode_path(path))

    def stat(self, path: PathArg, *, follow_symlinks: bool = True) -> FileInfo:
        """What is known of one file."""
        return self._channel.stat(encode_path(path), follow=follow_symlinks)

    def exists(self, path: PathArg, *, follow_symlinks: bool = True) -> bool:
        """Whether there is a file, directory or other thing of this path."""
        try:
            self.stat(path, follow_symlinks=follow_symlinks)
        except (SandboxFileNotFound, SandboxNotADirectory):
            return False
        return True

    def mkdir(
        self, path: PathArg, *, mode: int = 0o777, parents: bool = False, exist_ok: bool = False
    ) -> None:
        """Make a directory; arguments as those of `pathlib.Path.mkdir`."""
        self._channel.mkdir(encode_path(path), mode=mode, parents=parents, exist_ok=exist_ok)

    def remove(self, path: PathArg, *, recursive: bool = False, missing_ok: bool = False) -> None:
        """Remove a file, a symlink, an empty directory or, if `recursive`, a tree."""
        self._channel.remove(encode_path(path), recursive=recursive, missing_ok=missing_ok)

    def rename(self, source: PathArg, target: PathArg) -> None:
        """Rename; a file at `target` is replaced."""
        self._channel.rename(encode_path(source), encode_path(target))

    def glob(self, pattern: PathArg) -> list[SandboxPath]:
        """Paths that match, sorted; see `pathlib.Path.glob`.

        A leading dot is nothing special, symlinks are not followed below the fixed part of the
        pattern, and `**` at the end takes everything below.
        """
        whole = self.path(pattern)
        parts = list(whole.parts)
        fixed = next((n for n, part in enumerate(parts) if has_magic(part)), len(parts))
        top = self.path("/".join(parts[:fixed]).replace("//", "/") or ".")
        if fixed < len(parts):
            return list(top.glob("/".join(parts[fixed:])))
        return [whole] if whole.exists(follow_symlinks=False) else []
