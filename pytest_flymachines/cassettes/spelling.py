"""How a secret may be written, and what stands in its place."""

from __future__ import annotations

import base64
import functools
import re

from pytest_flymachines.cassettes.escapes import character
from pytest_flymachines.cassettes.spread import Spread

__all__ = ["PLACEHOLDER", "Secret", "core", "placeholder", "without_padding"]

_SHORTEST_CORE = 8
_SHORTEST_WORD = 4
_WORD = re.compile(rb"[A-Za-z0-9]+")
# where a line goes on in the next one: YAML, shells, C; mails; and the zeros of UTF-16
_GOES_ON = rb"(?:\\(?:\r?\n|\\{2,}n)[ \t]*|=\r?\n|\\+(?:u0000|x00|0{1,3})|%(?:25)*00)?"
_UNSIGNED = bytes.maketrans(b"-_", b"+/")
PLACEHOLDER = re.compile(r"<([A-Za-z_][A-Za-z0-9_ .-]*)\*+>")


class Secret:
    """A value that must not be written, and how it is recognized.

    Attributes:
        value: The value.
        name: What it is called.
        word: Stands in all texts that hold the value; empty, if it has no good one.
        wide: The value in UTF-16, of either order.
        spread: The value with something between its bytes.
    """

    def __init__(self, value: bytes, name: str) -> None:
        self.value = value
        self.name = name
        word = max(_WORD.findall(value), key=len, default=b"")
        self.word = word if len(word) >= _SHORTEST_WORD else b""
        self._text = value.decode("utf-8", "surrogateescape")
        little = self._text.encode("utf-16-le", "surrogatepass")
        big = self._text.encode("utf-16-be", "surrogatepass")
        # of ASCII both are the same, but for the zero at an end
        self.wide = [little[:-1]] if little[:-1] == big[1:] else [little, big]
        cores = {shift: core(value, shift) for shift in range(3)}
        self._cores = {shift: text for shift, text in cores.items() if len(text) >= _SHORTEST_CORE}
        self.hex = value.hex().encode()
        self.thirties = {shift: core32(value, shift) for shift in range(5)}
        self.spread = Spread(value)

    @functools.cached_property
    def plain(self) -> re.Pattern[bytes]:
        """The value as people and programs write it."""
        return re.compile(b"".join(character(c, thorough=False) for c in self._text))

    @functools.cached_property
    def escaped(self) -> re.Pattern[bytes]:
        """The value as only somebody writes it who means to hide it."""
        return re.compile(_GOES_ON.join(character(c, thorough=True) for c in self._text))

    @functools.cached_property
    def escaped_cores(self) -> list[tuple[re.Pattern[bytes], int]]:
        """The value in base64, signs of which are escaped."""
        return [
            (re.compile(_GOES_ON.join(_sign(c) for c in coded.decode())), shift)
            for shift, coded in self._cores.items()
        ]

    def in_text(self, data: bytes) -> bool:
        """Whether it stands in data, not encoded."""
        if self.word in data and self.plain.search(data):
            return True
        # what reads escapes back may take a backslash of the value for one
        if b"\\" in self.value and self.value.replace(b"\\", b"") in data.replace(b"\\", b""):
            return True
        return b"\0" in data and any(wide in data for wide in self.wide)

    def in_base64(self, run: bytes) -> bool:
        """Whether it stands in a run of base64, in the alphabet that has `+` and `/`."""
        return any(coded in run for coded in self._cores.values())

    def in_hex(self, run: bytes) -> bool:
        """Whether it stands in a run of hexadecimal digits, which are small."""
        return self.hex in run

    def in_base32(self, run: bytes) -> bool:
        """Whether it stands in a run of base32, whose letters are small."""
        return any(coded in run for coded in self.thirties.values())

    def without(self, data: bytes) -> bytes:
        """Text without it."""
        if self.word in data:
            data = self.plain.sub(lambda m: placeholder(self.name, len(m[0])), data)
        if b"\0" in data:
            for wide, order in zip(self.wide, ("utf-16-le", "utf-16-be"), strict=False):
                stars = placeholder(self.name, (len(wide) + 1) // 2).decode()
                data = data.replace(wide, stars.encode(order)[: len(wide)])
        return data

    def without_spread(self, data: bytes) -> bytes:
        """A text without it where its bytes stand apart."""
        return self.spread.without(data, placeholder(self.name, len(self.value)))

    def without_escaped(self, data: bytes) -> bytes:
        """A part of a text without it, where letters are escaped."""
        data = self.escaped.sub(lambda m: placeholder(self.name, len(m[0])), data)
        for pattern, shift in self.escaped_cores:
            data = pattern.sub(functools.partial(_in_url, self._coded(shift)), data)
        return data

    def without_coded(self, run: bytes) -> bytes:
        """A run without it in base64, hexadecimal or base32; as long as it was."""
        like = run.translate(_UNSIGNED)
        for shift, coded in self._cores.items():
            run = _replaced(run, like, coded, self._coded(shift))
        small = run.lower()
        stars = placeholder(self.name, len(self.value))
        run = _replaced(run, small, self.hex, stars.hex().encode())
        for shift, coded in self.thirties.items():
            run = _replaced(run, small, coded, core32(stars, shift).upper())
        return run

    def _coded(self, shift: int) -> bytes:
        return core(placeholder(self.name, len(self.value)), shift)


def _replaced(run: bytes, like: bytes, old: bytes, new: bytes) -> bytes:
    """A run with `new` wherever `like` has `old`, which is as long."""
    at = like.find(old) if len(old) >= _SHORTEST_CORE else -1
    while at >= 0:
        run = run[:at] + new + run[at + len(old) :]
        at = like.find(old, at + len(old))
    return run


def _in_url(new: bytes, match: re.Match[bytes]) -> bytes:
    """A text with so many percent signs that it is as long; what is of no URL stays."""
    more, rest = divmod(len(match[0]) - len(new), 2)
    if b"%" not in match[0] or rest:
        return match[0]
    return b"".join(b"%%%02X" % byte for byte in new[:more]) + new[more:]


def _sign(sign: str) -> bytes:
    if sign.isalnum():
        return sign.encode()
    other = character("_" if sign == "/" else "-", thorough=False)
    return b"(?:%b|%b)" % (character(sign, thorough=False), other)


def core(value: bytes, shift: int) -> bytes:
    """The base64 characters that `value` alone decides, with `shift` bytes before it."""
    coded = base64.b64encode(b"\0" * shift + value)
    return coded[-(-shift * 8 // 6) : (shift + len(value)) * 8 // 6]


def core32(value: bytes, shift: int) -> bytes:
    """The same in base32, in small letters."""
    coded = base64.b32encode(b"\0" * shift + value).lower()
    return coded[-(-shift * 8 // 5) : (shift + len(value)) * 8 // 5]


def without_padding(text: str) -> str:
    """Placeholders without what makes them as long as the secret, so that any two match."""
    return PLACEHOLDER.sub(r"<\1>", text) if "*>" in text else text


def placeholder(name: str, size: int) -> bytes:
    """What stands in the place of a secret of `size` bytes."""
    label = f"<{name}".encode("ascii", "replace")
    if len(label) + 1 > size:
        return b"*" * size
    return label + b"*" * (size - len(label) - 1) + b">"
