"""Time for everything above the transports: real, or that of a recording.

A loop that polls until a deadline decides by the clock how often to ask. Replay must decide
the same, so such loops take a `Clock` and never call `time` themselves.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

__all__ = ["Clock", "ReplayClock", "SystemClock"]


class Clock(Protocol):
    """Seconds since some fixed moment, and a way to let them pass."""

    def monotonic(self) -> float:
        """Seconds that only ever grow."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return once `seconds` have passed; at once if not positive."""
        ...


class SystemClock:
    """This computer's clock, also while a test has frozen or replaced `time`'s functions."""

    # bound here, and clock_gettime instead of monotonic, because freezegun and monkeypatched
    # tests replace what the module `time` offers
    _gettime = staticmethod(time.clock_gettime)
    _sleep = staticmethod(time.sleep)

    def monotonic(self) -> float:
        """Seconds since this computer booted; the same for all of its processes."""
        return self._gettime(time.CLOCK_MONOTONIC)

    def sleep(self, seconds: float) -> None:
        """Block the calling thread."""
        if seconds > 0:
            self._sleep(seconds)


class ReplayClock(threading.local):
    """Virtual time of its own for each thread: starts at 0, moves only when told, never waits."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        """Seconds that were slept or advanced by this thread so far."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Advance, without waiting."""
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass for this thread; nothing if not positive."""
        self._now += max(0.0, seconds)
