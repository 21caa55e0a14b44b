"""Signals that end a run: they take its machines down too."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import pytest

__all__ = ["EndSignals"]


class EndSignals:
    """A cancelled CI job (SIGTERM) and a closed terminal (SIGHUP) end the session, once.

    Attributes:
        received: Name of the first one; empty if there was none.
        ending: The session ends already, so that another one changes nothing.
    """

    def __init__(self) -> None:
        self.received = ""
        self.ending = False
        self._taken: list[int] = []
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self._end)
                self._taken.append(number)

    def restore(self) -> None:
        """Give the signals back."""
        for number in self._taken:
            signal.signal(number, signal.SIG_DFL)
        self._taken.clear()

    def _end(self, number: int, _: FrameType | None) -> None:
        first = not self.received
        self.received = self.received or signal.Signals(number).name
        if first and not self.ending:
            pytest.exit(f"received {self.received}", returncode=128 + number)
