"""Pax tar streams, piece by piece: names of any bytes, files of any size, little memory."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator

__all__ = ["END", "header", "members", "padding"]

END = bytes(2 * tarfile.BLOCKSIZE)
_PIECE_BYTES = 256 * 1024


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
