"""Trees of this computer, as tar streams and back."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from pytest_flymachines.agent.server import packing
from pytest_flymachines.agent.server.pax import BLOCK, CHAR, BadTar, Member, members
from pytest_flymachines.agent.server.unpacking import Stage, check_place, inside
from pytest_flymachines.errors import FlyMachinesError
from pytest_flymachines.sandbox.patterns import excluded

__all__ = ["LocalFile", "LocalTree", "unpack"]


class LocalTree:
    """A directory as a tar stream, read anew each time that it is iterated.

    Owners are left out, so that the machine's user owns what arrives; so are sockets, devices
    and what `exclude` matches.
    """

    def __init__(self, top: Path, exclude: Sequence[str] = ()) -> None:
        self._top = os.fsencode(top)
        self._exclude = exclude

    def __iter__(self) -> Iterator[bytes]:
        return packing.pack(self._entries())

    def content_bytes(self) -> int:
        """Bytes of the files in it."""
        statuses = (entry.status for entry in self._entries())
        return sum(status.st_size for status in statuses if stat.S_ISREG(status.st_mode))

    def _entries(self) -> Iterator[packing.Entry]:
        def left_out(name: bytes) -> bool:
            return excluded(os.fsdecode(name), self._exclude)

        found = packing.scan(self._top, left_out if self._exclude else lambda _: False)
        return (entry for entry in found if entry.kind not in (CHAR, BLOCK))


class LocalFile:
    """The content of a file, read anew each time that it is iterated.

    Attributes:
        size: Bytes that it gives; None for what has no size to go by, as files of /proc.
        sparse: Much of it is holes, which compress well wherever they are.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        status = path.stat()
        # without a block, and so with no certain size: files of /proc and /sys, or one hole
        certain = stat.S_ISREG(status.st_mode) and (
            status.st_blocks or status.st_size > packing.UNSURE_BYTES
        )
        self.size = status.st_size if certain else None
        self.sparse = 512 * status.st_blocks < status.st_size // 2

    def __iter__(self) -> Iterator[bytes]:
        left = self.size
        with self._path.open("rb", buffering=0) as file:
            while piece := file.read(_most(left)):
                if left is not None:
                    left -= len(piece)
                yield piece
        if left:
            raise OSError(errno.ESTALE, packing.SHORTER, str(self._path))


def _most(left: int | None) -> int:
    return packing.PIECE_BYTES if left is None else min(left, packing.PIECE_BYTES)


def unpack(
    stream: Iterable[bytes],
    target: Path,
    exclude: Sequence[str],
    progress: Callable[[int], None],
) -> None:
    """Unpack a tar stream of a directory (first entry `.`) or of a single file.

    Everything is unpacked beside the target first. Then it takes the target's name, or its
    entries replace those of the directory that is there. Devices are left out, because an
    ordinary user cannot make them.

    Raises:
        IsADirectoryError: The stream is a single file, and the target a directory.
        NotADirectoryError: It is the other way round.
        FlyMachinesError: The stream is damaged, or an entry would lie outside of the target.
    """
    place = os.fsencode(target)
    first = None
    try:
        with closing(Stage(place)) as stage:
            stage.sweep()
            for member, content in members(stream):
                name = inside(member.name)
                if first is None:
                    first = name
                    if not first:
                        check_place(place)
                if not (_left_out(member, name, exclude) and name != first):
                    stage.make(member, _told(content, progress))
            if first:
                _make_parents(target)
                Path(os.fsdecode(stage.root), os.fsdecode(first)).replace(target)
            else:
                stage.move_to(place)
    except (BadTar, ValueError, OverflowError) as error:  # a NUL in a name, a time beyond all times
        raise FlyMachinesError(f"the tree for {target} arrived damaged: {error}") from error
    except OSError as error:
        if isinstance(error.filename, bytes):
            error.filename = os.fsdecode(error.filename)
        raise


def _make_parents(target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        number = errno.ENOTDIR
        raise NotADirectoryError(number, os.strerror(number), error.filename) from None


def _left_out(member: Member, name: bytes, exclude: Sequence[str]) -> bool:
    return member.kind in (CHAR, BLOCK) or (bool(exclude) and excluded(os.fsdecode(name), exclude))


def _told(content: Iterable[bytes], progress: Callable[[int], None]) -> Iterator[bytes]:
    for piece in content:
        yield piece
        progress(len(piece))
