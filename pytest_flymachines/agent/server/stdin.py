"""Feeding a process: bytes wait here until its pipe or terminal takes them."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from threading import Condition, Lock

from .reactor import WRITE, Reactor

END_OF_TRANSMISSION = b"\x04"
CHUNK_BYTES = 65536


class Stdin:
    """The writing end of a process's stdin. All methods need the lock of `changed`.

    Attributes:
        pending: Bytes that the process has not taken yet.
        broken: The process does not read any more, or stdin was closed.
        lost: Bytes that were taken never reached it.
        turn: Whoever feeds from outside holds this lock, so that its bytes stay together.
    """

    def __init__(self, reactor: Reactor, fd: int, changed: Condition, terminal: bool) -> None:
        self.pending = bytearray()
        self.broken = fd < 0
        self.lost = False
        self.turn = Lock()
        self._reactor = reactor
        self._fd = fd
        self._changed = changed
        self._terminal = terminal
        self._closing = False
        self._watched = False

    def feed(self, data: bytes, *, eof: bool) -> None:
        """Take `data`; `eof` closes stdin after it (a terminal gets its end-of-file key)."""
        if self.broken or self._closing:
            raise BrokenPipeError(errno.EPIPE, "stdin is closed")
        self.pending += data
        if eof and self._terminal:
            self.pending += END_OF_TRANSMISSION
        elif eof:
            self._closing = True
        self._push()

    def take_back(self) -> int:
        """Drop what still waits; how many bytes that was."""
        left = len(self.pending)
        self.pending.clear()
        self._push()
        return left

    def close(self) -> None:
        """Give up; what still waits is lost."""
        self.lost = self.lost or bool(self.pending)
        self.pending.clear()
        self.broken = True
        self._unwatch()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _ready(self) -> None:
        with self._changed:
            if not self.broken:
                self._push()
                self._changed.notify_all()

    def _push(self) -> None:
        try:
            while self.pending:
                del self.pending[: os.write(self._fd, self.pending[:CHUNK_BYTES])]
        except BlockingIOError:
            if not self._watched:
                self._watched = True
                self._reactor.watch(self._fd, WRITE, self._ready)
            return
        except OSError:  # EPIPE, or EIO of a terminal that nobody has open
            self.close()
            return
        self._unwatch()
        if self._closing:
            self.close()

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            with suppress(OSError):
                self._reactor.unwatch(self._fd)
