"""Pax tar streams: names of any bytes, files of any size, times to the nanosecond, little memory.

The standard library's tarfile takes ten times the processor time for it, which is longer than
the system takes to make a small file. Reads what GNU tar, busybox and tarfile write, too.

Sources: https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html#tag_20_92_13 and
https://www.gnu.org/software/tar/manual/html_node/Standard.html.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple
from zlib import adler32

BLOCK_BYTES = 512
END = bytes(2 * BLOCK_BYTES)

FILE, HARD_LINK, SYMLINK, CHAR, BLOCK, DIRECTORY, FIFO = (b"%d" % n for n in range(7))
_FILES = (FILE, b"\0", b"7")
_WITHOUT_CONTENT = (HARD_LINK, SYMLINK, CHAR, BLOCK, DIRECTORY, FIFO)
# what stands for the next member: pax records, for it or for all that follow, and GNU's names
RECORDS, _GLOBAL_RECORDS, _LONG_NAME, _LONG_LINK = (b"x", b"X"), b"g", b"L", b"K"

_NAME_BYTES = 100
_MOST_RECORD_BYTES = 1 << 20
_SECOND_NS = 10**9
_OWNER = 2 * b"0000000\0"


class BadTar(Exception):
    """It is no tar stream, or one that ends too early, or that does what no tree does."""


class Member(NamedTuple):
    """An entry of a tree.

    Attributes:
        name: Relative to the top, which is `.` itself.
        kind: Type flag, one of `FILE`, `DIRECTORY` and so on.
        mode: Permission bits.
        size: Bytes of content; 0 for everything but files.
        mtime_ns: Time of the last change, in nanoseconds since 1970.
        target: What a symlink points to, or the earlier member that a hard link is another name of.
        device: Major and minor number, of `CHAR` and `BLOCK`.
    """

    name: bytes
    kind: bytes
    mode: int
    size: int
    mtime_ns: int
    target: bytes = b""
    device: tuple[int, int] = (0, 0)


def padding(size: int) -> bytes:
    """The zeros after a content."""
    return bytes(-size % BLOCK_BYTES)


def header(member: Member) -> bytes:
    """The blocks before a member's content; the owner is left out."""
    name, kind, mode, size, mtime_ns, target, device = member
    if kind == DIRECTORY and not name.endswith(b"/"):
        name += b"/"
    seconds, fraction = divmod(mtime_ns, _SECOND_NS)
    late = not 0 <= seconds < 8**11
    records = b""
    if len(name) > _NAME_BYTES or not name.isascii():
        records += _record(b"path", name)
        name = _shortened(name)
    if target and (len(target) > _NAME_BYTES or not target.isascii()):
        records += _record(b"linkpath", target)
        target = _shortened(target)
    if not _is_text(records):
        records = _record(b"hdrcharset", b"BINARY") + records
    if size >= 8**11:
        records += _record(b"size", b"%d" % size)
        size = 0
    if fraction or late:
        records += _record(b"mtime", _time(mtime_ns))
        seconds = 0 if late else seconds
    block = _block(name, kind, mode, size, seconds, target, device)
    return (
        _records_block(len(records)) + records + padding(len(records)) + block if records else block
    )


def _block(
    name: bytes,
    kind: bytes,
    mode: int,
    size: int,
    seconds: int,
    target: bytes = b"",
    device: tuple[int, int] = (0, 0),
) -> bytes:
    where = name.ljust(_NAME_BYTES, b"\0")
    front = b"%b%07o\0%b%011o\0%011o\0" % (where, mode, _OWNER, size, seconds)
    rest, rest_sum = _rest(kind, target, device)
    # the field itself counts as eight spaces
    return front + b"%06o\0 " % (_sum(front) + rest_sum + 8 * 0x20) + rest


@lru_cache(maxsize=64)
def _rest(kind: bytes, target: bytes, device: tuple[int, int]) -> tuple[bytes, int]:
    """What follows the checksum in a header, and its own part of it."""
    numbers = b"%07o\0%07o\0" % device if kind in (CHAR, BLOCK) else bytes(16)
    rest = b"%b%bustar\x0000%b%b" % (kind, target.ljust(100, b"\0"), bytes(64), numbers)
    rest = rest.ljust(BLOCK_BYTES - 156, b"\0")
    return rest, _sum(rest)


@lru_cache(maxsize=64)
def _records_block(size: int) -> bytes:
    """The header of a member's records."""
    return _block(b"././@PaxHeader", b"x", 0, size, 0)


def _record(key: bytes, value: bytes) -> bytes:
    """A pax record, whose length counts its own digits."""
    body = len(key) + len(value) + 3
    size = body + len(b"%d" % body)
    size = body + len(b"%d" % size)
    return b"%d %b=%b\n" % (size, key, value)


def _time(ns: int) -> bytes:
    seconds, fraction = divmod(abs(ns), _SECOND_NS)
    return b"%b%d.%09d" % (b"-" if ns < 0 else b"", seconds, fraction)


def _is_text(records: bytes) -> bool:
    try:
        records.decode()
    except UnicodeDecodeError:
        return False
    return True


def _shortened(name: bytes) -> bytes:
    """What stands where only ASCII may, for those who do not know of records."""
    text = name.decode("utf-8", "surrogateescape")
    return text.encode("ascii", "replace")[:_NAME_BYTES]


def _sum(data: bytes) -> int:
    """Sum of at most 512 bytes: adler32 has it in its lower half, ten times as fast as `sum`.

    Of 256 bytes at once, so that it stays below the modulus of adler32.
    """
    return (adler32(data[:256]) & 0xFFFF) + (adler32(data[256:]) & 0xFFFF) - 2


def members(pieces: Iterable[bytes]) -> Iterator[tuple[Member, Iterable[bytes]]]:
    """Members with their content; what is not taken of it before the next member is left out.

    Reads `pieces` to their end, so that a digest which comes last is checked.

    Raises:
        BadTar: See there.
    """
    stream = _Stream(pieces)
    shared: dict[bytes, bytes] = {}
    known = dict(shared)
    while block := stream.block():
        kind = block[156:157]
        size = _number(block[124:136])
        if kind in RECORDS or kind == _GLOBAL_RECORDS:
            found = _parsed(stream.records(size))
            known |= found
            if kind == _GLOBAL_RECORDS:
                shared |= found
            continue
        if kind in (_LONG_NAME, _LONG_LINK):
            key = b"path" if kind == _LONG_NAME else b"linkpath"
            known[key] = stream.records(size).partition(b"\0")[0]
            continue
        member = _member(block, kind, size, known)
        known = dict(shared)
        if not member.size:
            yield member, ()
            continue
        content = stream.content(member.size)
        yield member, content
        for _ in content:
            pass
        stream.take(-member.size % BLOCK_BYTES)
    stream.finish()


def parsed(block: bytes) -> Member:
    """What one block says by itself, be it the header of a member or of its records.

    Raises:
        BadTar: It is no header.
    """
    return _member(block, block[156:157], _number(block[124:136]), {})


def _member(block: bytes, kind: bytes, size: int, records: dict[bytes, bytes]) -> Member:
    """A member by its header and what records say beyond it."""
    name = records.get(b"path") or _text(block[:100])
    target = records.get(b"linkpath") or (_text(block[157:257]) if block[157] else b"")
    mtime_ns = _number(block[136:148]) * _SECOND_NS
    if block[345] and b"path" not in records and block[257:263] == b"ustar\0":
        name = _text(block[345:500]) + b"/" + name
    if records:
        if any(key.startswith(b"GNU.sparse.") for key in records):
            raise BadTar(f"member {shown(name)} is sparse: pack it without that")
        size = _integer(records.get(b"size"), size)
        mtime_ns = _nanoseconds(records[b"mtime"]) if b"mtime" in records else mtime_ns
    if kind in _FILES:
        # how it was before there was a type for directories
        kind = DIRECTORY if name.endswith(b"/") and kind == b"\0" else FILE
    elif kind == b"S":
        raise BadTar(f"member {shown(name)} is sparse: pack it without that")
    device = (0, 0)
    if kind in (CHAR, BLOCK):
        device = _number(block[329:337]), _number(block[337:345])
    size = 0 if kind in _WITHOUT_CONTENT else size
    if size < 0:
        raise BadTar(f"member {shown(name)} has {size} bytes")
    name = name.rstrip(b"/") if name.endswith(b"/") else name
    return Member(name, kind, _number(block[100:108]) & 0o7777, size, mtime_ns, target, device)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    """Octal digits or, of what they cannot say, GNU's big-endian number after a set bit."""
    if field[0] in (0x80, 0xFF):
        value = int.from_bytes(field[1:], "big")
        return value if field[0] == 0x80 else value - 256 ** (len(field) - 1)
    digits = field.partition(b"\0")[0].strip()
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        raise BadTar(f"the tar stream has {field!r} for an octal number") from None


def _integer(digits: bytes | None, default: int) -> int:
    if digits is None:
        return default
    if not digits.isdigit():
        raise BadTar(f"the tar stream has {digits!r} for a size")
    return int(digits)


def _nanoseconds(value: bytes) -> int:
    seconds, _, fraction = value.partition(b".")
    try:
        whole = abs(int(seconds)) * _SECOND_NS + int(fraction[:9].ljust(9, b"0"))
    except ValueError:
        raise BadTar(f"the tar stream has {value!r} for a time") from None
    return -whole if seconds.startswith(b"-") else whole


def _parsed(data: bytes) -> dict[bytes, bytes]:
    """Pax records."""
    found = {}
    at = 0
    while at < len(data):
        digits, _, _ = data[at : at + 20].partition(b" ")
        end = at + int(digits) if digits.isdigit() else 0
        key, equals, value = data[at + len(digits) + 1 : end - 1].partition(b"=")
        if not equals or data[end - 1 : end] != b"\n":
            raise BadTar(f"the tar stream has {data[at : at + 40]!r} for a pax record")
        found[key] = value
        at = end
    return found


def shown(name: bytes) -> str:
    """A name for people."""
    return repr(name.decode("utf-8", "surrogateescape"))


class _Stream:
    """Pieces of any size, taken in blocks."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._data = b""
        self._at = 0

    def block(self) -> bytes:
        """The next header; empty at the end mark."""
        block = self.take(BLOCK_BYTES)
        if block.count(0) == BLOCK_BYTES:
            return b""
        wanted = _number(block[148:156])
        if wanted != _sum(block) - _sum(block[148:156]) + 8 * 0x20:
            raise BadTar("the tar stream has a header with a wrong checksum")
        return block

    def take(self, size: int) -> bytes:
        """The next bytes, in one piece."""
        end = self._at + size
        if end > len(self._data):
            self._fill(size)
            end = size
        data = self._data[self._at : end]
        self._at = end
        return data

    def records(self, size: int) -> bytes:
        """A content that belongs to the next header."""
        if not 0 < size <= _MOST_RECORD_BYTES:
            raise BadTar(f"the tar stream has a header with {size} bytes of records")
        return self.take(size + -size % BLOCK_BYTES)[:size]

    def content(self, size: int) -> Iterator[bytes]:
        """A content, in pieces as they come."""
        while size > 0:
            data, at = self._data, self._at
            if at == len(data):
                data, at = self._next(), 0
                if len(data) <= size:
                    size -= len(data)
                    yield data
                    continue
                self._data = data = bytes(data)
            piece = data[at : at + size]
            self._at = at + len(piece)
            size -= len(piece)
            yield piece

    def finish(self) -> None:
        """Read what follows."""
        for _ in self._pieces:
            pass

    def _next(self) -> bytes:
        piece = next(self._pieces, None)
        if piece is None:
            raise BadTar("the tar stream ends before its end mark")
        return piece

    def _fill(self, size: int) -> None:
        parts = [self._data[self._at :]]
        have = len(parts[0])
        while have < size:
            parts.append(piece := self._next())
            have += len(piece)
        self._data = b"".join(parts)
        self._at = 0
