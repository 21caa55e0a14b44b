"""Bodies and their digests.

The header `x-content-sha256` has the digest in hex. Of a body that is sent before it is known to
its end the header says `tail`, and the digest is the last 64 bytes of the body: so nothing has
to be read twice, or kept. Where the body's source fails in the middle, `!`, the errno and the end
of the path take the place of the digest.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator

HEADER = "x-content-sha256"
TAIL = "tail"
HEX_BYTES = 64


_ZEROS = bytes(64 * 1024)


class Damaged(Exception):
    """A body's digest is not that of its bytes."""


class SourceFailed(Damaged):
    """What the body was read from failed.

    Attributes:
        errno: Why.
        path: Of what; of a long one only the end.
    """

    def __init__(self, tail: bytes) -> None:
        number, _, path = tail[1:].rstrip(b"\0").partition(b" ")
        self.errno = int(number) if number.isdigit() else errno.EIO
        self.path = path
        super().__init__(f"its source failed: {os.strerror(self.errno)}: {os.fsdecode(path)}")


def digest_of(data: bytes) -> str:
    """The digest of a body that is known to its end."""
    return hashlib.sha256(data).hexdigest()


def with_tail(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces, and then their digest."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        yield piece
    yield digest.hexdigest().encode()


def with_tail_or_error(pieces: Iterable[bytes], size: int | None = None) -> Iterator[bytes]:
    """The pieces, and then their digest, or what their `OSError` says.

    Args:
        pieces: A body.
        size: Bytes that were announced for it, so many of which are given whatever happens.
    """
    digest = hashlib.sha256()
    left = size or 0
    try:
        for piece in pieces:
            digest.update(piece)
            left -= len(piece)
            yield piece
        tail = digest.hexdigest().encode()
    except OSError as error:
        tail = _error_tail(error)
        for start in range(0, left, len(_ZEROS)):
            yield _ZEROS[: left - start]
    yield tail


def _error_tail(error: OSError) -> bytes:
    start = b"!%d " % (error.errno or errno.EIO)
    path = os.fsencode(error.filename or "")
    room = HEX_BYTES - len(start)
    if len(path) > room:
        path = b"..." + path[3 - room :]
    return (start + path).ljust(HEX_BYTES, b"\0")


def checked(pieces: Iterable[bytes], wanted: str) -> Iterator[bytes]:
    """The pieces, without the digest where it is their tail.

    Args:
        pieces: A body.
        wanted: What the header says; empty checks nothing.

    Raises:
        Damaged: At the end; it is not the digest of what came before.
        SourceFailed: At the end, which came too early.
    """
    if not wanted:
        yield from pieces
        return
    digest = hashlib.sha256()
    held = b""
    for piece in pieces:
        if wanted != TAIL:
            digest.update(piece)
            yield piece
        elif len(piece) < HEX_BYTES:
            held += piece
        else:  # the one before has no part of the tail, and goes on as it is
            digest.update(held)
            if held:
                yield held
            held = piece
    if wanted == TAIL:
        held, tail = held[:-HEX_BYTES], held[-HEX_BYTES:]
        digest.update(held)
        if held:
            yield held
        if tail.startswith(b"!"):
            raise SourceFailed(tail)
        wanted = tail.decode("latin-1")
    if digest.hexdigest() != wanted.lower():
        raise Damaged(f"its SHA-256 is {digest.hexdigest()}, {wanted!r} was announced")
