"""Characters as URLs, JSON, HTML, YAML, mails and shells write them: as patterns, and read back.

Nobody has to escape a letter, a digit or a sign of base64. Where that was done, the text is read
back, and looked through once more.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Iterator
from html.entities import html5

__all__ = ["character", "regions", "unescaped"]

_PERCENT = rb"%(?:25)*"
_SLASHES = rb"\\+"
_ENTITY = rb"&(?:amp;)*"
_QUOTE = rb"\\*'\\+''"  # a shell's, within quotes
# letters, digits, signs of base64, what escapes begin with, ends of lines, and the zeros of UTF-16
_UNUSUAL = rb"(?:3[0-9Dd]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[Cc]|2[6BbFf]|0[0AaDd])"
# each begins with one sign, which is quickly looked for
_HINTS = (
    re.compile(_PERCENT + _UNUSUAL),
    re.compile(
        rb"\\(?:\\*(?:u00|u\{0*|U000000|x)%b|\\*0?(?:06[0-7]|07[0-5]|1[0-7]{2}|0{1,3})(?![0-9])"
        rb"|\\*/|\r?\n|\\{2,}n)" % _UNUSUAL
    ),
    re.compile(_ENTITY + rb"(?:#|sol;|plus;|equals;)"),
    re.compile(rb"=(?:3D|\r?\n(?=\S))"),
)
# what follows a backslash
_LETTERED = (
    rb"(?P<pair>u[dD][89abAB][0-9A-Fa-f]{2}\\+u[dD][c-fC-F][0-9A-Fa-f]{2})"
    rb"|u(?P<unit>[0-9A-Fa-f]{4})|u\{(?P<braced>[0-9A-Fa-f]{1,6})\}|U(?P<long>[0-9A-Fa-f]{8})"
    rb"|x(?P<hex>[0-9A-Fa-f]{2})|0?(?P<octal>[0-3][0-7]{2})|(?P<nul>0)"
)
_IN_URLS = rb"(?P<percent>[0-9A-Fa-f]{2})"
_IN_HTML = rb"&(?:amp;)*(?P<entity>#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,12});"
# all of it, however often; and each alone and once, for values that look like something escaped
_WRITTEN = (
    re.compile(
        rb"%b%b|\\(?:\r?\n|\\{2,}n)[ \t]*|\\+(?:%b)|\\(?P<other>[^0-9])|%b"
        % (_PERCENT, _IN_URLS, _LETTERED, _IN_HTML),
        re.DOTALL,
    ),
    re.compile(b"%%%b" % _IN_URLS),
    # C's bytes are YAML's characters
    re.compile(
        rb"\\(?:\r?\n[ \t]*|%b|(?P<other>[^0-9]))" % _LETTERED.replace(b"<hex>", b"<point>"),
        re.DOTALL,
    ),
    re.compile(rb"\\\r?\n[ \t]*"),
    re.compile(rb"\\\r?\n"),  # a shell keeps what the next line begins with
    re.compile(_IN_HTML),
)
_QUOTED = re.compile(rb"=(?:([0-9A-F]{2})|\r?\n)")
_SHORT = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f", b"e": b"\x1b"}
_SHORT_OF = {value: key for key, value in _SHORT.items()}
_ROUNDS = 3
_SMALL_BYTES = 32 << 10


def regions(data: bytes, margin: int) -> Iterator[tuple[int, int]]:
    """Where characters are escaped that need not be, with so many bytes around them."""
    hints = sorted(
        match.start()
        for sign, hint in zip((b"%", b"\\", b"&", b"="), _HINTS, strict=True)
        if sign in data
        for match in hint.finditer(data)
    )
    start, end = 0, -1
    for at in hints:
        if end >= 0 and at - margin > end:
            yield start, min(end, len(data))
            end = -1
        if end < 0:
            start = max(0, at - margin)
        end = at + margin
    if end >= 0:
        yield start, min(end, len(data))


def unescaped(data: bytes) -> Iterator[bytes]:
    """The text that may be meant: what was escaped once, or more often, or for a mail."""
    texts = {data, *_decoded(data)}
    if len(data) < _SMALL_BYTES:  # also one way within another
        texts |= {inner for text in texts for inner in _decoded(text)}
    for text in sorted(texts):
        if text != data:
            yield text
        if b"=" in text and (mail := _QUOTED.sub(_quoted, text)) != text:
            yield mail


def _decoded(data: bytes) -> Iterator[bytes]:
    for written in _WRITTEN:
        plain = data
        for _ in range(_ROUNDS):
            before, plain = plain, written.sub(_meant, plain)
            if plain == before:
                break
            yield plain


def _quoted(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 16)]) if match[1] else b""


def _meant(match: re.Match[bytes]) -> bytes:
    kind, text = match.lastgroup, match[match.lastgroup or 0]
    if kind is None:
        return b""  # the end of a line that goes on
    if kind in ("percent", "hex"):
        return bytes([int(text, 16)])
    if kind == "octal":
        return bytes([int(text, 8)])
    if kind == "nul":
        return b"\0"
    if kind == "other":
        return _SHORT.get(text, text)
    if kind == "pair":
        units = text.replace(b"\\", b"").split(b"u")[1:]
        return bytes.fromhex(b"".join(units).decode()).decode("utf-16-be").encode()
    if kind == "entity":
        return html.unescape(f"&{text.decode()};").encode("utf-8", "replace")
    code = int(text, 16)
    return chr(code).encode("utf-8", "surrogatepass") if code < 0x110000 else match[0]


@functools.lru_cache(maxsize=1024)
def character(text: str, *, thorough: bool) -> bytes:
    """A pattern for one character, plain or as it may be written.

    Args:
        text: The character.
        thorough: Also for letters and digits, which nobody has to escape.
    """
    data = text.encode("utf-8", "surrogateescape")
    plain = data.isalnum() and data.isascii()
    if plain and not thorough:
        return data
    return b"(?:%b)" % b"|".join(dict.fromkeys(_forms(text, data, plain=plain)))


@functools.cache
def _entities() -> dict[str, list[str]]:
    """Names of characters in HTML."""
    names: dict[str, list[str]] = {}
    for name, what in sorted(html5.items()):
        if name.endswith(";"):
            names.setdefault(what, []).append(name[:-1])
    return names


def _forms(text: str, data: bytes, *, plain: bool) -> Iterator[bytes]:
    if plain:
        yield data
    elif text == "\\":
        yield _SLASHES
    else:
        yield b"".join(rb"\\*" + re.escape(bytes([byte])) for byte in data)
    units = text.encode("utf-16-be", "surrogatepass")
    hexes = [f"{byte:02x}".encode() for byte in data]
    yield b"(?i:%b)" % b"".join(rb"(?:%b|=)%b" % (_PERCENT, pair) for pair in hexes)
    yield b"(?i:%b)" % b"".join(
        rb"\\+u%b" % units[at : at + 2].hex().encode() for at in range(0, len(units), 2)
    )
    yield b"(?i:%b)" % b"".join(rb"\\+x%b" % pair for pair in hexes)
    yield b"".join(rb"\\+0?%03o" % byte for byte in data)
    code = ord(text)
    if 0x80 <= code <= 0xFF:
        yield rb"(?i:\\+x%02x)" % code
    yield rb"(?i:\\+U%08x|\\+u\{0*%x\}|%b#(?:0*%d|x0*%x);?)" % (code, code, _ENTITY, code, code)
    if plain:
        return
    if names := _entities().get(text):
        yield rb"%b(?:%b);" % (_ENTITY, "|".join(names).encode())
    if data in _SHORT_OF:
        yield _SLASHES + _SHORT_OF[data]
    if text == " ":
        yield rb"\+|(?:\s|\\+[nrt])+"
    elif text == "'":
        yield rb"%b|\\*'\\*\"'\\*\"'|''" % _QUOTE
        # what one shell is given to tell another
        yield rb"%b\\*\"%b\\*\"%b|%b\\+%b%b" % ((_QUOTE,) * 6)
    elif not data.isascii():
        yield rb"[?_]{1,%d}|\\+ufffd" % len(data)
