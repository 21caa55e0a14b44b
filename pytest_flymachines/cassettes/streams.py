"""Streams that a recording holds in pieces: output, files and trees that no single answer carries.

A secret may be cut in two by the end of one piece and the start of the next, and what is
compressed can only be looked into as a whole. So pieces are put together again.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pytest_flymachines.cassettes.kept import Attic, Kept, chunks

__all__ = ["Part", "Place", "Stream", "Streams"]


@dataclass(frozen=True)
class Place:
    """Where a piece belongs.

    Attributes:
        stream: Which stream: of requests or of answers, what kind, and whose.
        offset: Where in it; None is after everything that came before.
        accepted: So many bytes of the piece were taken; None is all.
        tail: So many at its end are about the others.
    """

    stream: tuple[Hashable, ...]
    offset: int | None = None
    accepted: int | None = None
    tail: int = 0


@dataclass(frozen=True)
class Part:
    """A piece in a stream.

    Attributes:
        piece: Identifies it for who added it.
        start: Where it begins.
        end: Where it ends.
        tail: So many bytes more it has at its end.
    """

    piece: Any
    start: int
    end: int
    tail: int


@dataclass
class Stream:
    """Pieces that follow each other.

    Attributes:
        content: All bytes, from the first piece on.
        first: Where in the whole the first piece is.
        parts: The pieces; those that were asked for twice are there twice.
    """

    content: Kept
    first: int
    parts: list[Part] = field(default_factory=list)


class Streams:
    """Streams that are put together from pieces as these come."""

    def __init__(self) -> None:
        self._attic = Attic()
        self._all: dict[tuple[Hashable, ...], list[Stream]] = {}

    def __iter__(self) -> Iterator[tuple[tuple[Hashable, ...], Stream]]:
        for name, streams in self._all.items():
            for stream in streams:
                yield name, stream

    def content(self, name: tuple[Hashable, ...]) -> bytes:
        """What a stream holds; nothing if it is not known."""
        return b"".join(self._all[name][-1].content) if name in self._all else b""

    def add(self, place: Place, piece: Hashable, data: bytes | Kept) -> None:
        """Put a piece where it belongs; one that does not fit what is there begins anew."""
        size = (data.size if isinstance(data, Kept) else len(data)) - place.tail
        if place.accepted is not None:
            size = min(size, place.accepted)
        known = self._all.setdefault(place.stream, [])
        stream = known[-1] if known else None
        end = stream.first + stream.content.size if stream else 0
        offset = end if place.offset is None else place.offset
        if stream is None or not _fits(stream, offset - stream.first, _limited(data, size)):
            stream = Stream(Kept(self._attic), offset)
            known.append(stream)
        start = offset - stream.first
        skip = stream.content.size - start
        for chunk in _limited(data, size):
            if len(chunk) > skip:
                stream.content.append(chunk[max(skip, 0) :])
            skip -= len(chunk)
        stream.parts.append(Part(piece, start, start + size, place.tail))


def _limited(data: bytes | Kept, size: int) -> Iterator[bytes]:
    for chunk in chunks(data):
        yield chunk[:size]
        size -= len(chunk)
        if size <= 0:
            return


def _fits(stream: Stream, start: int, pieces: Iterator[bytes]) -> bool:
    """Whether pieces are what a stream holds from `start` on, as far as it goes."""
    if not 0 <= start <= stream.content.size:
        return False
    for piece in pieces:
        there = stream.content.part(start, len(piece))
        if there != piece[: len(there)]:
            return False
        if len(there) < len(piece):
            break
        start += len(piece)
    return True
