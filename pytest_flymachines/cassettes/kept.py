"""Bytes that a recording keeps: small ones in memory, large ones in a file that has no name.

Whatever ends the run, nothing of that file is left.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["LARGEST", "LARGEST_JSON", "Attic", "Kept", "chunks", "whole"]

#: Bytes above which a body has a file of its own, and is not held while it is recorded.
LARGEST = 256 * 1024
#: Larger bodies are no JSON of ours.
LARGEST_JSON = 16 << 20

_PIECE_BYTES = 1 << 20


class Attic:
    """The file of one recording, for everything large in it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file: int | None = None
        self._end = 0

    def put(self, data: bytes) -> tuple[int, int]:
        """Keep bytes; where they are, and how many.

        Raises:
            OSError: The disk is full.
        """
        with self._lock:
            if self._file is None:
                with tempfile.TemporaryFile(prefix="pytest-flymachines-") as file:
                    self._file = os.dup(file.fileno())
                weakref.finalize(self, os.close, self._file)
            start, left = self._end, memoryview(data)
            while left:
                left = left[os.pwrite(self._file, left, start + len(data) - len(left)) :]
            self._end += len(data)
        return start, len(data)

    def get(self, start: int, size: int) -> bytes:
        """Bytes that `put` kept."""
        assert self._file is not None
        return os.pread(self._file, size, start)


class Kept:
    """Bytes that grow while they pass, and are read as often as is needed.

    Attributes:
        size: How many there are.
    """

    def __init__(self, attic: Attic) -> None:
        self._attic = attic
        self._places: list[tuple[int, int]] = []
        self._held: list[bytes] = []
        self._held_size = 0
        self._limit = LARGEST
        self.size = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Kept:
        return self

    def append(self, data: bytes) -> None:
        """Add to the end."""
        self._held.append(data)
        self._held_size += len(data)
        self.size += len(data)
        if self._held_size > self._limit:
            try:
                self._places.append(self._attic.put(b"".join(self._held)))
            except OSError:
                self._limit = sys.maxsize  # there is still memory
                return
            self._held, self._held_size, self._limit = [], 0, _PIECE_BYTES

    def __iter__(self) -> Iterator[bytes]:
        for start, size in self._places:
            for at in range(start, start + size, _PIECE_BYTES):
                yield self._attic.get(at, min(_PIECE_BYTES, start + size - at))
        yield from self._held

    def part(self, start: int, size: int) -> bytes:
        """Some of them."""
        found, at, end = [], 0, start + size
        for place, length in self._places:
            if at < end and at + length > start:
                skip = max(0, start - at)
                found.append(self._attic.get(place + skip, min(end - at, length) - skip))
            at += length
        for piece in self._held:
            if at < end and at + len(piece) > start:
                found.append(piece[max(0, start - at) : end - at])
            at += len(piece)
        return b"".join(found)

    def result(self) -> bytes | Kept:
        """Themselves if they are few, else this."""
        return self if self.size > LARGEST else b"".join(self._held)


def whole(body: bytes | Kept | None) -> bytes:
    """All bytes of a body."""
    return b"".join(body) if isinstance(body, Kept) else body or b""


def chunks(body: bytes | Kept | None) -> Iterable[bytes]:
    """The bytes of a body in pieces."""
    return body if isinstance(body, Kept) else (body or b"",)
