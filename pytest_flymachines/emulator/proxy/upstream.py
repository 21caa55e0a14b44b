"""HTTP/1.1 connections into machines, kept for a short while for the next request."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import h11

from pytest_flymachines.emulator.proxy.wire import Wire, connected

__all__ = ["Upstream", "Upstreams"]

# https://fly.io/docs/reference/load-balancing/: connections are pooled for about 4 seconds.
KEEP_S = 4.0


class Upstream:
    """One connection to a program in a machine."""

    def __init__(self, wire: Wire, key: tuple[str, int]) -> None:
        self.wire = wire
        self.key = key
        self.http = h11.Connection(h11.CLIENT)
        self.used = False
        self.expiry: asyncio.TimerHandle | None = None

    async def receive(self) -> None:
        """Feed what comes next, or the end, to the parser.

        Raises:
            ConnectionError: The connection broke; an orderly end is no error here.
        """
        data = await self.wire.receive()
        if not data and self.wire.error:
            raise ConnectionResetError(str(self.wire.error)) from self.wire.error
        self.http.receive_data(data)

    @property
    def reusable(self) -> bool:
        """Whether both sides are done with this exchange and will have another."""
        return self.http.our_state is h11.DONE and self.http.their_state is h11.DONE


class Upstreams:
    """Every idle connection, by machine and port."""

    def __init__(self, connect: Callable[[str, int], Awaitable[socket.socket]]) -> None:
        """Begin with none.

        Args:
            connect: Gives a new, connected, non-blocking socket.
        """
        self._connect = connect
        self._idle: dict[tuple[str, int], list[Upstream]] = {}

    async def take(self, machine_id: str, port: int, *, fresh: bool = False) -> Upstream:
        """A connection that stands: an idle one unless `fresh`, else a new one.

        Raises:
            OSError: Nothing listens there.
        """
        key = machine_id, port
        while not fresh and (waiting := self._idle.get(key)):
            upstream = waiting[-1]
            self._forget(upstream)
            if upstream.wire.quiet:
                upstream.used = True
                return upstream
            upstream.wire.abort()
        sock = await self._connect(machine_id, port)
        return Upstream(await connected(sock), key)

    def give_back(self, upstream: Upstream) -> None:
        """Keep a connection for the next request if it can have one, else close it."""
        if not upstream.reusable or upstream.wire.transport.is_closing():
            upstream.wire.abort()
            return
        upstream.http.start_next_cycle()
        loop = asyncio.get_running_loop()
        upstream.expiry = loop.call_later(KEEP_S, self._drop, upstream)
        self._idle.setdefault(upstream.key, []).append(upstream)

    def close(self) -> None:
        """Close every idle connection."""
        for upstream in [one for waiting in self._idle.values() for one in waiting]:
            self._drop(upstream)

    def _drop(self, upstream: Upstream) -> None:
        self._forget(upstream)
        upstream.wire.abort()

    def _forget(self, upstream: Upstream) -> None:
        if upstream.expiry:
            upstream.expiry.cancel()
        waiting = self._idle[upstream.key]
        waiting.remove(upstream)
        if not waiting:
            del self._idle[upstream.key]
