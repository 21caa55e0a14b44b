"""The text within large data that is no text: all that escapes and base64 in it can stand in.

Random bytes have a percent sign or a backslash every now and then, and what surrounds it is not
worth to be read back.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from pytest_flymachines.cassettes.members import Packer

__all__ = ["BETWEEN", "text_in"]

#: What stands between texts that are looked through together: it is part of no secret.
BETWEEN = b"\xff\xff\n"

_SMALL_BYTES = 4096
_PACKED_BYTES = 32 << 10
# in random bytes so many signs of ASCII seldom follow each other
_LONGEST_HINT = 10
_ASCII = bytes([0, *b"\t\n\r", *range(0x20, 0x7F)])
# control characters, and bytes that UTF-8 never has
_IN_NO_TEXT = bytes([*range(1, 7), *range(14, 27), *range(28, 32), 0xC0, 0xC1, *range(0xF5, 256)])


def text_in(data: bytes, packers: Iterable[Packer], values: bytes, shortest: int) -> bytes:
    """All text in large data, piece by piece; everything, if that is text or small.

    Args:
        data: What is looked through.
        packers: Those whose sign is there: what is packed may be escaped in part.
        values: The bytes that secrets have, which are text whatever they are.
        shortest: Bytes of the shortest secret, which is longer where something in it is escaped.
    """
    if len(data) < _SMALL_BYTES:
        return data
    kinds = data.translate(_kinds(values))
    if b"." not in kinds:
        return data
    hint = b"a" * min(_LONGEST_HINT, shortest + 1)
    telling = (packer.sign for packer in packers if len(packer.sign) > 1)
    starts = [at for sign in telling for at in _places(data, sign)]
    pieces = [data[at : at + _PACKED_BYTES] for at in starts]
    start, at = 0, kinds.find(hint)
    while at >= 0:
        start = kinds.rfind(b".", start, at) + 1 or start
        end = kinds.find(b".", at)
        if end < 0:
            pieces.append(data[start:])
            break
        pieces.append(data[start:end])
        start, at = end, kinds.find(hint, end)
    return BETWEEN.join(pieces)


@functools.lru_cache(maxsize=8)
def _kinds(values: bytes) -> bytes:
    """A table that has `a` for signs of ASCII, `u` for other bytes of text, and a dot."""
    kinds = bytearray(b"u" * 256)
    for byte in _IN_NO_TEXT:
        kinds[byte] = ord(".")
    for byte in _ASCII + values:
        kinds[byte] = ord("a")
    return bytes(kinds)


def _places(data: bytes, sign: bytes) -> list[int]:
    """Where a sign stands; in what was looked at for one it is not looked for again."""
    found, at = [], data.find(sign)
    while at >= 0:
        found.append(at)
        at = data.find(sign, at + _PACKED_BYTES)
    return found
