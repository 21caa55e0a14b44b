"""`upload` and `download`: files and whole trees."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from pytest_flymachines.sandbox.arguments import (
    check_patterns,
    local_path,
)
from pytest_flymachines.sandbox.exec import ExecVerbs
from pytest_flymachines.sandbox.local_tree import LocalFile, LocalTree, unpack
from pytest_flymachines.sandbox.text import PathArg, encode_path

__all__ = ["Progress", "TreeVerbs"]

Progress: TypeAlias = Callable[[int, int | None], object]


class TreeVerbs(ExecVerbs):
    """Moving files and trees between this computer and the machine."""

    def upload(
        self,
        local: str | os.PathLike[str],
        remote: PathArg,
        *,
        exclude: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> None:
        """Copy a file, or a directory with all that is in it, into the machine.

        Modes, modification times, symlinks, empty directories and names of any bytes are kept;
        owners are not. What arrives is checked by a digest and put in place only then. Into a
        directory that is there already, entries are merged: files replace those of their name.

        Args:
            local: What to copy.
            remote: What it is to be called in the machine (not the directory to put it into);
                missing parents are made.
            exclude: Patterns of what to leave out: one without `/` matches names at any depth
                (`*.pyc`, `.git`), one with `/` paths from the top (`build/*`, `docs/**/*.png`).
            progress: Called with the bytes of content sent so far, and their total.

        Raises:
            FileNotFoundError: There is no `local`.
            OSError: `local` cannot be read, became shorter meanwhile, or is a FIFO.
            SandboxIsADirectory: `local` is a file, and `remote` a directory.
            SandboxNotADirectory: `local` is a directory, and `remote` a file.
        """
        path = local_path(local)
        target = encode_path(remote)
        _check(exclude, progress)
        if path.is_dir():
            tree = LocalTree(path, exclude)
            tar = _Counted(tree, progress, tree.content_bytes()) if progress else tree
            self._channel.put_tree(target, tar)
            return
        status = path.stat()
        if stat.S_ISFIFO(status.st_mode):  # to open one waits for whoever writes
            raise shutil.SpecialFileError(f"{path} is a FIFO: upload the directory that it is in")
        file = LocalFile(path)
        pieces = _Counted(file, progress, status.st_size) if progress else file
        self._channel.write(
            target,
            pieces,
            mode=stat.S_IMODE(status.st_mode),
            parents=True,
            mtime_ns=status.st_mtime_ns,
        )

    def download(
        self,
        remote: PathArg,
        local: str | os.PathLike[str],
        *,
        exclude: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> None:
        """Copy a file, or a directory with all that is in it, out of the machine.

        See `upload` for what is kept and how patterns match.

        Args:
            remote: What to copy.
            local: What it is to be called on this computer; missing parents are made.
            exclude: Patterns of what to leave out.
            progress: Called with the bytes of content received so far, and None.

        Raises:
            SandboxFileNotFound: There is no `remote`.
            IsADirectoryError: `remote` is a file, and `local` a directory.
            NotADirectoryError: `remote` is a directory, and `local` or what it is in a file.
            SandboxFileError: A file of `remote` cannot be read, or became shorter meanwhile.
        """
        target = local_path(local)
        _check(exclude, progress)
        done = 0

        def received(size: int) -> None:
            nonlocal done
            done += size
            if progress:
                progress(done, None)

        tar = self._channel.get_tree(encode_path(remote), exclude=exclude)
        unpack(tar, target, exclude, received)


def _check(exclude: Sequence[str], progress: Progress | None) -> None:
    check_patterns(exclude)
    if progress is not None and not callable(progress):
        raise TypeError(f"progress={progress!r}: expected a function of bytes done and in total")


class _Counted:
    """The same pieces, and their size; reports how much has been taken, at most the total."""

    def __init__(self, pieces: Iterable[bytes], progress: Progress, total: int) -> None:
        self.size: int | None = getattr(pieces, "size", None)
        self.sparse: bool = getattr(pieces, "sparse", False)
        self._pieces = pieces
        self._progress = progress
        self._total = total

    def __iter__(self) -> Iterator[bytes]:
        done = 0
        for piece in self._pieces:
            yield piece
            done += len(piece)
            self._progress(min(done, self._total), self._total)
