"""A tar stream as a tree: unpacked beside the target first, then put in place."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from contextlib import suppress

from .names import new_directory
from .wire import BadRequest
from .writing import write_all

PIECE_BYTES = 256 * 1024


def unpack_tree(target: bytes, pieces: Iterator[bytes]) -> int:
    """Unpack a tar stream; its entries replace those of the directory `target`, others stay.

    An exception of `pieces`, or a bad stream, leaves the target as it was. Owners are not
    taken over. Gives the number of entries.

    Raises:
        BadRequest: It is no tar stream, or a member would lie outside of the target.
        OSError: The target is no directory, or the disk is full.
    """
    if os.path.lexists(target) and not os.path.isdir(target):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), target)
    stage = _Stage(new_directory(_place_beside(target)))
    try:
        stage.fill(pieces)
        stage.move_to(target)
    finally:
        shutil.rmtree(stage.root)
    return stage.count


def _place_beside(target: bytes) -> bytes:
    """The nearest directory of the target's file system that a temporary one can be made in."""
    existing = target
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing.rstrip(b"/")) or b"/"
    if existing != target:
        return existing
    parent = os.path.dirname(os.path.realpath(target))
    if os.stat(parent).st_dev == os.stat(target).st_dev and os.access(parent, os.W_OK):
        return parent
    return target


class _Pieces:
    """As much of a file as tarfile needs to read a stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, None)) is not None:
            self._rest += piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


class _Stage:
    """A private directory that is filled with members, none of which leads out of it."""

    def __init__(self, root: bytes) -> None:
        self.root = root
        self.count = 0
        self._directories: dict[bytes, tarfile.TarInfo | None] = {b"": None}

    def fill(self, pieces: Iterator[bytes]) -> None:
        """Make every member."""
        try:
            with tarfile.open(
                fileobj=_Pieces(pieces),  # type: ignore[call-overload]
                mode="r|",
                bufsize=PIECE_BYTES,
                encoding="utf-8",
                errors="surrogateescape",
            ) as archive:
                for member in archive:
                    self._make(archive, member)
                    archive.members.clear()  # else it keeps every one
        except tarfile.TarError as error:
            raise BadRequest(f"the body is no good tar stream: {error}") from error
        for _ in pieces:  # what follows the end mark belongs to the digest
            pass

    def _make(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = _inside(member.name)
        self.count += 1
        if member.isdir():
            self._make_directory(name)
            self._directories[name] = member
            return
        self._make_directory(os.path.dirname(name))
        path = os.path.join(self.root, name)
        if name in self._directories:
            raise BadRequest(f"member {member.name!r} is a directory and something else, too")
        with suppress(FileNotFoundError):
            os.unlink(path)
        if member.isreg():
            self._make_file(archive, member, path)
            return
        if member.islnk():
            source = os.path.join(self.root, _inside(member.linkname))
            self._check_parents(_inside(member.linkname))
            os.link(source, path, follow_symlinks=False)
            return
        if member.issym():
            os.symlink(os.fsencode(member.linkname), path)
        elif member.isfifo():
            os.mkfifo(path, member.mode & 0o7777)
        elif member.isdev():
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            device = os.makedev(member.devmajor, member.devminor)
            os.mknod(path, kind | (member.mode & 0o7777), device)
        else:
            raise BadRequest(f"member {member.name!r} has the unknown type {member.type!r}")
        os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)

    def _make_directory(self, name: bytes) -> None:
        """Make a directory and those that it is in; a symlink is none."""
        if name in self._directories:
            return
        self._make_directory(os.path.dirname(name))
        try:
            os.mkdir(os.path.join(self.root, name), 0o755)
        except FileExistsError:
            text = os.fsdecode(name)
            raise BadRequest(f"member {text!r} is used as a directory and is none") from None
        self._directories[name] = None

    def _check_parents(self, name: bytes) -> None:
        if os.path.dirname(name) not in self._directories:
            raise BadRequest(f"the link target {os.fsdecode(name)!r} is no member before it")

    def _make_file(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: bytes) -> None:
        source = archive.extractfile(member)
        assert source
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            while piece := source.read(PIECE_BYTES):
                write_all(fd, piece)
            os.fchmod(fd, member.mode & 0o7777)
            os.utime(fd, (member.mtime, member.mtime))
        finally:
            os.close(fd)

    def move_to(self, target: bytes) -> None:
        """Put everything in place, then give directories their modes and times."""
        new = not os.path.isdir(target)
        os.makedirs(target, exist_ok=True)
        _merge(self.root, target)
        for name, member in sorted(self._directories.items(), reverse=True):
            path = os.path.join(target, name) if name else target
            if member and (name or new):  # a directory that was there keeps its own mode
                os.chmod(path, member.mode & 0o7777)
                os.utime(path, (member.mtime, member.mtime))


def _inside(name: str) -> bytes:
    """A member's name, relative and without `.`; the root itself is empty."""
    encoded = os.fsencode(name)
    parts = [part for part in encoded.split(b"/") if part not in (b"", b".")]
    if encoded.startswith(b"/") or b".." in parts:
        raise BadRequest(f"member {name!r} would lie outside of the target")
    return b"/".join(parts)


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
