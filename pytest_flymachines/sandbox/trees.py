"""`upload` and `download`: files and whole trees."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from pytest_flymachines.sandbox import local_tree
from pytest_flymachines.sandbox.exec import ExecVerbs
from pytest_flymachines.sandbox.text import PathArg, decode_name, encode_path

__all__ = ["SET_TIME", "Progress", "TreeVerbs"]

#: Name of the script that gives an uploaded file its time; cassettes do not compare that time.
SET_TIME = "pytest-flymachines-set-time"

Progress: TypeAlias = Callable[[int, int | None], object]

_PIECE_BYTES = 256 * 1024
# busybox's touch takes whole seconds only
_SET_TIME = 'touch -d "@$1" -- "$2" 2>/dev/null || touch -d "@${1%.*}" -- "$2"'


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
            SandboxIsADirectory: `local` is a file, and `remote` a directory.
            SandboxNotADirectory: `local` is a directory, and `remote` a file.
        """
        path = Path(local)
        if path.is_dir():
            entries = local_tree.scan(str(path), exclude)
            total = sum(entry.status.st_size for entry in entries if _is_file(entry))
            tar = _counted(local_tree.pack(entries), progress, total)
            self._channel.put_tree(encode_path(remote), tar)
            return
        status = path.stat()
        pieces = _counted(_pieces(path), progress, status.st_size)
        target = encode_path(remote)
        self._channel.write(target, pieces, mode=status.st_mode & 0o7777, parents=True)
        seconds = f"{status.st_mtime_ns // 10**9}.{status.st_mtime_ns % 10**9:09}"
        self.exec(["/bin/sh", "-c", _SET_TIME, SET_TIME, seconds, _no_option(target)])

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
        """
        done = 0

        def received(size: int) -> None:
            nonlocal done
            done += size
            if progress:
                progress(done, None)

        tar = self._channel.get_tree(encode_path(remote), exclude=exclude)
        local_tree.unpack(tar, Path(local), exclude, received)


def _is_file(entry: local_tree.Entry) -> bool:
    return entry.status.st_mode & 0o170000 == 0o100000


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _counted(pieces: Iterator[bytes], progress: Progress | None, total: int) -> Iterator[bytes]:
    """The same pieces; reports how much has been taken, at most the total."""
    done = 0
    for piece in pieces:
        yield piece
        done += len(piece)
        if progress:
            progress(min(done, total), total)


def _no_option(path: bytes) -> str:
    return decode_name(path if path.startswith(b"/") else b"./" + path)
