"""A tree as a tar stream."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from . import pax

PIECE_BYTES = 256 * 1024
SHORTER = "it became shorter while it was read"
# Files of /proc and /sys have no blocks, and say 0 or a page for their size, whatever is in them.
UNSURE_BYTES = 64 * 1024
_MOST_UNSURE_BYTES = 64 << 20

Excluded = Callable[[bytes], bool]

_KINDS = {
    stat.S_IFREG: pax.FILE,
    stat.S_IFDIR: pax.DIRECTORY,
    stat.S_IFLNK: pax.SYMLINK,
    stat.S_IFIFO: pax.FIFO,
    stat.S_IFCHR: pax.CHAR,
    stat.S_IFBLK: pax.BLOCK,
}


class Entry(NamedTuple):
    """Something that is to be packed.

    Attributes:
        path: Where it is.
        name: Relative to the top, which is `.` itself.
        status: Of itself, if it is a symlink.
    """

    path: bytes
    name: bytes
    status: os.stat_result

    @property
    def kind(self) -> bytes:
        """Its type in a tar stream; empty for a socket, which has none."""
        return _KINDS.get(stat.S_IFMT(self.status.st_mode), b"")


def scan(top: bytes, excluded: Excluded) -> Iterator[Entry]:
    """A directory and what is below it, sorted, depth first; or a single file.

    That order matters to those tars that set a directory's time once they leave it.

    Raises:
        OSError: The top is not there, or a directory cannot be read.
    """
    status = os.stat(top)
    if not stat.S_ISDIR(status.st_mode):
        yield Entry(os.path.realpath(top), os.path.basename(top), status)
        return
    pending = [Entry(top, b".", status)]
    while pending:
        entry = pending.pop()
        yield entry
        if stat.S_ISDIR(entry.status.st_mode):
            pending += _inside(entry, excluded)


def _inside(directory: Entry, excluded: Excluded) -> list[Entry]:
    """Entries of a directory, the last name first."""
    prefix = b"" if directory.name == b"." else directory.name + b"/"
    entries = []
    with os.scandir(directory.path) as found:
        for one in sorted(found, key=lambda one: one.name, reverse=True):
            name = prefix + one.name
            if excluded(name):
                continue
            try:
                entries.append(Entry(one.path, name, one.stat(follow_symlinks=False)))
            except FileNotFoundError:  # gone since the listing
                continue
    return entries


def pack(entries: Iterable[Entry], *, links: bool = False) -> Iterator[bytes]:
    """Entries as a pax stream, in pieces of about 256 KiB; owners are left out.

    Args:
        entries: Directories before what is in them; sockets are left out, and what is gone.
        links: Let further names of a file be hard links, not files of their own.

    Raises:
        OSError: A file cannot be read, or became shorter meanwhile.
    """
    return _joined(_parts(entries, links))


def _joined(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The same in pieces of about 256 KiB, with the end mark."""
    waiting: list[bytes] = []
    size = 0
    for part in parts:
        if len(part) < PIECE_BYTES:
            waiting.append(part)
            size += len(part)
            if size < PIECE_BYTES:
                continue
            part = b""
        # one that is large goes as it is
        yield b"".join(waiting)
        waiting.clear()
        size = 0
        if part:
            yield part
    yield b"".join([*waiting, pax.END])


def pack_file(path: bytes) -> tuple[int, Iterator[bytes]]:
    """A file alone as a pax stream: its length in bytes, and its pieces.

    Raises:
        OSError: It cannot be opened; later, it cannot be read, or became shorter meanwhile.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(fd)
    size, content = _measured(fd, path, status)
    mode = stat.S_IMODE(status.st_mode)
    member = pax.Member(os.path.basename(path), pax.FILE, mode, size, status.st_mtime_ns)
    length = len(pax.header(member)) + size + len(pax.padding(size)) + len(pax.END)
    return length, _joined(_opened(fd, path, member, content))


def _measured(fd: int, path: bytes, status: os.stat_result) -> tuple[int, bytes | None]:
    """How long a file is, and its content if that had to be read to know.

    Raises:
        OSError: It cannot be read, or is without an end; `fd` is closed then.
    """
    if status.st_blocks or status.st_size > UNSURE_BYTES:
        return status.st_size, None
    content = bytearray()
    try:
        while piece := os.read(fd, PIECE_BYTES):
            content += piece
            if len(content) > _MOST_UNSURE_BYTES:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    except OSError as error:
        os.close(fd)
        raise type(error)(error.errno, error.strerror, path) from error
    return len(content), bytes(content)


def _parts(entries: Iterable[Entry], links: bool) -> Iterator[bytes]:
    first: dict[tuple[int, int], bytes] = {}
    for entry in entries:
        path, name, status = entry
        kind = entry.kind
        mode, mtime_ns = stat.S_IMODE(status.st_mode), status.st_mtime_ns
        try:
            if kind == pax.FILE:
                if links and status.st_nlink > 1:
                    target = first.setdefault((status.st_dev, status.st_ino), name)
                    if target != name:
                        yield pax.header(pax.Member(name, pax.HARD_LINK, mode, 0, mtime_ns, target))
                        continue
                yield from _file(path, name, mode, mtime_ns)
            elif kind == pax.SYMLINK:
                yield pax.header(pax.Member(name, kind, mode, 0, mtime_ns, os.readlink(path)))
            elif kind:
                device = os.major(status.st_rdev), os.minor(status.st_rdev)
                yield pax.header(pax.Member(name, kind, mode, 0, mtime_ns, device=device))
        except FileNotFoundError:  # gone since the listing
            continue


def _file(path: bytes, name: bytes, mode: int, mtime_ns: int) -> Iterator[bytes]:
    # what has become a FIFO since the listing is not waited for
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    size, content = _measured(fd, path, os.fstat(fd))
    return _opened(fd, path, pax.Member(name, pax.FILE, mode, size, mtime_ns), content)


def _opened(fd: int, path: bytes, member: pax.Member, content: bytes | None) -> Iterator[bytes]:
    """Header and content of a file, which is read from `fd` if None; closes `fd`."""
    try:
        yield pax.header(member)
        left = member.size
        if content:
            left = 0
            yield content
        while left:
            piece = os.read(fd, min(left, PIECE_BYTES))
            if not piece:
                raise OSError(errno.ESTALE, SHORTER, path)
            left -= len(piece)
            yield piece
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(fd)
    if member.size % pax.BLOCK_BYTES:
        yield pax.padding(member.size)


def excluder(patterns: Sequence[str]) -> Excluded:
    """Whether patterns leave out a relative path.

    A pattern without `/` is matched against the last part of the path (the parts before it
    were asked about earlier), one with `/` against the path from the top, part by part, where
    `**` is any number of directories.
    """
    names = [pattern.rstrip("/") for pattern in patterns if "/" not in pattern.rstrip("/")]
    ways = [
        [part for part in pattern.split("/") if part]
        for pattern in patterns
        if "/" in pattern.rstrip("/")
    ]

    if not patterns:
        return lambda _: False

    def excluded(encoded: bytes) -> bool:
        path = os.fsdecode(encoded)
        name = path.rpartition("/")[2]
        return any(fnmatchcase(name, pattern) for pattern in names) or any(
            _matches(path.split("/"), way) for way in ways
        )

    return excluded


def _matches(parts: list[str], way: list[str]) -> bool:
    if not way:
        return not parts
    if way[0] == "**":
        if len(way) == 1:
            return bool(parts)
        return any(_matches(parts[n:], way[1:]) for n in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], way[0]) and _matches(parts[1:], way[1:])
