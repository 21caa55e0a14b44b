"""Bytes on their way into a machine through requests that hold 12 to 15 KB each."""

from __future__ import annotations

import base64
import gzip
import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pytest_flymachines.sandbox.runner import (
    DENSE_BODY_BYTES,
    MAX_BODY_BYTES,
    Runner,
    body_bytes,
    escape,
)

__all__ = ["Staged", "encode_data", "fit", "stage"]

_log = logging.getLogger("pytest_flymachines")

# What one request a second carries in half a minute
_LARGE_BYTES = 256 * 1024
# Raw bytes tried for one request, from the most that compression may help to what always fits
_MOST_BYTES = 8 * 1024 * 1024
_FIRST_BYTES = 64 * 1024
_LEAST_BYTES = 1024
_REQUEST_BYTES = 1000
# More than one request takes as it is
_WHOLE_BYTES = 16 * 1024
# What is filled to this part is filled well enough, for another try costs time, too
_FULL = 0.85
_TRIES = 6
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


def fit(
    runner: Runner, data: Iterable[bytes], *, room: int = INLINE_BYTES, kind: str = ""
) -> Staged:
    """Bytes that go with the next request, or that were sent ahead if they are too many.

    Args:
        runner: The way.
        data: Pieces of any size.
        room: Bytes that an argument of the request may have.
        kind: As for `stage`.
    """
    pieces = iter(data)
    head = bytearray()
    while len(head) <= _MOST_BYTES and (piece := next(pieces, None)) is not None:
        head += piece
        # a part that alone is too much needs no more to tell
        if len(head) <= room or _looks_small(runner, head, room):
            continue
        return stage(runner, _rejoined(bytes(head), pieces), kind)
    if len(head) <= _MOST_BYTES:
        whole = bytes(head)
        if body_bytes([argument := encode_data(runner, whole)]) <= room:
            return Staged(argument, len(whole), hashlib.sha256(whole).hexdigest())
    return stage(runner, _rejoined(bytes(head), pieces), kind)


def _looks_small(runner: Runner, head: bytearray, room: int) -> bool:
    """Whether what has come so far may fit when it is compressed."""
    if not {"b", "g"}.issubset(runner.tools):
        return False
    sample = bytes(head[:_FIRST_BYTES])
    return len(sample) < 4 * room or len(gzip.compress(sample, 1)) * 4 // 3 <= room


def _rejoined(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from rest


def stage(runner: Runner, data: Iterable[bytes], kind: str = "") -> Staged:
    """Send bytes ahead, piece by piece, into a file of the runner's.

    Args:
        runner: The way.
        data: Pieces of any size.
        kind: `tree` for what differs each time that it is packed, so that a cassette does not
            compare it; what is done with it must say what it means. `pack` for a repository,
            which a cassette does not keep, either.
    """
    extra = [kind] if kind else []
    digest = hashlib.sha256()
    name, offset, sent = "", 0, 0
    try:
        for argument, raw in _requests(runner, data):
            sent += len(argument)
            if sent - len(argument) <= _LARGE_BYTES < sent:
                _log.warning(
                    "sending much to machine %s over the Machines API, which takes about 10 KB a "
                    "second: an image with python3 gets an agent, which takes any amount",
                    runner.machine_id,
                )
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
    size = _FIRST_BYTES
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
    best: tuple[str, int] | None = None
    size = min(hint, len(buffer))
    for _ in range(_TRIES):
        argument = encode_data(runner, bytes(buffer[:size]))
        # base64 comes to the machine as it is, whatever encodes it anew on the way
        limit = (DENSE_BODY_BYTES if argument[0] in "bz" else MAX_BODY_BYTES) - _REQUEST_BYTES
        filled = body_bytes([argument]) / limit
        if filled <= 1 and (best is None or size > best[1]):
            best = argument, size
        if (size == len(buffer) and filled <= 1) or _FULL <= filled <= 1:
            break
        # a bit less than what would fill it, were all the data like this
        size = max(_LEAST_BYTES, min(int(size * 0.95 / max(filled, 0.01)), len(buffer)))
        if best is not None and size <= best[1]:
            break
    while best is None:
        size = max(_LEAST_BYTES, size * 3 // 4)
        argument = encode_data(runner, bytes(buffer[:size]))
        if body_bytes([argument]) <= MAX_BODY_BYTES - _REQUEST_BYTES:
            best = argument, size
    return best


def encode_data(runner: Runner, data: bytes) -> str:
    """Bytes as the runner's `_data` takes them.

    Text stays text where that is not much longer, so that a cassette can be read.
    """
    try:
        text = data.decode() if len(data) <= _WHOLE_BYTES else None
    except UnicodeDecodeError:
        text = None
    if text is not None and "\0" not in text and len(data) <= 1000:
        return "t" + text
    choices = ["t" + text] if text is not None and "\0" not in text else []
    if "b" in runner.tools:
        if len(data) <= _WHOLE_BYTES or "g" not in runner.tools:
            choices.append("b" + base64.b64encode(data).decode())
        if "g" in runner.tools:
            choices.append("z" + base64.b64encode(gzip.compress(data, 6, mtime=0)).decode())
    elif not choices:
        choices.append("p" + escape(data))
    return min(choices, key=lambda choice: body_bytes([choice]))
