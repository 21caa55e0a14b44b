"""Runs of base64 in text: found, decoded however they may be meant, and put back."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

__all__ = ["RUN", "bare", "decodings", "recoded", "with_gaps"]

# also wrapped into lines, also where a JSON text inside a text writes its line ends
_GAP = rb"(?:\s|\\[nr])+"
_GAPS = re.compile(_GAP)
RUN = re.compile(rb"[A-Za-z0-9+/_-]{8,}(?:%b[A-Za-z0-9+/_-]+)*={0,2}" % _GAP)

_TO_URLSAFE = bytes.maketrans(b"+/", b"-_")
_FROM_URLSAFE = bytes.maketrans(b"-_", b"+/")
_GZIP = b"H4sI"


def bare(run: bytes) -> bytes:
    """A run without its line breaks."""
    run = run.translate(None, b" \t\n\r\f\v")
    return _GAPS.sub(b"", run) if b"\\" in run else run


def decodings(run: bytes) -> Iterator[tuple[int, bytes]]:
    """What a bare run may encode, by where its first group begins."""
    standard = run.rstrip(b"=").translate(_FROM_URLSAFE)
    for offset in _starts(standard):
        part = standard[offset:]
        if len(part) % 4 == 1:
            part = part[:-1]
        try:
            yield offset, binascii.a2b_base64(part + b"=" * (-len(part) % 4))
        except binascii.Error:
            continue


def _starts(standard: bytes) -> Iterator[int]:
    """Every alignment, and where gzip may begin after words that look like a part of the run."""
    yield from range(min(4, len(standard)))
    at = standard.find(_GZIP, 4)
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
