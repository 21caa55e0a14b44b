"""A tar stream as a tree: unpacked beside the target first, then put in place."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from typing import TypeVar

from . import pax
from .names import PREFIX, new_directory
from .pax import BadTar, Member, shown
from .writing import write_with_holes

_T = TypeVar("_T")

_YOUNG_S = 60.0
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def unpack_tree(target: bytes, pieces: Iterator[bytes]) -> int:
    """Unpack a tar stream; its entries replace those of the directory `target`, others stay.

    An exception of `pieces`, or a bad stream, leaves the target as it was. Owners are not
    taken over. Gives the number of entries.

    Raises:
        BadTar: It is no tar stream, or a member would lie outside of the target.
        OSError: The target is no directory, or the disk is full.
    """
    check_place(target)
    count = 0
    with closing(Stage(target)) as stage:
        for member, content in pax.members(pieces):
            stage.make(member, content)
            count += 1
        stage.move_to(target)
    return count


def check_place(target: bytes) -> None:
    """Refuse to unpack a directory over something else.

    Raises:
        NotADirectoryError: The target is there, and no directory.
    """
    if os.path.lexists(target) and not os.path.isdir(target):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), target)


class Stage:
    """A private directory that is filled with members, none of which leads out of it.

    Attributes:
        root: Where it is, until `close` or `move_to`.
    """

    def __init__(self, target: bytes) -> None:
        """Make the directory, where a rename gets it to `target`."""
        try:
            self.root = new_directory(_place_beside(target))
        except OSError as error:
            raise type(error)(error.errno, error.strerror, target) from error
        # held while somebody fills it; see `sweep`
        self._lock = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with suppress(OSError):  # not every file system has locks
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._top = self.root + b"/"
        self._directories: dict[bytes, Member | None] = {b"": None}

    def close(self) -> None:
        """Remove the directory, unless it has become the target."""
        try:
            with suppress(FileNotFoundError):
                shutil.rmtree(self.root)
        finally:
            os.close(self._lock)

    def sweep(self) -> None:
        """Remove what killed processes have left beside it."""
        with suppress(OSError), os.scandir(os.path.dirname(self.root)) as entries:
            for entry in entries:
                if not (entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False)):
                    continue
                # one that was just made is not locked yet
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > _YOUNG_S:
                    _remove_unlocked(entry.path)

    def make(self, member: Member, content: Iterable[bytes]) -> None:
        """Make what a member stands for; a later one of its name replaces it.

        Raises:
            BadTar: It would lie outside, or is of a kind that is unknown.
        """
        name = inside(member.name)
        kind = member.kind
        if kind == pax.DIRECTORY:
            self._make_directory(name)
            self._directories[name] = member
            return
        self._make_directory(name.rpartition(b"/")[0])
        if name in self._directories:
            raise BadTar(f"member {shown(name)} is a directory and something else, too")
        path = self._top + name
        if kind == pax.FILE:
            _make_file(path, member, content)
        elif kind == pax.HARD_LINK:
            source = self._top + self._earlier(member.target)
            _anew(path, lambda: os.link(source, path, follow_symlinks=False))
        else:
            _make_other(path, member)
            _set_time(path, member)

    def _make_directory(self, name: bytes) -> None:
        """Make a directory and those that it is in; a symlink is none."""
        if name in self._directories:
            return
        self._make_directory(name.rpartition(b"/")[0])
        try:
            os.mkdir(self._top + name, 0o755)
        except FileExistsError:
            raise BadTar(f"member {shown(name)} is used as a directory and is none") from None
        self._directories[name] = None

    def _earlier(self, target: bytes) -> bytes:
        name = inside(target)
        if name.rpartition(b"/")[0] not in self._directories:
            raise BadTar(f"the link target {shown(name)} is no member before it")
        return name

    def move_to(self, target: bytes) -> None:
        """Put everything in place: at once where nothing was, else entry by entry.

        A target that was there keeps its mode and time.
        """
        if not os.path.isdir(target) and self._become(target):
            return
        _merge(self.root, target)
        # last, because a rename may need to write to the directory that it moves
        self._finish(target)

    def _become(self, target: bytes) -> bool:
        """Take the target's name; false if somebody else fills it meanwhile."""
        os.makedirs(target, exist_ok=True)
        os.chmod(self.root, stat.S_IMODE(os.stat(target).st_mode))
        self._finish(self.root)
        try:
            os.rename(self.root, target)  # an empty directory can be replaced
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return False
        if top := self._directories[b""]:
            _finish(target, top)
        return True

    def _finish(self, top: bytes) -> None:
        for name, member in sorted(self._directories.items(), reverse=True):
            if member and name:
                _finish(os.path.join(top, name), member)


def _remove_unlocked(path: bytes) -> None:
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path)
    finally:
        os.close(lock)


def inside(name: bytes) -> bytes:
    """A member's name, relative and without `.`; the root itself is empty.

    Raises:
        BadTar: It would lie outside.
    """
    parts = name.split(b"/")
    if b"" in parts or b"." in parts or b".." in parts:
        if name.startswith(b"/") or b".." in parts:
            raise BadTar(f"member {shown(name)} would lie outside of the target")
        return b"/".join(part for part in parts if part not in (b"", b"."))
    return name


def _place_beside(target: bytes) -> bytes:
    """The nearest directory of the target's file system that a temporary one can be made in."""
    existing = target
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing.rstrip(b"/")) or (
            b"/" if existing[:1] == b"/" else b"."
        )
    if existing != target:
        return existing
    parent = os.path.dirname(os.path.realpath(target))
    if os.stat(parent).st_dev == os.stat(target).st_dev and os.access(parent, os.W_OK):
        return parent
    return target


def _anew(path: bytes, make: Callable[[], _T]) -> _T:
    """Make something in place of what has its name."""
    try:
        return make()
    except FileExistsError:
        os.unlink(path)
        return make()


def _make_file(path: bytes, member: Member, content: Iterable[bytes]) -> None:
    fd = _anew(path, lambda: os.open(path, _NEW, member.mode & 0o777))
    try:
        for piece in content:
            write_with_holes(fd, piece)
        if member.size:
            os.ftruncate(fd, member.size)
        # cheaper than to set what is mostly right; a write takes the set-user-id bit away
        if stat.S_IMODE(os.fstat(fd).st_mode) != member.mode:
            os.fchmod(fd, member.mode)
        os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
    finally:
        os.close(fd)


def _make_other(path: bytes, member: Member) -> None:
    kind, mode = member.kind, member.mode
    if kind == pax.SYMLINK:
        _anew(path, lambda: os.symlink(member.target, path))
    elif kind == pax.FIFO:
        _anew(path, lambda: os.mkfifo(path, mode))
    elif kind in (pax.CHAR, pax.BLOCK):
        mode |= stat.S_IFCHR if kind == pax.CHAR else stat.S_IFBLK
        _anew(path, lambda: os.mknod(path, mode, os.makedev(*member.device)))
    else:
        raise BadTar(f"member {shown(member.name)} has the unknown type {kind!r}")


def _set_time(path: bytes, member: Member) -> None:
    os.utime(path, ns=(member.mtime_ns, member.mtime_ns), follow_symlinks=False)


def _finish(path: bytes, member: Member) -> None:
    os.chmod(path, member.mode)
    _set_time(path, member)


def _merge(source: bytes, target: bytes) -> None:
    """Move the entries of one directory into another; directories on both sides are merged."""
    with os.scandir(source) as entries:
        found = list(entries)
    for entry in found:
        place = os.path.join(target, entry.name)
        is_directory = entry.is_dir(follow_symlinks=False)
        old = os.lstat(place) if os.path.lexists(place) else None
        if old and stat.S_ISDIR(old.st_mode):
            if is_directory:
                _merge(entry.path, place)
                continue
            shutil.rmtree(place)
        elif old and is_directory:
            os.unlink(place)
        _move(entry.path, place)


def _move(source: bytes, target: bytes) -> None:
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # another file system is mounted below the target
        shutil.move(os.fsdecode(source), os.fsdecode(target))
