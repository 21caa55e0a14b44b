"""What bytes are packed in: gzip wherever it stands, other compressions and archives, tar.

Packing again keeps the size wherever it can: sizes and offsets of what was recorded stay true.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator

__all__ = [
    "GZIP",
    "MEMBER",
    "TAIL_BYTES",
    "Member",
    "expanded",
    "opened",
    "packed_again",
    "sha256",
    "unpacked",
    "with_checksums",
    "with_tail",
]

TAIL_BYTES = 64
GZIP = b"\x1f\x8b"
MEMBER = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]")

_GZIP_BITS = 31  # zlib's word for a gzip stream
# what fits is not always what is compressed most
_LEVELS = (9, 6, 4, 1)
_PIECE_BYTES = 1 << 20
_BLOCK = 512
_CHECKSUM = slice(148, 156)


def unpacked(data: bytes) -> bytes | None:
    """What gzip or zlib data holds; None for anything else."""
    try:
        if data[:2] == GZIP:
            return gzip.decompress(data)
        if data[:1] == b"\x78" and len(data) > 2 and int.from_bytes(data[:2]) % 31 == 0:
            return zlib.decompress(data)
    except (OSError, EOFError, zlib.error):
        pass
    return None


def packed_again(plain: bytes, like: bytes, *, fixed: bool = False) -> bytes | None:
    """Compressed as `like`, and as long if that is possible: readers pass over zeros at the end.

    None if it is `fixed` that it must be as long, and it would be longer.
    """
    bits = _GZIP_BITS if like[:2] == GZIP else zlib.MAX_WBITS
    packed = b""
    for level in _LEVELS:
        packer = zlib.compressobj(level, zlib.DEFLATED, bits, zlib.DEF_MEM_LEVEL + 1)
        packed = packer.compress(plain) + packer.flush()
        if len(packed) <= len(like):
            break
    else:
        if fixed:
            return None
    return packed.ljust(len(like), b"\0")


class Member:
    """One gzip member within bytes, whose content is iterated in pieces.

    Attributes:
        end: Where it ends; None until then, and if it is no member or not all of it is there.
        unfinished: It goes on beyond the end of the bytes.
    """

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self._start = start
        self.end: int | None = None
        self.unfinished = False

    def __iter__(self) -> Iterator[bytes]:
        inflater = zlib.decompressobj(_GZIP_BITS)
        rest: bytes = self._data[self._start :]
        try:
            while not inflater.eof:
                piece = inflater.decompress(rest, _PIECE_BYTES)
                rest = inflater.unconsumed_tail
                if piece:
                    yield piece
                elif not rest:
                    self.unfinished = not inflater.eof
                    break
        except zlib.error:
            return
        if inflater.eof:
            self.end = len(self._data) - len(inflater.unused_data)


def expanded(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The content of a gzip stream, of one member or several, as far as it is one."""
    inflater = zlib.decompressobj(_GZIP_BITS)
    try:
        for chunk in chunks:
            rest = chunk
            while rest:
                if inflater.eof:
                    inflater = zlib.decompressobj(_GZIP_BITS)
                yield inflater.decompress(rest, _PIECE_BYTES)
                rest = inflater.unconsumed_tail or inflater.unused_data.lstrip(b"\0")
    except zlib.error:
        yield rest  # what follows is no member, and is what it is


def opened(data: bytes) -> Iterator[bytes]:
    """What is in an archive or compression that can be looked into, but is not packed again.

    What is damaged, or has a password, holds nothing that could be seen.
    """
    if data[:4] == b"PK\3\4":
        yield from _zipped(data)
    elif data[:3] == b"BZh":
        import bz2

        with contextlib.suppress(OSError, ValueError):
            yield bz2.BZ2Decompressor().decompress(data)
    elif data[:6] == b"\xfd7zXZ\0":
        import lzma

        with contextlib.suppress(lzma.LZMAError):
            yield lzma.LZMADecompressor().decompress(data)
    elif data[:1] == b"\x78" and (plain := unpacked(data)) is not None:
        yield plain


def _zipped(data: bytes) -> Iterator[bytes]:
    import io
    import zipfile

    damaged = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError)
    with contextlib.suppress(*damaged), zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
            yield entry.filename.encode("utf-8", "surrogateescape")
            with contextlib.suppress(*damaged), archive.open(entry) as file:
                yield from iter(lambda: file.read(_PIECE_BYTES), b"")


def with_checksums(data: bytes) -> bytes:
    """A tar archive whose headers have the checksums that they must have; anything else as is."""
    changed: bytearray | None = None
    at = 0
    while data[at + 257 : at + 262] == b"ustar" and len(data) >= at + _BLOCK:
        header = bytearray(data[at : at + _BLOCK])
        header[_CHECKSUM] = b" " * 8
        checksum = b"%06o\0 " % sum(header)
        if _number(data[at + 148 : at + 156]) != sum(header):
            changed = changed or bytearray(data)
            changed[at + 148 : at + 156] = checksum
        size = _number(bytes(header[124:136]))
        if size is None:
            break
        at += _BLOCK + -(-size // _BLOCK) * _BLOCK
    return data if changed is None else bytes(changed)


def sha256(data: bytes) -> bytes:
    """A digest in hex."""
    return hashlib.sha256(data).hexdigest().encode()


def with_tail(new: bytes, old: bytes) -> bytes:
    """A body that ends in the digest of the rest, as long ones of our agent do, still does."""
    if old[-TAIL_BYTES:] == sha256(old[:-TAIL_BYTES]):
        return new[:-TAIL_BYTES] + sha256(new[:-TAIL_BYTES])
    return new


def _number(field: bytes) -> int | None:
    """A number as tar writes it: octal, or binary if it is large."""
    if field[0] & 0x80:
        return int.from_bytes(field) & ((1 << (8 * len(field) - 1)) - 1)
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        return None
