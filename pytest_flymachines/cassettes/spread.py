"""A secret whose bytes stand apart: as numbers in a list, or as text that was wrapped or coloured.

Lists of numbers are how `od`, `xxd -i` and programs print bytes; lines end in the middle of words
where a terminal, `fold` or a table was too narrow.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import TypeAlias

from pytest_flymachines.cassettes.escapes import character

__all__ = ["Spread", "squeezed"]

_Put: TypeAlias = Callable[[bytes, Iterator[int]], bytes]

_COLOUR = rb"\x1b\[[0-?]*[ -/]*[@-~]"
_COLOURS = re.compile(_COLOUR)
# borders of tables
_BAR = "│".encode()
_EDGE = rb"(?:[ \t]*+(?:\||%b))?+[ \t]*+" % _BAR
# a shell's line editor goes on in the next line with a space and a carriage return
_BREAK = rb"(?:%b|%b\r*+\n%b| ?\r)" % (_COLOUR, _EDGE, _EDGE)
_GAP = _BREAK + b"*+"
# what stands for a space, or for the end of a line that is a part of the value
_SPACE = rb"(?:\s|%b|\||%b)++" % (_COLOUR, _BAR)
# also what shells and JSON write around and before quotes
_LOOSE = b" \t\r\n,:;-|'\"\\" + _BAR
_APART = rb"[\s,:;-]"
_TOKEN = re.compile(b"(%b)|(.)" % _BREAK, re.DOTALL)
_PREFIXED = re.compile(rb"0[xX]|([0-9A-Fa-f]{2})")
_DIGITS = re.compile(rb"[0-9]+")


def squeezed(data: bytes) -> bytes:
    """Bytes without whatever may stand between parts of a secret."""
    if b"\x1b[" in data:
        data = _COLOURS.sub(b"", data)
    return data.translate(None, _LOOSE)


class Spread:
    """The ways in which the bytes of one value may be spread.

    Args:
        value: The value.
    """

    def __init__(self, value: bytes) -> None:
        pairs = [b"%02x" % byte for byte in value]
        decimal, octal = [b"%d" % byte for byte in value], [b"%03o" % byte for byte in value]
        self._signs = squeezed(value)
        self._hex, self._prefixed = b"".join(pairs), b"0x" + b"0x".join(pairs)
        self._decimal, self._octal = b"".join(decimal), b"".join(octal)
        gap = _APART + b"*(?:0x)?"
        self._patterns: tuple[tuple[bytes, int, _Put], ...] = (
            (_SPACE.join(map(_wrapped, value.split())), 0, _signs),
            (gap.join(pairs), re.IGNORECASE, _pairs),
            (_alone((_APART + b"+").join(decimal)), 0, _decimals),
            (_alone((_APART + b"+0?").join(octal)), 0, _octals),
        )
        self._compiled: list[tuple[re.Pattern[bytes], _Put]] = []

    def may_be(self, tight: bytes, small: bytes) -> bool:
        """Whether it is worth to look for the value.

        Args:
            tight: Data that is squeezed.
            small: The same, with small letters.
        """
        return (
            self._signs in tight
            or self._hex in small
            or self._decimal in tight
            or self._octal in tight
            or self._prefixed in small
        )

    def found(self, data: bytes) -> bool:
        """Whether the value stands in data, spread."""
        return any(ways.search(data) for ways, _ in self._ways())

    def without(self, data: bytes, stars: bytes) -> bytes:
        """Data with `stars`, which are as many bytes, in the same places."""
        tight = squeezed(data)
        if self.may_be(tight, tight.lower()):
            for pattern, written in self._ways():
                data = pattern.sub(functools.partial(_written, written, stars), data)
        return data

    def _ways(self) -> list[tuple[re.Pattern[bytes], _Put]]:
        if not self._compiled:
            self._compiled = [(re.compile(text, how), put) for text, how, put in self._patterns]
        return self._compiled


def _written(put: _Put, stars: bytes, match: re.Match[bytes]) -> bytes:
    return put(match[0], iter(stars))


def _wrapped(word: bytes) -> bytes:
    text = word.decode("utf-8", "surrogateescape")
    return _GAP.join(character(sign, thorough=False) for sign in text)


def _alone(pattern: bytes) -> bytes:
    return b"(?<![0-9])" + pattern + b"(?![0-9])"


def _signs(text: bytes, stars: Iterator[int]) -> bytes:
    return _TOKEN.sub(lambda m: m[1] if m[2] is None else bytes([next(stars, ord("*"))]), text)


def _pairs(text: bytes, stars: Iterator[int]) -> bytes:
    return _PREFIXED.sub(lambda m: b"%02x" % next(stars) if m[1] else m[0], text)


def _decimals(text: bytes, _: Iterator[int]) -> bytes:
    """Of the same width, and still JSON."""
    return _DIGITS.sub(lambda m: b"42".rjust(len(m[0])) if len(m[0]) > 1 else b"0", text)


def _octals(text: bytes, _: Iterator[int]) -> bytes:
    return _DIGITS.sub(lambda m: b"052".rjust(len(m[0]), b"0"), text)
