"""Bytes on their way into a machine through requests that hold 12 KB each."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pytest_flymachines.sandbox.runner import MAX_BODY_BYTES, Runner, body_bytes, escape

__all__ = ["Staged", "encode_data", "fit", "stage"]

# Raw bytes tried for one request, from the most that compression may help to what always fits
_MOST_BYTES = 128 * 1024
_LEAST_BYTES = 1024
_REQUEST_BYTES = 1000
INLINE_BYTES = MAX_BODY_BYTES - 2 * _REQUEST_BYTES


@dataclass(frozen=True)
class Staged:
    """Bytes that a request can name.

    Attributes:
        argument: For the runner's `_data`: the bytes themselves, or where they wait.
        size: Number of bytes.
        sha256: Their digest, in hex.
    """

    argument: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """Name of the staged file; empty when the bytes go with the request."""
        return self.argument[1:] if self.argument.startswith("@") else ""


def fit(runner: Runner, data: Iterable[bytes], *, room: int = INLINE_BYTES) -> Staged:
    """Bytes that go with the next request, or that were sent ahead if they are too many.

    Args:
        runner: The way.
        data: Pieces of any size.
        room: Bytes that an argument of the request may have.
    """
    pieces = iter(data)
    head = b""
    while len(head) <= room and (piece := next(pieces, None)) is not None:
        head += piece
    if len(head) <= room and body_bytes([argument := encode_data(runner, head)]) <= room:
        return Staged(argument, len(head), hashlib.sha256(head).hexdigest())
    return stage(runner, _rejoined(head, pieces))


def _rejoined(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from rest


def stage(runner: Runner, data: Iterable[bytes], kind: str = "") -> Staged:
    """Send bytes ahead, piece by piece, into a file of the runner's.

    Args:
        runner: The way.
        data: Pieces of any size.
        kind: `tree` for what differs each time that it is packed, so that a cassette does not
            compare it; what is done with it must say what it means.
    """
    extra = [kind] if kind else []
    digest = hashlib.sha256()
    name, offset = "", 0
    try:
        for argument, raw in _requests(runner, data):
            digest.update(raw)
            name = runner.call("stage", name, offset, argument, *extra).words[0]
            offset += len(raw)
        if not name:
            name = runner.call("stage", "", 0, "t", *extra).words[0]
    except BaseException:
        if name:
            runner.try_call("drop", name)
        raise
    return Staged(f"@{name}", offset, digest.hexdigest())


def _requests(runner: Runner, data: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """Arguments that each fill a request as well as can be, with the bytes they stand for."""
    buffer = bytearray()
    size = _MOST_BYTES // 2
    for piece in data:
        buffer += piece
        while len(buffer) >= _MOST_BYTES:
            argument, size = _largest(runner, buffer, size)
            yield argument, bytes(buffer[:size])
            del buffer[:size]
    while buffer:
        argument, size = _largest(runner, buffer, size)
        yield argument, bytes(buffer[:size])
        del buffer[:size]


def _largest(runner: Runner, buffer: bytearray, hint: int) -> tuple[str, int]:
    """An argument for as many bytes from the buffer's start as fit, and their number."""
    size = min(2 * hint, _MOST_BYTES, len(buffer))
    while True:
        argument = encode_data(runner, bytes(buffer[:size]))
        if body_bytes([argument]) <= MAX_BODY_BYTES - _REQUEST_BYTES:
            return argument, size
        size = max(_LEAST_BYTES, size * 3 // 4)


def encode_data(runner: Runner, data: bytes) -> str:
    """Bytes as the runner's `_data` takes them.

    Text stays text where that is not much longer, so that a cassette can be read.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = None
    if text is not None and "\0" not in text and len(data) <= 1000:
        return "t" + text
    choices = ["t" + text] if text is not None and "\0" not in text else []
    if "b" in runner.tools:
        choices.append("b" + base64.b64encode(data).decode())
        if "g" in runner.tools:
            choices.append("z" + base64.b64encode(gzip.compress(data, 6, mtime=0)).decode())
    elif not choices:
        choices.append("p" + escape(data))
    return min(choices, key=lambda choice: body_bytes([choice]))
