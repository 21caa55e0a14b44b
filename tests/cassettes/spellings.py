"""How a secret may be written, by code that knows nothing of the code that finds it."""

from __future__ import annotations

import base64
import binascii
import gzip
import html
import json
import quopri
import re
import zlib
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import yaml

from tests.cassettes.views import archive


def units(data: bytes) -> list[int]:
    """The units of UTF-16 in a text."""
    wide = data.decode().encode("utf-16-be")
    return [int.from_bytes(wide[at : at + 2]) for at in range(0, len(wide), 2)]


def cut(data: bytes, by: str, at: int = 9) -> bytes:
    """A text with something between two letters."""
    text = data.decode()
    return f"{text[:at]}{by}{text[at:]}".encode()


def rows(data: bytes, row: Callable[[int, bytes], bytes]) -> bytes:
    """A dump of some bytes before and after the secret, too, 16 in a row."""
    data = b"a password=" + data + b"\nand more"
    return b"".join(row(at, data[at : at + 16]) + b"\n" for at in range(0, len(data), 16))


def shown(data: bytes) -> bytes:
    """The column of text in a dump."""
    return bytes(byte if 32 <= byte < 127 else 46 for byte in data)


def words(data: bytes, *, swapped: bool) -> bytes:
    """Hexadecimal words of two bytes."""
    pairs = (data[at : at + 2] for at in range(0, len(data), 2))
    return b" ".join(
        (pair.ljust(2, b"\0")[::-1] if swapped else pair).hex().encode() for pair in pairs
    )


def cell(byte: int) -> bytes:
    return b"%4c" % byte if 32 <= byte < 127 else b"  \\n" if byte == 10 else b" %03o" % byte


def wrapped(data: bytes) -> bytes:
    return base64.encodebytes(b"x" * 40 + data + b"y" * 70)


SPELLINGS: dict[str, Callable[[bytes], bytes]] = {
    "raw": lambda s: s,
    "in text": lambda s: b"export X='" + s + b"';",
    "url": lambda s: quote(s, safe="").encode(),
    "url path": lambda s: quote(s).encode(),
    "form": lambda s: quote_plus(s).encode(),
    "json": lambda s: json.dumps({"a": s.decode()}).encode(),
    "json in json": lambda s: json.dumps(json.dumps({"a": s.decode()})).encode(),
    "base64 0": base64.b64encode,
    "base64 1": lambda s: base64.b64encode(b"x" + s + b"yz"),
    "base64 2": lambda s: base64.b64encode(b"xx" + s + b"y"),
    "base64 url-safe": lambda s: base64.urlsafe_b64encode(b"x" + s + b"\xff\xfe"),
    "base64 wrapped": wrapped,
    "base64 wrapped in json": lambda s: json.dumps({"o": wrapped(s).decode()}).encode(),
    "base64 unpadded": lambda s: base64.b64encode(s + b"x").rstrip(b"="),
    "base64 after letters": lambda s: b"data/" + base64.b64encode(s),
    "base64 twice": lambda s: base64.b64encode(base64.b64encode(s)),
    "url, every letter": lambda s: b"".join(b"%%%02x" % byte for byte in s),
    "url, every letter, capitals": lambda s: b"".join(b"%%%02X" % byte for byte in s),
    "url twice": lambda s: quote(quote(s, safe=""), safe="").encode(),
    "url twice, every letter": lambda s: b"x" * 9000 + b"".join(b"%%25%02X" % byte for byte in s),
    # whole letters: half of one would be lost where bytes are made text
    "url, every second letter": lambda s: b"".join(
        b"%%%02x" % byte if at % 2 or byte == 37 or byte > 127 else bytes([byte])
        for at, byte in enumerate(s)
    ),
    "json, every letter": lambda s: b"".join(b"\\u%04x" % unit for unit in units(s)),
    "json in json, every letter": lambda s: b"".join(b"\\\\u%04X" % unit for unit in units(s)),
    "javascript": lambda s: b"".join(b"\\x%02x" % byte for byte in s),
    "octal": lambda s: b"".join(b"\\0%03o" % byte for byte in s),
    "html": lambda s: html.escape(s.decode()).encode(),
    "html, every letter": lambda s: b"".join(b"&#%d;" % ord(c) for c in s.decode()),
    "html, every letter, hexadecimal": lambda s: b"".join(b"&#x%02X;" % ord(c) for c in s.decode()),
    "html in html": lambda s: b"".join(b"&amp;#%d;" % ord(c) for c in s.decode()),
    "shell": lambda s: re.sub(r"(\W)", r"\\\1", s.decode()).encode(),
    "quoted-printable": lambda s: quopri.encodestring(b"x" * 60 + s),
    "yaml over lines": lambda s: yaml.safe_dump(
        {"a": (s.decode() + " \0 ") * 2}, width=20
    ).encode(),
    "a shell's lines": lambda s: cut(s, "\\\n"),
    "base64 in a URL": lambda s: quote(base64.b64encode(b"x?>" + s), safe="").encode(),
    "base64 in escaped JSON": lambda s: base64.b64encode(b"x?>" + s).replace(b"/", b"\\/"),
    "base32": base64.b32encode,
    "base32 3": lambda s: base64.b32encode(b"xyz" + s).lower(),
    "base32 in lines": lambda s: base64.b32encode(s)[:20] + b"\n" + base64.b32encode(s)[20:],
    "UTF-16": lambda s: s.decode().encode("utf-16"),
    "UTF-16, big": lambda s: s.decode().encode("utf-16-be"),
    "UTF-16 in base64": lambda s: base64.b64encode(b"x" + s.decode().encode("utf-16-le")),
    "UTF-16 in JSON": lambda s: json.dumps(
        "\0".join(s.decode()) + "\0" if s.isascii() else s.decode()
    ).encode(),
    "hex": lambda s: s.hex().encode(),
    "hex, mixed": lambda s: "".join(
        c.upper() if at % 3 else c for at, c in enumerate(s.hex())
    ).encode(),
    "gzip in hex": lambda s: gzip.compress(b"a" * 100 + s).hex().encode(),
    "JSON in base64 in hex": lambda s: (
        base64.b64encode(json.dumps({"a": s.decode()}).encode())
        .hex(" ", 40)
        .replace(" ", "\n")
        .encode()
    ),
    "hex in lines": lambda s: s.hex()[:21].encode() + b"\n" + s.hex()[21:].encode(),
    "URL in base64": lambda s: base64.b64encode(b"?a=" + quote(s, safe="").encode()),
    "name in a tar": lambda s: archive(s.decode(), b"x"),
    "gzip after something": lambda s: b"noise" + gzip.compress(s),
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "gzip in base64": lambda s: base64.b64encode(gzip.compress(b"a" * 100 + s)),
    "basic": lambda s: b"Basic " + base64.b64encode(b"user:" + s),
    "binary": lambda s: b"\x00\xff" + s + b"\xfe",
    "in a URL": lambda s: b"https://example.com/?key=" + quote(s, safe="").encode(),
    "base64 in lines": lambda s: base64.encodebytes(b"z" * 50 + s),
    "tar": lambda s: archive("a", s),
    "directory in a tar": lambda s: archive(s.decode() + "/a", s),
    "tar.gz in base64": lambda s: base64.encodebytes(gzip.compress(archive("a", s))),
    "xxd": lambda s: rows(
        s, lambda at, r: b"%08x: %-39b  %b" % (at, words(r, swapped=False), shown(r))
    ),
    "xxd -i": lambda s: b",\n  ".join(
        b", ".join(b"0x%02x" % byte for byte in s[at : at + 12]) for at in range(0, len(s), 12)
    ),
    "xxd in a log": lambda s: rows(
        s, lambda at, r: b"web-1  | %08x: %-39b  %b" % (at, words(r, swapped=False), shown(r))
    ),
    "hexdump": lambda s: rows(s, lambda at, r: b"%07x %-39b" % (at, words(r, swapped=True))),
    "hexdump -C": lambda s: rows(
        s, lambda at, r: b"%08x  %-48b |%b|" % (at, r.hex(" ").encode(), shown(r))
    ),
    "od -c": lambda s: rows(s, lambda at, r: b"%07o%b" % (at, b"".join(map(cell, r)))),
    "od -b": lambda s: rows(s, lambda at, r: b"%07o %b" % (at, b" ".join(b"%03o" % b for b in r))),
    "od -An -tx1": lambda s: rows(s, lambda _, r: b" " + r.hex(" ").encode()),
    "od -tu1": lambda s: rows(s, lambda at, r: b"%07o%b" % (at, b"".join(b"%4d" % b for b in r))),
    "hex with colons": lambda s: s.hex(":").upper().encode(),
    "Go's bytes": lambda s: b"[" + b" ".join(b"%d" % byte for byte in s) + b"]",
    "Node's bytes": lambda s: json.dumps({"type": "Buffer", "data": list(s)}, indent=2).encode(),
    "uuencoded": lambda s: (
        b"it is: begin 644 a\n"
        + b"".join(binascii.b2a_uu(s[at : at + 45]) for at in range(0, len(s), 45))
        + b"`\nend\n"
    ),
    "over lines of a terminal": lambda s: cut(s, " \r"),
    "folded": lambda s: cut(cut(s, "\n"), "\n", 21),
    "in a table": lambda s: "│ ".encode() + cut(s, " │\n│ ") + " │".encode(),
    "coloured": lambda s: b"\x1b[01;31m\x1b[K" + cut(s, "\x1b[m\x1b[K"),
    "zlib after something": lambda s: b"noise" + zlib.compress(b"blob 9\0" + s),
    "zlib after something in base64": lambda s: base64.b64encode(b"noise" + zlib.compress(s)),
    "xml in URL in base64": lambda s: base64.urlsafe_b64encode(
        quote(html.escape(s.decode())).encode()
    ),
}
