"""What is packed, wherever in bytes it begins: gzip, zlib, bzip2, xz, zstd, files in zip archives.

Brotli and deflate alone begin with nothing that would tell them; see `_decoded` in `transports`.
"""

from __future__ import annotations

import functools
import importlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

__all__ = ["GZIP_MEMBER", "Member", "Packer", "members", "present"]

GZIP_MEMBER = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]")

_GZIP_BITS = 31  # zlib's word for a gzip stream
_RAW_BITS = -15  # and for one without any header
_PIECE_BYTES = 1 << 20
_FED_BYTES = 64 << 10
# what only looks like the beginning of zlib data is found out in so many bytes, nearly always
_TRIED_BYTES = 64
_ZIP_HEADER = 30
_DEFLATED = 8


class Packer(NamedTuple):
    """A way to pack.

    Attributes:
        sign: What its data begins with, as a part of it that is quickly found, and where in it.
        start: The pattern of its beginning.
        inflate: Makes what unpacks it, in pieces.
    """

    sign: bytes
    start: re.Pattern[bytes]
    inflate: Callable[[], Any]


def _gzip() -> Any:
    return zlib.decompressobj(_GZIP_BITS)


def _zlib() -> Any:
    return zlib.decompressobj()


def _zip() -> Any:
    return zlib.decompressobj(_RAW_BITS)


def _bzip2() -> Any:
    import bz2

    return bz2.BZ2Decompressor()


def _xz() -> Any:
    import lzma

    return lzma.LZMADecompressor()


@functools.cache
def _zstd_module() -> Any:
    """What unpacks zstd: Python's own from 3.14 on, or a package, if there is one."""
    for name in ("compression.zstd", "backports.zstd", "pyzstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def _zstd() -> Any:
    return _zstd_module().ZstdDecompressor()


def _errors() -> tuple[type[Exception], ...]:
    """What is raised for what is damaged."""
    import lzma

    theirs = (_zstd_module().ZstdError,) if _zstd_module() else ()
    return (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, RuntimeError, *theirs)


_PACKERS = (
    Packer(b"\x1f\x8b\x08", GZIP_MEMBER, _gzip),
    Packer(b"x", re.compile(rb"x[\x01\x5e\x9c\xda]"), _zlib),
    Packer(b"BZh", re.compile(rb"BZh[1-9]1AY&SY"), _bzip2),
    Packer(b"\xfd7zXZ\0", re.compile(rb"\xfd7zXZ\0"), _xz),
    Packer(b"PK\3\4", re.compile(rb"PK\x03\x04.{4}\x08\0", re.DOTALL), _zip),
    Packer(b"\x28\xb5\x2f\xfd", re.compile(rb"\x28\xb5\x2f\xfd"), _zstd),
)
_OF_ASCII = tuple(packer for packer in _PACKERS if packer.sign.isascii())


class Member:
    """One packed piece within bytes, whose content is iterated in pieces.

    What is damaged, or has a password, holds nothing that could be seen.

    Attributes:
        start: Where it begins.
        end: Where it ends; None until then, and if it is no member or not all of it is there.
        unfinished: It goes on beyond the end of the bytes.
    """

    def __init__(self, data: bytes, start: int, inflate: Callable[[], Any] = _gzip) -> None:
        self._data = data
        self._inflate = inflate
        self.start = start
        self.end: int | None = None
        self.unfinished = False

    def __iter__(self) -> Iterator[bytes]:
        start = self.start
        if self._inflate is _zip:
            header = self._data[start : start + _ZIP_HEADER]
            lengths = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:], "little")
            start += _ZIP_HEADER + sum(lengths)
        at, rest = start, b""
        inflater = self._inflate()
        try:
            while not inflater.eof:
                if not rest and getattr(inflater, "needs_input", True):
                    rest = self._data[at : at + _FED_BYTES]
                    at += len(rest)
                    if not rest:
                        self.unfinished = True
                        break
                piece = inflater.decompress(rest, _PIECE_BYTES)
                # zlib gives back what it had no room for, the others keep it
                rest = getattr(inflater, "unconsumed_tail", b"")
                if piece:
                    yield piece
        except _errors():
            return
        if inflater.eof:
            self.end = at - len(inflater.unused_data)


def _may_be(packer: Packer, data: bytes, start: int) -> bool:
    """Whether it is worth to unpack: two bytes are all that zlib data begins with."""
    if packer.inflate is _zlib:
        try:
            _zlib().decompress(data[start : start + _TRIED_BYTES])
        except zlib.error:
            return False
    return True


def present(data: bytes) -> list[Packer]:
    """The ways to pack whose sign stands somewhere in bytes."""
    packers = _OF_ASCII if data.isascii() else _PACKERS
    return [packer for packer in packers if packer.sign in data]


def members(data: bytes, packers: Iterable[Packer]) -> Iterator[Member]:
    """Everything in bytes that may be packed; each is to be read before the next is asked for.

    Args:
        data: The bytes.
        packers: Those that are `present`.
    """
    for packer in packers:
        if packer.inflate is _zstd and _zstd_module() is None:
            continue
        end = 0
        for match in packer.start.finditer(data):
            if match.start() >= end and _may_be(packer, data, match.start()):
                member = Member(data, match.start(), packer.inflate)
                yield member
                end = member.end or end
