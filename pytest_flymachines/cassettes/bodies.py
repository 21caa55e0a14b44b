"""Bodies as a cassette holds them: readable text where that loses nothing.

A JSON body is laid out over lines, and a note says how it was laid out before, so that replay
gives back the very bytes. What is long goes to a file of its own, named by its digest, which
any number of cassettes share.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
from pathlib import Path

import msgspec

from pytest_flymachines.errors import CassetteError

__all__ = ["LARGEST", "Blobs", "from_text", "to_text", "write_whole"]

LARGEST = 256 * 1024

_LAYOUTS = {"compact": -1, "one line": 0}
_BLOB = re.compile(rb"blob sha256:([0-9a-f]{64}) \(\d+ bytes\)")


def to_text(body: bytes) -> tuple[bytes, str]:
    """A body laid out for people, and a note of how to get the original back."""
    end = b"\n" if body.endswith(b"\n") else b""
    if body[:1] in (b"{", b"["):
        for layout, indent in _LAYOUTS.items():
            try:
                if msgspec.json.format(body, indent=indent) + end == body:
                    return msgspec.json.format(body, indent=2), layout + (" +" if end else "")
            except msgspec.DecodeError:
                break
    return body, ""


def from_text(text: bytes, layout: str) -> bytes:
    """The original of a body that was laid out for people."""
    if not layout:
        return text
    name, end, _ = layout.partition(" +")
    body: bytes = msgspec.json.format(text, indent=_LAYOUTS[name])
    return body + b"\n" if end else body


class Blobs:
    """Large bodies, each in a compressed file named by the SHA-256 of what it holds."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def put(self, body: bytes) -> bytes:
        """Keep a body that is large; what stands for it in the cassette."""
        if len(body) <= LARGEST:
            return body
        digest = hashlib.sha256(body).hexdigest()
        path = self.directory / digest
        if not path.exists():
            write_whole(path, gzip.compress(body, mtime=0))
        return b"blob sha256:%b (%d bytes)" % (digest.encode(), len(body))

    def get(self, text: bytes) -> bytes:
        """The body that `put` kept.

        Raises:
            CassetteError: Its file is missing or damaged.
        """
        match = _BLOB.fullmatch(text)
        if match is None:
            return text
        path = self.directory / match[1].decode()
        try:
            body = gzip.decompress(path.read_bytes())
        except (OSError, EOFError, ValueError) as error:
            raise CassetteError(f"{path}: the body kept there cannot be read: {error}") from error
        if hashlib.sha256(body).hexdigest() != path.name:
            raise CassetteError(f"{path}: damaged, its content has another SHA-256 than its name")
        return body

    @staticmethod
    def named_in(data: bytes) -> set[str]:
        """Digests that the text of a cassette refers to."""
        return {digest.decode() for digest in _BLOB.findall(data)}


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that everybody sees the old one or the new one, never a part of it.

    Raises:
        CassetteError: It could not be written; what was there before is still there.
    """
    temporary = path.with_name(f".{os.urandom(8).hex()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CassetteError(f"{path} was not written and is as it was before: {error}") from error
