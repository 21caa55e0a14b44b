"""Bodies that are long: each in a file of its own, named by its digest, for many cassettes."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from mmap import mmap
from pathlib import Path

from pytest_flymachines.cassettes.kept import LARGEST, Kept, chunks, whole
from pytest_flymachines.errors import CassetteError

__all__ = ["Blobs", "write_whole"]

_PIECE_BYTES = 1 << 20
_SAMPLE_BYTES = 16 << 10
_REPEATS = 0.7
_BLOB = re.compile(rb"blob sha256:([0-9a-f]{64}) \(\d+ bytes\)")


class Blobs:
    """Large bodies, each in a compressed file named by the SHA-256 of what it holds."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def put(self, body: bytes | Kept) -> bytes:
        """Keep a body that is large; what stands for it in the cassette."""
        size = body.size if isinstance(body, Kept) else len(body)
        if size <= LARGEST:
            return whole(body)
        digest = hashlib.sha256()
        for piece in chunks(body):
            digest.update(piece)
        path = self.directory / digest.hexdigest()
        if not _is_whole(path):
            write_whole(path, _compressed(chunks(body)))
        return b"blob sha256:%b (%d bytes)" % (path.name.encode(), size)

    def get(self, text: bytes) -> bytes:
        """The body that `put` kept.

        Raises:
            CassetteError: Its file is missing or damaged.
        """
        match = _BLOB.fullmatch(text)
        if match is None:
            return text
        path = self.directory / match[1].decode()
        try:
            body = gzip.decompress(path.read_bytes())
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise CassetteError(f"{path}: the body kept there cannot be read: {error}") from error
        if hashlib.sha256(body).hexdigest() != path.name:
            raise CassetteError(f"{path}: damaged, its content has another SHA-256 than its name")
        return body

    @staticmethod
    def named_in(data: bytes | mmap) -> set[str]:
        """Digests that the text of a cassette refers to."""
        return {digest.decode() for digest in _BLOB.findall(data)}


def _is_whole(path: Path) -> bool:
    """Whether a body is kept already, and undamaged."""
    digest = hashlib.sha256()
    try:
        with gzip.open(path) as file:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
    except (OSError, EOFError, zlib.error):
        return False
    return digest.hexdigest() == path.name


def _compressed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Members of gzip; what has nothing that repeats is not searched for it, which takes long."""
    for piece in pieces:
        middle = len(piece) // 2
        sample = piece[middle : middle + _SAMPLE_BYTES]
        repeats = len(zlib.compress(sample, 1)) < _REPEATS * len(sample)
        strategy = zlib.Z_DEFAULT_STRATEGY if repeats else zlib.Z_HUFFMAN_ONLY
        packer = zlib.compressobj(wbits=31, strategy=strategy)
        yield packer.compress(piece) + packer.flush()


def write_whole(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file so that everybody sees the old one or the new one, never a part of it.

    Raises:
        CassetteError: It could not be written; what was there before is still there.
    """
    temporary = path.with_name(f".{os.urandom(8).hex()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:  # Ctrl-C, too
        with suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        why = error.strerror or str(error)
        raise CassetteError(f"{path} was not written and is as it was before: {why}") from error
