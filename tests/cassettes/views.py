"""What can be seen in bytes by who decodes everything; knows nothing of the code that it checks."""

from __future__ import annotations

import base64
import binascii
import contextlib
import gzip
import html
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

import yaml

RUN = re.compile(rb"(?:[A-Za-z0-9+/_-]{4,}\n?)+={0,2}")
ESCAPE = re.compile(rb"\\+(?:(?:u00|x)([0-9A-Fa-f]{2})|0?([0-3][0-7]{2}))")
SMALL = 4000
# what the tests put before a secret to have it far from the beginning: to decode it takes long
FILLING = re.compile(rb"(a line(?:\n|\\+n)|\. |\.)\1{99,}")
BLOB = re.compile(rb"blob sha256:([0-9a-f]{64}) \(\d+ bytes\)")


def views(data: bytes, depth: int = 4) -> Iterator[bytes]:
    """The bytes, and whatever they may encode."""
    data = FILLING.sub(rb"\1", data)
    yield data
    if not depth:
        return
    yield from _read_back(data, depth)
    yield from _listed(data)
    for at in (match.start() for match in re.finditer(rb"x[\x01\x5e\x9c\xda]", data)):
        with contextlib.suppress(zlib.error):
            yield zlib.decompressobj().decompress(data[at:])
    for at in (match.start() for match in re.finditer(rb"\x1f\x8b\x08", data)):
        try:
            yield from views(zlib.decompressobj(31).decompress(data[at:]), depth - 1)
        except zlib.error:
            continue
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    for text in _texts(value):
        yield from views(text, depth - 1)
    for run in RUN.finditer(data):
        bare = run[0].replace(b"\n", b"").rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
        for start in {0, 1, 2, 3, *(m.start() for m in re.finditer(b"H4sI", bare))}:
            part = bare[start : start + (len(bare) - start) // 4 * 4]
            decoded = base64.b64decode(part)
            packed = b"\x1f\x8b\x08" in decoded
            inner = depth - 1 if packed else min(depth - 1, 1) if len(decoded) < SMALL else 0
            yield from views(decoded, inner)


def _read_back(data: bytes, depth: int) -> Iterator[bytes]:
    """What is escaped, in hexadecimal, in base32 or in UTF-16."""
    text = data
    for _ in range(3):
        text = unquote_to_bytes(text) if b"%" in text else text
        text = html.unescape(text.decode("latin-1")).encode("latin-1", "xmlcharrefreplace")
        text = ESCAPE.sub(lambda m: bytes([int(m[2], 8) if m[2] else int(m[1], 16)]), text)
        text = re.sub(rb"\\+([^\w\s])", rb"\1", re.sub(rb"\\\n *|=\n", b"", text))
        yield text
    yield text.replace(b"\0", b"")
    for run in re.finditer(rb"(?:[0-9A-Fa-f]\n?){16,}", data):
        digits = run[0].replace(b"\n", b"").decode()
        for at in (0, 1):
            found = bytes.fromhex(digits[at : len(digits) - (len(digits) - at) % 2])
            yield from views(found, min(depth - 1, 2)) if len(found) < SMALL else (found,)
    for run in re.finditer(rb"(?:[A-Za-z2-7]\n?){12,}", data):
        letters = run[0].replace(b"\n", b"").upper()[:4000]
        for shift in range(8):
            yield base64.b32decode((whole := b"A" * shift + letters) + b"A" * (-len(whole) % 8))


def _listed(data: bytes) -> Iterator[bytes]:
    """Numbers and letters that stand apart, in lists, dumps and lines, as bytes."""
    plain = re.sub(rb"\x1b\[[0-9;]*[A-Za-z]", b"", data).replace("│".encode(), b"|")
    yield re.sub(rb"[ \t|]*\r*\n[ \t|]*| ?\r", b"", plain)
    # without offsets, and also without the text beside
    numbers = re.sub(rb"(?m)(?:^|[^\n]{1,30} )[0-9a-f]{7,8}:?(?= )", b"", data)
    alone = re.sub(rb"(?m)  [|>].*[|<]$|(?<=[0-9a-f]) {2,}\S+$", b"", numbers)
    for bare in {numbers, alone}:
        yield from _numbers(bare)
    for row in re.finditer(rb"(?m)^(?:[0-9]{7}(?:(?: [ -~]{3})+)\n)+", data):
        yield b"".join(re.findall(rb" [ -~]{2}([ -~])", re.sub(rb"(?m)^[0-9]{7}", b"", row[0])))
    if uu := re.search(rb"begin 644 a\n((?:.*\n)*?)`\nend", data):
        yield b"".join(binascii.a2b_uu(line) for line in uu[1].splitlines())


def _texts(value: object) -> Iterator[bytes]:
    if isinstance(value, str):
        yield value.encode("utf-8", "surrogateescape")
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def parts_of(secret: bytes, data: bytes) -> set[bytes]:
    """Halves of a secret that can be seen in bytes: one is whole, wherever it was cut in two."""
    half = len(secret) // 2
    halves = {secret[:half], secret[half:]}
    return {part for view in views(data) for part in halves if part in view}


def _numbers(data: bytes) -> Iterator[bytes]:
    """Rows of numbers as bytes, however they are counted."""
    for digits, base in ((rb"[0-9A-Fa-f]{2}", 16), (rb"[0-7]{3}", 8), (rb"[0-9]{1,3}", 10)):
        for row in re.finditer(rb"(?:(?:0x)?%b(?![0-9])[\s,:]*){12,}" % digits, data):
            found = re.findall(rb"(?:0x)?(%b)" % digits, row[0])
            yield bytes(min(int(number, base), 255) for number in found)
    for row in re.finditer(rb"(?:[0-9A-Fa-f]{4}\s+){6,}", data):
        pairs = [bytes.fromhex(word.decode()) for word in row[0].split()]
        yield b"".join(pairs)
        yield b"".join(pair[::-1] for pair in pairs)


def is_telling(text: str) -> bool:
    """Whether either half of a secret is nothing that stands elsewhere, too, such as zeros."""
    half = len(text) // 2
    return text == text.strip() and min(len(set(text[:half])), len(set(text[half:]))) > 5


def recorded(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of a directory, and every body in it."""
    for path in sorted(directory.rglob("*")):
        if not path.is_file():
            continue
        yield path.name, path.read_bytes()
        if path.suffix == ".yaml":
            for item in yaml.safe_load(path.read_bytes())["interactions"]:
                for body in (item["request"]["body"], item["response"]["body"]["string"]):
                    text = body.encode() if isinstance(body, str) else body or b""
                    if match := BLOB.fullmatch(text):
                        text = gzip.decompress(
                            (directory / "blobs" / match[1].decode()).read_bytes()
                        )
                    yield path.name, text


def archive(name: str, content: bytes) -> bytes:
    """A tar of a file beside another."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for file, data in ((f"other-{name}", b"x" * 700), (name, content)):
            info = tarfile.TarInfo(file)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()
