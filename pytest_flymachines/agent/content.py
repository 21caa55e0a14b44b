"""Bodies with digests: going up, known before they are sent; coming down, checked as they pass."""

from __future__ import annotations

import hashlib
import tempfile
import zlib
from collections.abc import Iterable, Iterator

from pytest_flymachines._http import Response

__all__ = ["Damaged", "Upload", "checked"]

DIGEST = "x-content-sha256"
MEMORY_BYTES = 8 << 20
PIECE_BYTES = 256 * 1024
WORTH_COMPRESSING_BYTES = 4096
SAMPLE_BYTES = 32 * 1024
HEX_BYTES = 64


class Upload:
    """Bytes to send, read to their end first, because the digest travels before them.

    What is more than 8 MiB waits in a temporary file, until `close`.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._file = tempfile.SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115
        digest = hashlib.sha256()
        try:
            for piece in pieces:
                digest.update(piece)
                self._file.write(piece)
        except BaseException:
            self._file.close()
            raise
        self.size = self._file.tell()
        self.headers = {DIGEST: digest.hexdigest(), "content-type": "application/octet-stream"}

    def close(self) -> None:
        """Drop the bytes."""
        self._file.close()

    def compress_if_it_pays(self) -> None:
        """Have `content` give gzip from now on, if a sample says that it gets smaller."""
        self._file.seek(0)
        sample = self._file.read(SAMPLE_BYTES)
        smaller = len(zlib.compress(sample, 1)) < 0.8 * len(sample)
        if smaller and self.size >= WORTH_COMPRESSING_BYTES:
            self.headers["content-encoding"] = "gzip"

    def content(self) -> Iterator[bytes]:
        """The body from its start."""
        self._file.seek(0)
        pieces = iter(lambda: self._file.read(PIECE_BYTES), b"")
        if "content-encoding" not in self.headers:
            yield from pieces
            return
        zipper = zlib.compressobj(1, wbits=31)
        for piece in pieces:
            if packed := zipper.compress(piece):
                yield packed
        yield zipper.flush()


class Damaged(Exception):
    """A body's digest is not that of its bytes."""


def checked(response: Response) -> Iterator[bytes]:
    """The body of an answer; its digest is in the header or, of a long body, its last bytes.

    Raises:
        Damaged: It is not the digest of what came before it.
    """
    digest = hashlib.sha256()
    wanted = response.headers.get(DIGEST, "")
    if wanted != "tail":
        for piece in response.iter_bytes():
            digest.update(piece)
            yield piece
    else:
        held = b""
        for piece in response.iter_bytes():
            held += piece
            piece, held = held[:-HEX_BYTES], held[-HEX_BYTES:]
            if piece:
                digest.update(piece)
                yield piece
        wanted = held.decode("latin-1")
    if digest.hexdigest() != wanted:
        raise Damaged(f"SHA-256 is {digest.hexdigest()}, {wanted!r} was announced")
