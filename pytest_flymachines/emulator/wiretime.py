"""Times and durations as they stand on the wire."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from functools import lru_cache

__all__ = ["MAX_NS", "Duration", "DurationError", "now_ms", "rfc3339", "rfc3339_ms"]

UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([^0-9.]*)")
#: A Go duration is 64 bits of nanoseconds.
MAX_NS = 2**63 - 1


class DurationError(ValueError):
    """A text that Go does not read as a duration; the message is Go's."""


class Duration:
    """A Go duration: `"1m30s"` on the wire; a bare number means nanoseconds.

    Source: `duration.go` in superfly/fly-go.
    """

    __slots__ = ("ns",)

    def __init__(self, ns: int) -> None:
        self.ns = ns

    @property
    def seconds(self) -> float:
        """The same in seconds."""
        return self.ns / 1e9

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Read what Go's `time.ParseDuration` reads.

        Raises:
            DurationError: With Go's text.
        """
        body = text[1:] if text[:1] in ("+", "-") else text
        if body == "0":
            return cls(0)
        if not body or PART.sub("", body):
            raise DurationError(f'time: invalid duration "{text}"')
        total = 0.0
        for number, unit in PART.findall(body):
            if not unit:
                raise DurationError(f'time: missing unit in duration "{text}"')
            if unit not in UNITS_NS:
                raise DurationError(f'time: unknown unit "{unit}" in duration "{text}"')
            total += float(number) * UNITS_NS[unit]
        if total > MAX_NS:
            raise DurationError(f'time: invalid duration "{text}"')
        return cls(round(-total if text[0] == "-" else total))

    def __str__(self) -> str:
        if self.ns == 0:
            return "0s"
        sign, ns = ("-", -self.ns) if self.ns < 0 else ("", self.ns)
        for unit in ("ns", "µs", "ms"):
            if ns < UNITS_NS[unit] * 1000:
                return f"{sign}{_decimal(ns, UNITS_NS[unit])}{unit}"
        minutes, rest = divmod(ns, UNITS_NS["m"])
        hours, minutes = divmod(minutes, 60)
        text = f"{_decimal(rest, UNITS_NS['s'])}s"
        if hours or minutes:
            text = f"{minutes}m{text}"
        return sign + (f"{hours}h{text}" if hours else text)

    def __repr__(self) -> str:
        return f"Duration({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and other.ns == self.ns

    def __hash__(self) -> int:
        return hash(self.ns)


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    digits = f"{rest:0{len(str(unit)) - 1}d}".rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


def rfc3339(ms: int) -> str:
    """`2023-11-08T01:52:30Z`, as in `created_at` of a machine."""
    return _second(ms // 1000)


@lru_cache(4096)  # half of the time of a list, which shows the same again and again
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_ms(ms: int) -> str:
    """`2023-11-08T01:52:30.299Z`, as in `exited_at` and `created_at` of a volume."""
    return f"{rfc3339(ms)[:-1]}.{ms % 1000:03d}Z"
