"""What can be seen in bytes by who decodes everything; knows nothing of the code that it checks."""

from __future__ import annotations

import base64
import gzip
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
BLOB = re.compile(rb"blob sha256:([0-9a-f]{64}) \(\d+ bytes\)")


def views(data: bytes, depth: int = 4) -> Iterator[bytes]:
    """The bytes, and whatever they may encode."""
    yield data
    if not depth:
        return
    if b"%" in data[:100_000]:
        yield unquote_to_bytes(data)
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
            yield from views(decoded, depth - 1) if b"\x1f\x8b\x08" in decoded else [decoded]


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
