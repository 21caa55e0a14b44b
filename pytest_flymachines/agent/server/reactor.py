"""One thread that waits for every pipe, every timer and the end of every child."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

from .log import log

READ = select.EPOLLIN
WRITE = select.EPOLLOUT


class Reactor:
    """Calls back when a descriptor is ready, a timer is due or a child has ended.

    `run` belongs to the main thread; everything else may be called from any thread.
    Callbacks must not block. A callback may be called once more for a descriptor that another
    thread has just replaced by a new one of the same number, so they read without blocking.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._timers: dict[int, tuple[float, Callable[[], None]]] = {}
        self._next_timer = 0
        self._wakes_at = 0.0
        self._lock = threading.Lock()
        self._running = True
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        self.on_child: Callable[[], None] = lambda: None

    def watch(self, fd: int, events: int, callback: Callable[[], None]) -> None:
        """Call back while `fd` is ready; level-triggered."""
        self._callbacks[fd] = callback
        self._epoll.register(fd, events)

    def unwatch(self, fd: int) -> None:
        """Stop; must come before the descriptor is closed. Unknown ones are ignored."""
        if self._callbacks.pop(fd, None) is not None:
            with suppress(OSError):
                self._epoll.unregister(fd)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> int:
        """Call once after `delay_s` seconds; gives a number for `cancel`."""
        with self._lock:
            self._next_timer += 1
            number = self._next_timer
            when = time.monotonic() + delay_s
            self._timers[number] = (when, callback)
            sooner = when < self._wakes_at
        if sooner:
            self.wake()
        return number

    def cancel(self, number: int) -> None:
        """Forget a timer; one that has fired is ignored."""
        with self._lock:
            self._timers.pop(number, None)

    def wake(self) -> None:
        """Make `run` look at children and timers now."""
        with suppress(BlockingIOError):
            os.write(self._wake_w, b"\0")

    def stop(self) -> None:
        """Make `run` return."""
        self._running = False
        self.wake()

    def run(self) -> None:
        """Serve until `stop`."""
        # a handler must exist for the wake-up byte to be written
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
        self._epoll.register(self._wake_r, READ)
        while self._running:
            for fd, _ in self._epoll.poll(self._run_timers()):
                if fd == self._wake_r:
                    self._drain_wakeups()
                elif callback := self._callbacks.get(fd):
                    try:
                        callback()
                    except Exception:  # noqa: BLE001 - one stream ends, the others go on
                        log(f"descriptor {fd} is given up\n{traceback.format_exc()}")
                        self.unwatch(fd)

    def _drain_wakeups(self) -> None:
        with suppress(BlockingIOError):
            while len(os.read(self._wake_r, 4096)) == 4096:
                pass
        self.on_child()

    def _run_timers(self) -> float | None:
        """Run what is due; seconds to the next timer."""
        while True:
            with self._lock:
                if not self._timers:
                    self._wakes_at = float("inf")
                    return None
                number = min(self._timers, key=lambda n: self._timers[n][0])
                when, callback = self._timers[number]
                left = when - time.monotonic()
                if left > 0:
                    self._wakes_at = when
                    return left
                del self._timers[number]
            callback()
