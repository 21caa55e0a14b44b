"""How much the proxy has under way in each machine."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import ExitStack

from pytest_flymachines.emulator.config import Service

__all__ = ["DEFAULT_SOFT_LIMIT", "Loads", "Slot", "hard_limit", "soft_limit"]

# https://fly.io/docs/reference/configuration/#services-concurrency
DEFAULT_SOFT_LIMIT = 20


def soft_limit(service: Service) -> int:
    """From this load on, other machines are preferred."""
    return (service.concurrency and service.concurrency.soft_limit) or DEFAULT_SOFT_LIMIT


def hard_limit(service: Service) -> int | None:
    """At this load nothing more is sent; None: no limit."""
    return (service.concurrency and service.concurrency.hard_limit) or None


# One request or connection that is under way: closed, at the latest by a with block, it is over.
Slot = ExitStack


class Loads:
    """Requests or connections under way, by machine and internal port."""

    def __init__(self) -> None:
        self._now: Counter[tuple[str, int]] = Counter()
        self._idle_since: dict[str, float] = {}
        self._waiting: set[asyncio.Future[None]] = set()

    def of(self, machine_id: str, port: int) -> int:
        """What is under way in one service of a machine."""
        return self._now[machine_id, port]

    def idle_s(self, machine_id: str) -> float:
        """Seconds since the last work in a machine ended, or since this was first asked."""
        now = asyncio.get_running_loop().time()
        return now - self._idle_since.setdefault(machine_id, now)

    def enter(self, machine_id: str, port: int) -> Slot:
        """Count one more, until the slot is closed."""
        self._now[machine_id, port] += 1
        slot = Slot()
        slot.callback(self._leave, machine_id, port)
        return slot

    def forget(self, machine_id: str) -> None:
        """Drop what is remembered of a machine that does not run."""
        self._idle_since.pop(machine_id, None)

    async def change(self, timeout_s: float) -> None:
        """Wait until `changed` is called, but no longer than this."""
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(change)
        try:
            await asyncio.wait([change], timeout=timeout_s)
        finally:
            self._waiting.discard(change)

    def changed(self) -> None:
        """Something has ended or started: those who wait may try again."""
        for change in self._waiting:
            if not change.done():
                change.set_result(None)

    def _leave(self, machine_id: str, port: int) -> None:
        self._now[machine_id, port] -= 1
        if not self._now[machine_id, port]:
            del self._now[machine_id, port]
        self._idle_since[machine_id] = asyncio.get_running_loop().time()
        self.changed()
