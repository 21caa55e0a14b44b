"""The request log: one JSON line per request, tokens and secrets masked, no bodies."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote_plus

from pytest_flymachines.emulator.config import encode
from pytest_flymachines.emulator.wiretime import now_ms, rfc3339_ms

__all__ = ["RequestLog"]

KEPT = 5000
MASK = "***"
SECRET_NAME = re.compile(
    "auth|cookie|credential|key|nonce|passw|secret|signature|token", re.IGNORECASE
)
"""Names of headers and of query parameters whose values nobody else should see."""

# What follows a scheme, and the shapes of Fly's tokens (tokens/tokens.go of superfly/fly-go) and
# of our own.
TOKEN = re.compile(r"((?:FlyV1|Bearer)(?:\s|%20|\+)+)\S+|\b(?:fm\d[a-z]?_|fo1_|emu-)[\w+/=.~-]{8,}")
SHORTEST_TOKEN = 8
"""What is shorter is masked by its place only: it could be part of any word."""


class RequestLog:
    """The last requests, in memory, and all lines in a file if one is given.

    Args:
        file: Appended to.
        token: The emulator's, masked wherever it stands.
    """

    def __init__(self, file: Path | None = None, token: str = "") -> None:
        self._lines: deque[bytes] = deque(maxlen=KEPT)
        self._file: IO[bytes] | None = file.open("ab", buffering=0) if file else None
        self._token = token if len(token) >= SHORTEST_TOKEN else ""

    def request(self, entry: dict[str, Any], headers: Mapping[str, str]) -> None:
        """Log a request and its answer.

        Args:
            entry: method, path, query, status, duration_ms, request_id, ...
            headers: Of the request.
        """
        shown = {
            name: MASK if SECRET_NAME.search(name) else self._masked(value)
            for name, value in headers.items()
        }
        entry = {
            name: self._masked(value) if isinstance(value, str) else value
            for name, value in {**entry, "query": _masked_query(entry["query"])}.items()
        }
        line = encode({"time": rfc3339_ms(now_ms()), **entry, "headers": shown})
        self._lines.append(line)
        self._write(line)

    def say(self, entry: dict[str, Any]) -> None:
        """Log something that is no request; it goes to the file only."""
        self._write(encode({"time": rfc3339_ms(now_ms()), **entry}))

    def lines(self) -> bytes:
        """The last requests, oldest first, a JSON document a line."""
        return b"".join(line + b"\n" for line in self._lines)

    def newest(self, count: int) -> list[bytes]:
        """The last `count` requests, newest first."""
        return list(islice(reversed(self._lines), count))

    def clear(self) -> None:
        """Forget the requests that are kept in memory."""
        self._lines.clear()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _masked(self, text: str) -> str:
        if self._token:
            text = text.replace(self._token, MASK)
        return TOKEN.sub(lambda found: f"{found[1] or ''}{MASK}", text)

    def _write(self, line: bytes) -> None:
        if self._file is not None:
            self._file.write(line + b"\n")


def _masked_query(query: str) -> str:
    pairs = (pair.partition("=") for pair in query.split("&"))
    return "&".join(
        f"{name}={MASK}" if SECRET_NAME.search(unquote_plus(name)) else f"{name}{equals}{value}"
        for name, equals, value in pairs
    )
