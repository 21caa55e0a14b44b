"""Bodies and their digests.

The header `x-content-sha256` has the digest in hex. Of a body that is sent before it is known to
its end the header says `tail`, and the digest is the last 64 bytes of the body: so nothing has
to be read twice, or kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

HEADER = "x-content-sha256"
TAIL = "tail"
HEX_BYTES = 64


class Damaged(Exception):
    """A body's digest is not that of its bytes."""


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


def checked(pieces: Iterable[bytes], wanted: str) -> Iterator[bytes]:
    """The pieces, without the digest where it is their tail.

    Args:
        pieces: A body.
        wanted: What the header says; empty checks nothing.

    Raises:
        Damaged: At the end; it is not the digest of what came before.
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
        held, wanted = held[:-HEX_BYTES], held[-HEX_BYTES:].decode("latin-1")
        digest.update(held)
        if held:
            yield held
    if digest.hexdigest() != wanted.lower():
        raise Damaged(f"its SHA-256 is {digest.hexdigest()}, {wanted!r} was announced")
