"""How bytes stand in texts: as they are, in base64, in a word to the runner or a block from it.

See `_data` and `_pack` in `sandbox/runner.sh`.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode, encodebytes
from collections.abc import Callable
from gzip import compress, decompress
from typing import Any, NamedTuple

from pytest_flymachines.cassettes.kept import Kept, whole
from pytest_flymachines.sandbox.runner import escape, unpack_block

__all__ = ["BASE64", "BLOCK", "TEXT", "Codec", "argument"]

_OCTAL = re.compile(rb"\\0([0-7]{3})")


class Codec(NamedTuple):
    """How bytes stand in a text; `encode` also takes what stood there before."""

    decode: Callable[[Any], bytes]
    encode: Callable[[bytes, Any], Any]


def argument(word: str, *, escaped: bool) -> Codec:
    """How a word of a command to the runner carries bytes.

    Args:
        word: The word.
        escaped: All words are, because one of them is not UTF-8.
    """
    kind = word[:1]
    inner = _CARRIERS.get(kind, TEXT)
    if kind not in _CARRIERS:
        kind = ""

    def decode(text: str) -> bytes:
        if escaped:
            text = _unescape(text).decode("utf-8", "surrogateescape")
        return inner.decode(text[len(kind) :])

    def encode(data: bytes, old: str) -> str:
        text: str = kind + inner.encode(data, old[len(kind) :])
        return escape(text.encode("utf-8", "surrogateescape")) if escaped else text

    return Codec(decode, encode)


def _unescape(text: str) -> bytes:
    """The inverse of the runner's `escape`."""
    data = text.encode("utf-8", "surrogateescape")
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), data)


def _decode_text(text: str | bytes | Kept) -> bytes:
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else whole(text)


def _encode_text(data: bytes, old: str | bytes | Kept) -> str | bytes:
    return data.decode("utf-8", "surrogateescape") if isinstance(old, str) else data


def _encode_block(data: bytes, old: str) -> str:
    kind = old[:1]
    if kind == "x":
        return f"x\n {data.hex(' ')}\n.\n"
    packed = compress(data, mtime=0) if kind == "z" else data
    return f"{kind}\n{encodebytes(packed).decode()}.\n"


TEXT = Codec(_decode_text, _encode_text)
BASE64 = Codec(b64decode, lambda data, _: b64encode(data).decode())
BLOCK = Codec(lambda text: unpack_block(text.removesuffix(".\n")), _encode_block)
_CARRIERS = {
    "t": TEXT,
    "b": BASE64,
    "z": Codec(
        lambda text: decompress(b64decode(text)),
        lambda data, _: b64encode(compress(data, 6, mtime=0)).decode(),
    ),
    "p": Codec(_unescape, lambda data, _: escape(data)),
}
