"""What bytes are packed in, and packing it again: gzip, zlib, tar.

Packing again keeps the size wherever it can: sizes and offsets of what was recorded stay true.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator

__all__ = [
    "GZIP",
    "TAIL_BYTES",
    "expanded",
    "packed_again",
    "sha256",
    "tidied",
    "unpacked",
    "with_tail",
    "without_tail",
]

TAIL_BYTES = 64
GZIP = b"\x1f\x8b"

_GZIP_BITS = 31  # zlib's word for a gzip stream
# what fits is not always what is compressed most
_LEVELS = (9, 6, 4, 1)
_PIECE_BYTES = 1 << 20
_BLOCK = 512
_CHECKSUM = slice(148, 156)
_SIZE = slice(124, 136)
# headers that hold names of the member after them, by their type
_LONG = {b"x": b"", b"L": b"path", b"K": b"linkpath"}
_PAX_NAME = re.compile(rb"[0-9]+ (path|linkpath)=([^\n]*)\n")
_NAME_FIELDS = {b"path": (0, 100), b"linkpath": (157, 257)}


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
    best = b""
    for level in _LEVELS:
        packer = zlib.compressobj(level, zlib.DEFLATED, bits, zlib.DEF_MEM_LEVEL + 1)
        packed = packer.compress(plain) + packer.flush()
        best = packed if not best or len(packed) < len(best) else best
        if len(best) <= len(like):
            break
    else:
        if fixed:
            return None
    return best.ljust(len(like), b"\0")


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


def tidied(data: bytes) -> bytes:
    """A tar archive that was changed, with headers that are right again; anything else as is.

    A long name, or one in another alphabet, stands before its member; what the header itself
    has of it is cut off, and has question marks. So it is taken from there once more.
    """
    changed: bytearray | None = None
    names: dict[bytes, bytes] = {}
    at = 0
    while data[at + 257 : at + 262] == b"ustar" and len(data) >= at + _BLOCK:
        header = bytearray(data[at : at + _BLOCK])
        kind = bytes(header[156:157])
        if kind in _LONG:
            names = {**names, **_names(kind, data[at + _BLOCK :], _number(bytes(header[_SIZE])))}
        elif kind != b"g":
            _rename(header, names)
            names = {}
        header[_CHECKSUM] = b" " * 8
        if _number(data[at + 148 : at + 156]) != sum(header):
            changed = changed or bytearray(data)
            header[_CHECKSUM] = b"%06o\0 " % sum(header)
            changed[at : at + _BLOCK] = header
        size = _number(bytes(header[_SIZE]))
        if size is None:
            break
        at += _BLOCK + -(-size // _BLOCK) * _BLOCK
    return data if changed is None else bytes(changed)


def _names(kind: bytes, data: bytes, size: int | None) -> dict[bytes, bytes]:
    """What a header of names says: the fields that it is about, and their content."""
    content = data[: size or 0]
    if kind != b"x":
        return {_LONG[kind]: content.rstrip(b"\0")}
    return {m[1]: m[2] for m in _PAX_NAME.finditer(content)}


def _rename(header: bytearray, names: dict[bytes, bytes]) -> None:
    """Have a header's own fields agree with the names before it, as far as they go."""
    for field, (start, end) in _NAME_FIELDS.items():
        name = names.get(field)
        if name is None or b"*" not in name:
            continue
        text = name.decode("utf-8", "surrogateescape").encode("ascii", "replace")
        header[start:end] = text[: end - start].ljust(end - start, b"\0")
        if field == b"path" and header[257:263] == b"ustar\0":
            header[345:500] = b"\0" * 155


def sha256(data: bytes) -> bytes:
    """A digest in hex."""
    return hashlib.sha256(data).hexdigest().encode()


def with_tail(new: bytes, old: bytes) -> bytes:
    """A body that ends in the digest of the rest, as long ones of our agent do, still does."""
    if without_tail(old) is not old:
        return new[:-TAIL_BYTES] + sha256(new[:-TAIL_BYTES])
    return new


def without_tail(body: bytes) -> bytes:
    """A body without the digest of the rest that it ends in; the same object if it has none."""
    rest = body[:-TAIL_BYTES]
    return rest if body[-TAIL_BYTES:] == sha256(rest) else body


def _number(field: bytes) -> int | None:
    """A number as tar writes it: octal, or binary if it is large."""
    if field[0] & 0x80:
        return int.from_bytes(field) & ((1 << (8 * len(field) - 1)) - 1)
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        return None
