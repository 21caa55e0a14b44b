"""Runs of base64 in text: found, decoded however they may be meant, and put back.

Runs of hexadecimal digits and of base32 are such runs too.
"""

from __future__ import annotations

import base64
import binascii
import re
import string
from collections.abc import Iterator

__all__ = ["aligned", "bare", "decodings", "has_row", "recoded", "runs", "unhexed", "with_gaps"]

# also wrapped into lines, also where a JSON text inside a text writes its line ends
_GAP = rb"(?:\s|\\+[nr])+"
_GAPS = re.compile(_GAP)
_WRITTEN_GAP = re.compile(rb"\\\\*[nr]")
_SPACES = b" \t\n\r\f\v"
_LETTERS = (string.ascii_letters + string.digits + "+/_-").encode()
_SHORTEST = 8
_PADDING = 2
_BEGINNING = b"a" * _SHORTEST

_TO_URLSAFE = bytes.maketrans(b"+/", b"-_")
_FROM_URLSAFE = bytes.maketrans(b"-_", b"+/")
_HEX_ROW = re.compile(rb"[0-9A-Fa-f]{32,}")
_GZIP = b"H4sI"


def _kinds(letters: bytes, spaces: bytes = b"") -> bytes:
    """A table that has `a` for letters, `g` for spaces, and a dot for everything else."""
    kinds = bytearray(b"." * 256)
    for byte in letters:
        kinds[byte] = ord("a")
    for byte in spaces:
        kinds[byte] = ord("g")
    return bytes(kinds)


_KINDS = _kinds(_LETTERS, _SPACES)
_ROWS = {
    "hex": (_kinds(b"0123456789abcdefABCDEF"),),
    "base32": (
        _kinds(string.ascii_uppercase.encode() + b"234567"),
        _kinds(string.ascii_lowercase.encode() + b"234567"),
    ),
}


def runs(data: bytes) -> Iterator[tuple[int, int]]:
    """Where runs begin and end.

    A pattern that is tried at each byte takes long; to look for one text does not.
    """
    same = data
    if b"\\" in data:
        same = _WRITTEN_GAP.sub(lambda match: b" " * len(match[0]), data)
    kinds = same.translate(_KINDS)
    last = 0
    while (start := kinds.find(_BEGINNING, last)) >= 0:
        last = kinds.find(b".", start)
        last = len(kinds) if last < 0 else last
        end = start + len(same[start:last].rstrip(_SPACES))
        while data[end : end + 1] == b"=" and end - last < _PADDING:
            end += 1
        yield start, end


def has_row(run: bytes, kind: str, size: int) -> bool:
    """Whether so many characters of `hex` or `base32` follow each other in a bare run."""
    return any(b"a" * size in run.translate(table) for table in _ROWS[kind])


def bare(run: bytes) -> bytes:
    """A run without its line breaks."""
    run = run.translate(None, _SPACES)
    return _GAPS.sub(b"", run) if b"\\" in run else run


def unhexed(run: bytes) -> Iterator[bytes]:
    """What rows of hexadecimal digits in a bare run encode, wherever the first byte begins."""
    for match in _HEX_ROW.finditer(run):
        for start in (match.start(), match.start() + 1):
            digits = run[start : match.end() - (match.end() - start) % 2]
            yield bytes.fromhex(digits.decode())


def aligned(text: bytes) -> int | None:
    """Where the groups of a run begin that is wrapped into lines of one length, as `base64` does.

    None if that is not known. What stands before the first of them may have other groups.
    """
    first = text.find(b"\n")
    size = text.find(b"\n", first + 1) - first - 1
    if first < 0 or size <= 0 or size % 4:
        return None
    breaks = text[first :: size + 1]
    plain = len(bare(text)) + len(breaks) == len(text)
    return first % 4 if plain and breaks == b"\n" * len(breaks) else None


def decodings(
    run: bytes, *, gzips: bool = False, only: int | None = None
) -> Iterator[tuple[int, bytes]]:
    """What a bare run may encode, by where its first group begins.

    Args:
        run: The run.
        gzips: Begin also where gzip may, after words that look like a part of the run.
        only: Where the first group begins, if that is known.
    """
    standard = run.rstrip(b"=").translate(_FROM_URLSAFE)
    for offset in _starts(standard, gzips) if only is None else (only,):
        part = standard[offset:]
        if len(part) % 4 == 1:
            part = part[:-1]
        try:
            yield offset, binascii.a2b_base64(part + b"=" * (-len(part) % 4))
        except binascii.Error:
            continue


def _starts(standard: bytes, gzips: bool) -> Iterator[int]:
    yield from range(min(4, len(standard)))
    at = standard.find(_GZIP, 4) if gzips else -1
    while at >= 0:
        yield at
        at = standard.find(_GZIP, at + 1)


def recoded(run: bytes, offset: int, clean: bytes, *, same_size: bool) -> bytes:
    """A bare run with other content from `offset` on, in the alphabet that it has."""
    coded = base64.b64encode(clean)
    if b"-" in run or b"_" in run:
        coded = coded.translate(_TO_URLSAFE)
    # the last character of an unpadded end also holds bits of what follows
    return run[:offset] + (coded[: len(run) - offset] if same_size else coded)


def with_gaps(run: bytes, like: bytes) -> bytes:
    """A bare run with the line breaks of `like`."""
    pieces, position = [], 0
    for piece in re.split(b"(" + _GAP + b")", like):
        if _GAPS.fullmatch(piece):
            pieces.append(piece)
        else:
            pieces.append(run[position : position + len(piece)])
            position += len(piece)
    return b"".join(pieces)
