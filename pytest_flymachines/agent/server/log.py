"""The agent's log: to stderr, and the end of it in memory for `GET .../agent/log`."""

from __future__ import annotations

import sys
from collections import deque
from contextlib import suppress

_lines: deque[str] = deque(maxlen=500)


def log(message: str) -> None:
    """Add to the log; several lines stay together."""
    _lines.append(message)
    with suppress(OSError):  # stderr may be on a disk that is full
        sys.stderr.write(f"{message}\n")
        sys.stderr.flush()


def tail() -> list[str]:
    """The last messages."""
    return list(_lines)
