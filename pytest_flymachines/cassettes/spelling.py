"""How a secret may be written, and what stands in its place."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator

__all__ = ["PLACEHOLDER", "anchors", "core", "placeholder", "spellings", "without_padding"]

_SHORTEST_CORE = 8
_SHORTEST_ANCHOR = 4
_LONGEST_HEX = 16
_WORD = re.compile(rb"[A-Za-z0-9]+")
# once, or more often in a text within a text
_ESCAPE = rb"\\+"
PLACEHOLDER = re.compile(r"<([A-Za-z_][A-Za-z0-9_ .-]*)\*+>")


def spellings(value: bytes) -> Iterator[tuple[bytes, int]]:
    """Patterns for a value as it may be written, with the shift of a base64 core, else -1."""
    text = value.decode("utf-8", "surrogateescape")
    yield b"".join(_character(character) for character in text), -1
    yield b"(?:%b|%b)" % (value.hex().encode(), value.hex().upper().encode()), -1
    for shift in range(3):
        coded = core(value, shift)
        if len(coded) >= _SHORTEST_CORE:
            parts = [re.escape(part).replace(b"/", b"[/_]") for part in coded.split(b"+")]
            yield b"[+-]".join(parts), shift


def anchors(value: bytes) -> list[bytes]:
    """Bytes of which one stands in all data that holds a value in one of these spellings.

    To look for them takes a small part of the time that the patterns take; the empty one, if a
    value has no better, is in everything.
    """
    found = [max(_WORD.findall(value), key=len, default=b"")]
    digits = value[:_LONGEST_HEX].hex()
    found += [digits.encode(), digits.upper().encode()]
    cores = [core(value, shift) for shift in range(3)]
    found += [
        max(_WORD.findall(coded), key=len, default=b"")
        for coded in cores
        if len(coded) >= _SHORTEST_CORE
    ]
    return [anchor if len(anchor) >= _SHORTEST_ANCHOR else b"" for anchor in found]


def _character(character: str) -> bytes:
    """A pattern for one character, plain or as URLs, JSON, HTML and shells write it."""
    data = character.encode("utf-8", "surrogateescape")
    if data.isalnum() and data.isascii():
        return data
    units = character.encode("utf-16-be", "surrogatepass")
    escaped = b"".join(
        b"%bu%b" % (_ESCAPE, units[at : at + 2].hex().encode()) for at in range(0, len(units), 2)
    )
    in_json = json.dumps(character)[1:-1].encode()
    forms = [
        _ESCAPE if character == "\\" else re.escape(data),
        # once, or once more with what it is a part of
        b"(?i:%b)" % "".join(f"%(?:25)*{byte:02x}" for byte in data).encode(),
        b"(?i:%b)" % escaped,
        re.escape(html.escape(character).encode("utf-8", "surrogateescape")),
        *([_ESCAPE + re.escape(in_json[1:])] if in_json[:1] == b"\\" else []),
        *([rb"\\+/"] if character == "/" else []),
        *([rb"\+"] if character == " " else []),
        *([rb"'\\+''", rb"'\\*\"'\\*\"'"] if character == "'" else []),
    ]
    return b"(?:%b)" % b"|".join(dict.fromkeys(forms))


def core(value: bytes, shift: int) -> bytes:
    """The base64 characters that `value` alone decides, with `shift` bytes before it."""
    coded = base64.b64encode(b"\0" * shift + value)
    return coded[-(-shift * 8 // 6) : (shift + len(value)) * 8 // 6]


def without_padding(text: str) -> str:
    """Placeholders without what makes them as long as the secret, so that any two match."""
    return PLACEHOLDER.sub(r"<\1>", text) if "*>" in text else text


def placeholder(name: str, size: int) -> bytes:
    """What stands in the place of a secret of `size` bytes."""
    label = f"<{name}".encode("ascii", "replace")
    if len(label) + 1 > size:
        return b"*" * size
    return label + b"*" * (size - len(label) - 1) + b">"
