"""The request log: one JSON line per request, tokens masked, no bodies."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any

from pytest_flymachines.emulator.config import encode
from pytest_flymachines.emulator.wiretime import now_ms, rfc3339_ms

__all__ = ["RequestLog"]

KEPT = 5000
SECRET_HEADERS = ("authorization", "cookie", "proxy-authorization", "fly-src-signature")


class RequestLog:
    """The last requests, in memory, and all lines in a file if one is given."""

    def __init__(self, file: Path | None = None) -> None:
        self._lines: deque[bytes] = deque(maxlen=KEPT)
        self._file: IO[bytes] | None = file.open("ab", buffering=0) if file else None

    def request(self, entry: dict[str, Any], headers: Mapping[str, str]) -> None:
        """Log a request and its answer.

        Args:
            entry: method, path, query, status, duration_ms, request_id, ...
            headers: Of the request; what authenticates is masked.
        """
        shown = {
            name: "***" if name.lower() in SECRET_HEADERS else value
            for name, value in headers.items()
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

    def _write(self, line: bytes) -> None:
        if self._file is not None:
            self._file.write(line + b"\n")
