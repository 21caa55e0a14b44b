"""Pax tar streams, piece by piece: names of any bytes, files of any size, little memory."""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterable, Iterator

__all__ = ["END", "TreeMeaning", "header", "members", "padding"]

END = bytes(2 * tarfile.BLOCKSIZE)
_PIECE_BYTES = 256 * 1024
# https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html, extended header
_PAX_TIME = re.compile(rb"\d+ [acm]time=[^\n]*\n")


def header(entry: tarfile.TarInfo) -> bytes:
    """The blocks before a member's content."""
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def padding(size: int) -> bytes:
    """The zeros after a member's content."""
    return bytes(-size % tarfile.BLOCKSIZE)


def members(stream: Iterable[bytes]) -> Iterator[tuple[tarfile.TarInfo, Iterator[bytes]]]:
    """Members with their content, which must be taken before the next member is.

    Reads the stream to its end, so that a digest which comes last is checked.

    Raises:
        tarfile.TarError: It is no tar stream.
    """
    pieces = iter(stream)
    with tarfile.open(
        fileobj=_Reader(pieces),  # type: ignore[call-overload]
        mode="r|",
        bufsize=_PIECE_BYTES,
        encoding="utf-8",
        errors="surrogateescape",
    ) as archive:
        for member in archive:
            yield member, _content(archive, member)
            archive.members.clear()  # else it keeps every one
    for _ in pieces:
        pass


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    if source := archive.extractfile(member) if member.isreg() else None:
        while piece := source.read(_PIECE_BYTES):
            yield piece


class _Reader:
    """As much of a file as tarfile needs to read a stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = bytearray()

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, None)) is not None:
            self._rest += piece
        data = bytes(self._rest[:size])
        del self._rest[:size]
        return data


class TreeMeaning:
    """Names, modes and contents of a tar stream that passes, without its times."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._rest = bytearray()
        self._left = 0
        self._extended = False

    def digest(self) -> str:
        """Of what has passed, in hex, short enough for people to compare."""
        return self._digest.hexdigest()[:16]

    def of(self, tar: Iterable[bytes]) -> Iterator[bytes]:
        """The same pieces."""
        for piece in tar:
            yield piece
            self._rest += piece
            while len(self._rest) >= tarfile.BLOCKSIZE and self._step():
                pass

    def _step(self) -> bool:
        """Take a header, or what is there of a content; false if more must be there first."""
        if not self._left:
            self._header(bytes(self._rest[: tarfile.BLOCKSIZE]))
            del self._rest[: tarfile.BLOCKSIZE]
            return True
        if self._extended and len(self._rest) < self._left:
            return False
        data = bytes(self._rest[: self._left])
        del self._rest[: len(data)]
        self._left -= len(data)
        # what is left of an extended header is the names that an ordinary one cannot hold
        self._digest.update(_PAX_TIME.sub(b"", data).rstrip(b"\0") if self._extended else data)
        return True

    def _header(self, block: bytes) -> None:
        try:
            entry = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:  # the zeros at the end
            return
        self._left = entry.size + -entry.size % tarfile.BLOCKSIZE
        self._extended = entry.type == tarfile.XHDTYPE
        if not self._extended:
            facts = (entry.name, entry.mode, entry.type, entry.linkname, entry.size)
            self._digest.update(repr(facts).encode())
