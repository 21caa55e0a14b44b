"""A tree as a tar stream."""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase

PIECE_BYTES = 256 * 1024
BLOCK_BYTES = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK_BYTES)

Excluded = Callable[[str], bool]


def pack(root: bytes, excluded: Excluded) -> Iterator[bytes]:
    """A directory, whose own entry is `.`, or a single file, as a pax stream.

    Raises:
        OSError: The root is not there, or something below it cannot be read.
    """
    # only to describe entries: it knows hard links, devices and owners
    describer = tarfile.open(fileobj=io.BytesIO(), mode="w")  # noqa: SIM115
    status = os.stat(root)
    entries = (
        _below(root, excluded)
        if stat.S_ISDIR(status.st_mode)
        else iter([(os.path.realpath(root), os.path.basename(root))])
    )
    for path, name in entries:
        try:
            # None for a socket, which its stub does not know
            info: tarfile.TarInfo | None = describer.gettarinfo(
                os.fsdecode(path), os.fsdecode(name)
            )
        except FileNotFoundError:  # gone since the listing
            continue
        if info is None:
            continue
        if info.isreg():
            yield from _file(path, info)
        else:
            yield _header(info)
    yield END


def _below(root: bytes, excluded: Excluded) -> Iterator[tuple[bytes, bytes]]:
    """Path and relative name of a directory and all below it, sorted, parents first."""
    yield root, b"."
    pending = [b""]
    while pending:
        directory = pending.pop()
        subdirectories = []
        with os.scandir(os.path.join(root, directory)) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            name = os.path.join(directory, entry.name)
            if excluded(os.fsdecode(name)):
                continue
            yield entry.path, name
            if entry.is_dir(follow_symlinks=False):
                subdirectories.append(name)
        pending += reversed(subdirectories)


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _file(path: bytes, info: tarfile.TarInfo) -> Iterator[bytes]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        info.size = os.fstat(fd).st_size
        yield _header(info)
        left = info.size
        while left:
            piece = os.read(fd, min(left, PIECE_BYTES))
            if not piece:
                raise OSError(errno.ESTALE, "it became shorter while it was read", path)
            left -= len(piece)
            yield piece
    finally:
        os.close(fd)
    yield bytes(-info.size % BLOCK_BYTES)


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

    def excluded(path: str) -> bool:
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
