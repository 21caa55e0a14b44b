"""What a tree means, whatever its times and umask are: for requests that carry it in pieces."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator

from pytest_flymachines.agent.server import pax
from pytest_flymachines.sandbox.text import decode_name

__all__ = ["TreeMeaning"]

# https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html, extended header
_PAX_TIME = re.compile(rb"\d+ [acm]time=[^\n]*\n")


class TreeMeaning:
    """Names and contents of a tar stream that passes, and what may be run.

    Without its times, and what else of its modes the umask of the user's computer decided.
    """

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
            while len(self._rest) >= pax.BLOCK_BYTES and self._step():
                pass

    def _step(self) -> bool:
        """Take a header, or what is there of a content; false if more must be there first."""
        if not self._left:
            self._header(bytes(self._rest[: pax.BLOCK_BYTES]))
            del self._rest[: pax.BLOCK_BYTES]
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
        if block.count(0) == pax.BLOCK_BYTES:  # at the end
            return
        entry = pax.parsed(block)
        self._left = entry.size + -entry.size % pax.BLOCK_BYTES
        self._extended = entry.kind in pax.RECORDS
        if not self._extended:
            name, target = decode_name(entry.name), decode_name(entry.target)
            mode = entry.mode
            if entry.kind != pax.SYMLINK:  # as with the usual umask
                mode = 0o755 if mode & 0o111 else 0o644
            facts = (name, mode, entry.kind, target, entry.size)
            self._digest.update(repr(facts).encode())
