"""Dumps of bytes, as `xxd`, `hexdump` and `od` print them, and uuencoded files: read, and put back.

A dump cuts a secret in two at the end of each row, and shows it twice where it has a column of
text.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Dump", "dumps", "uuencoded"]

_ROW = re.compile(
    rb"""
    (?<![0-9A-Za-z]) [0-9a-fA-F]{6,16}
    (?: : [ ] (?P<groups>[0-9a-fA-F]{2,}(?:[ ][0-9a-fA-F]{2,})*) (?:[ ]{2,}(?P<beside>[^\n]*?))?
      | (?P<words>(?:[ ]{1,3}[0-9a-fA-F]{2,16})+) [ ]* (?:[|>](?P<text>[^\n]*)[|<])?
      | (?P<cells>(?:[ ][ -~]{3})+) [ ]* (?:>(?P<after>[^\n]*)<)?
    ) \r? $
    """,
    re.VERBOSE | re.MULTILINE,
)
# what stands between two rows: the end of a line, a star for rows that are like the last, and
# what a log puts before each
_BETWEEN_ROWS = re.compile(rb"\n(?:[^\n]{0,40}\*\r?\n)?[^\n]{0,40}")
_CELL = 4
_NAMED = {b"sp": b" ", b"nl": b"\n", b"ht": b"\t", b"cr": b"\r", b"nul": b"\0"}
_ESCAPED = {rb"\0": b"\0", rb"\n": b"\n", rb"\t": b"\t", rb"\r": b"\r"}
_WAYS = ("big", "little", "octal", "decimal", "signs")
_UUENCODED = re.compile(rb"(?<![0-9A-Za-z])begin [0-7]{3,4} [^\n]*\n((?:[ -`]+\r?\n)+)")


class _Row(NamedTuple):
    """Where the words of a row are, and the text beside them."""

    words: list[tuple[int, int]]
    text: tuple[int, int]


class Dump:
    """Rows that follow each other.

    Attributes:
        start: Where it begins.
        end: Where it ends.
    """

    def __init__(self, data: bytes, rows: list[re.Match[bytes]]) -> None:
        self._data = data
        self._rows = [_row(match) for match in rows]
        self.start, self.end = rows[0].start(), rows[-1].end()

    def readings(self) -> Iterator[tuple[str, bytes]]:
        """The bytes that may be meant, by how the words are read."""
        for way in _WAYS:
            try:
                yield way, b"".join(self._read(row, way) for row in self._rows)
            except (ValueError, OverflowError):
                continue

    def written(self, way: str, new: bytes) -> bytes:
        """The dump with other bytes, as many."""
        data, at = bytearray(self._data), 0
        for row in self._rows:
            begins = at
            for start, end in row.words:
                word = bytes(data[start:end])
                old = _meant(word, way)
                part = new[at : at + len(old)]
                if part != old:
                    data[start:end] = _word(part, len(word), way)
                at += len(old)
            start, end = row.text
            for place, byte in zip(range(start, end), new[begins:at], strict=False):
                if data[place : place + 1] != b"." and data[place] != byte:
                    data[place] = byte
        return bytes(data[self.start : self.end])

    def _read(self, row: _Row, way: str) -> bytes:
        return b"".join(_meant(self._data[start:end], way) for start, end in row.words)


def dumps(data: bytes) -> Iterator[Dump]:
    """Dumps with offsets; without them they are rows of numbers, which `Secret` knows."""
    if not (data.startswith(b"000") or b"\n000" in data or b"00000" in data):
        return
    rows: list[re.Match[bytes]] = []
    for match in _ROW.finditer(data):
        if rows and not _BETWEEN_ROWS.fullmatch(data, rows[-1].end(), match.start()):
            yield Dump(data, rows)
            rows = []
        rows.append(match)
    if rows:
        yield Dump(data, rows)


def uuencoded(data: bytes) -> Iterator[bytes]:
    """The content of uuencoded files."""
    for match in _UUENCODED.finditer(data) if b"begin " in data else ():
        try:
            yield b"".join(
                binascii.a2b_uu(line)
                for line in match[1].splitlines(keepends=True)
                if line.strip() not in (b"", b"end")
            )
        except binascii.Error:
            continue


def _row(match: re.Match[bytes]) -> _Row:
    start, end = match.span("cells")
    if start >= 0:
        words = [(at, at + _CELL) for at in range(start, end, _CELL)]
    else:
        start, end = match.span("words" if match["groups"] is None else "groups")
        words = [found.span() for found in re.compile(rb"[^ ]+").finditer(match.string, start, end)]
    texts = (match.span(name) for name in ("beside", "text", "after"))
    return _Row(words, next((span for span in texts if span[0] >= 0), (0, 0)))


def _meant(word: bytes, way: str) -> bytes:
    """The bytes of a word.

    Raises:
        ValueError: It cannot be read so.
        OverflowError: Likewise.
    """
    bare = word.strip()
    if way in ("big", "little") and bare == word:
        data = bytes.fromhex(bare.decode())
        return data if way == "big" else data[::-1]
    if way == "octal" and bare == word and len(bare) in (3, 6):
        return int(bare, 8).to_bytes(len(bare) // 3, "little")
    if way == "decimal" and len(bare) <= 3:
        return int(bare).to_bytes(1, "little")
    if way == "signs" and len(bare) == 3 and bare.isdigit():
        return int(bare, 8).to_bytes(1, "little")
    if way == "signs" and len(word) == _CELL:
        sign = _NAMED.get(bare) or _ESCAPED.get(bare) or bare or b" "
        if len(sign) == 1:
            return sign
        return b"\x07" if len(sign) <= 3 else b""  # a control character, by its name
    raise ValueError(word)


def _word(data: bytes, size: int, way: str) -> bytes:
    """How bytes are written in a word of some size."""
    if way == "octal":
        return b"%0*o" % (size, int.from_bytes(data, "little"))
    if way in ("big", "little"):
        return (data if way == "big" else data[::-1]).hex().encode()
    if way == "signs":
        return data.rjust(size)
    number = b"%d" % data[0]
    return (number if len(number) <= size else b"42").rjust(size)
