"""Bodies that go up, each with its digest, as often as they have to be sent."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import IO

from pytest_flymachines.agent.client import Content
from pytest_flymachines.agent.server.digests import (
    HEADER,
    HEX_BYTES,
    TAIL,
    digest_of,
    with_tail,
)

__all__ = ["Upload"]

# A body up to this size is made whole before it is sent, so that its digest goes ahead.
WHOLE_BYTES = 1 << 20
MEMORY_BYTES = 8 << 20
PIECE_BYTES = 256 * 1024
WORTH_COMPRESSING_BYTES = 4096
SAMPLE_BYTES = 32 * 1024


class Upload:
    """A body, and the headers that it needs.

    What is large is sent while it is read, and read again if it has to be sent again. Its length
    is announced where the data tell it by an attribute `size`, or once they were read. An
    iterator, which can be read only once, is read to its end first: what is more than 8 MiB
    waits in a temporary file, until `close`.
    """

    def __init__(self, data: Iterable[bytes]) -> None:
        self.headers = {"content-type": "application/octet-stream"}
        self._data = data
        self._file: IO[bytes] | None = None
        pieces = iter(data)
        self._start = _first(pieces)
        self._begun: Iterator[bytes] | None = None
        if len(self._start) <= WHOLE_BYTES:
            self.headers[HEADER] = digest_of(self._start)
            return
        self.headers[HEADER] = TAIL
        self._begun = chain([self._start], pieces)
        size: int | None = getattr(data, "size", None)
        if pieces is data:
            self._file = _spooled(self._begun)
            size = self._file.tell()
            self._begun = None
        if size is not None:
            self.headers["content-length"] = str(size + HEX_BYTES)

    def close(self) -> None:
        """Drop the bytes."""
        if self._file:
            self._file.close()

    def compress_if_it_pays(self) -> None:
        """Have `content` give gzip from now on, if a sample says that it gets smaller.

        What says by an attribute `sparse` that it is mostly holes gets smaller in any case.
        """
        sample = self._start[:SAMPLE_BYTES]
        smaller = getattr(self._data, "sparse", False) or (
            len(zlib.compress(sample, 1)) < 0.8 * len(sample)
        )
        if smaller and len(self._start) >= WORTH_COMPRESSING_BYTES:
            self.headers["content-encoding"] = "gzip"
            self.headers.pop("content-length", None)

    @property
    def content(self) -> Content:
        """The body, or what gives it from its start."""
        zip_it = "content-encoding" in self.headers
        if self.headers[HEADER] == TAIL:
            return lambda: _gzipped(self._pieces()) if zip_it else self._pieces()
        return b"".join(_gzipped([self._start])) if zip_it else self._start

    def _pieces(self) -> Iterator[bytes]:
        begun, self._begun = self._begun, None
        return with_tail(begun or self._again())

    def _again(self) -> Iterable[bytes]:
        if self._file is None:
            return self._data
        file = self._file
        file.seek(0)
        return iter(lambda: file.read(PIECE_BYTES), b"")


def _first(pieces: Iterator[bytes]) -> bytes:
    """All of it, or a bit more than what is made whole."""
    start = bytearray()
    while len(start) <= WHOLE_BYTES and (piece := next(pieces, None)) is not None:
        start += piece
    return bytes(start)


def _spooled(pieces: Iterable[bytes]) -> IO[bytes]:
    file = tempfile.SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115
    try:
        for piece in pieces:  # Python 3.11's writelines looks at the size only at the end
            file.write(piece)
    except BaseException:
        file.close()
        raise
    return file


def _gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    zipper = zlib.compressobj(1, wbits=31)
    for piece in pieces:
        if packed := zipper.compress(piece):
            yield packed
    yield zipper.flush()
