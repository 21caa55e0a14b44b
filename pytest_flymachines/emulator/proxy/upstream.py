"""Connections into machines, kept for a short while for the next request."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

import h11

from pytest_flymachines.emulator.proxy.wire import Wire, connected

__all__ = ["Connection", "Upstream", "Upstreams"]

# https://fly.io/docs/reference/load-balancing/: connections are pooled for about 4 seconds.
KEEP_S = 4.0


# Machine and port.
Key = tuple[str, int]


class Connection:
    """One connection to a program in a machine.

    Attributes:
        wire: Its bytes.
        key: Where it leads.
        used: It has served a request before.
        expiry: Ends it when it has been idle for too long.
    """

    def __init__(self, wire: Wire, key: Key) -> None:
        self.wire = wire
        self.key = key
        self.used = False
        self.expiry: asyncio.TimerHandle | None = None

    @property
    def standing(self) -> bool:
        """Whether an idle one can still be used."""
        return self.wire.quiet

    @property
    def reusable(self) -> bool:
        """Whether both sides are done with this exchange and will have another."""
        raise NotImplementedError

    def renew(self) -> None:
        """Get ready for another exchange."""


class Upstream(Connection):
    """One that speaks HTTP/1.1."""

    def __init__(self, wire: Wire, key: Key) -> None:
        super().__init__(wire, key)
        self.http = h11.Connection(h11.CLIENT)

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
        done = self.http.our_state is h11.DONE and self.http.their_state is h11.DONE
        # What came after the answer would be taken for that to the next request.
        return done and not self.http.trailing_data[0]

    def renew(self) -> None:
        """Get ready for another exchange."""
        self.http.start_next_cycle()


C = TypeVar("C", bound=Connection)


class Upstreams:
    """Every idle connection, by machine and port."""

    def __init__(self, connect: Callable[[str, int], Awaitable[socket.socket]]) -> None:
        """Begin with none.

        Args:
            connect: Gives a new, connected, non-blocking socket.
        """
        self._connect = connect
        self._idle: dict[Key, list[Connection]] = {}

    async def take(self, kind: type[C], key: Key, *, fresh: bool = False) -> C:
        """A connection that stands: an idle one unless `fresh`, else a new one.

        Args:
            kind: How to speak on it.
            key: Machine and port.
            fresh: Make a new one.

        Raises:
            OSError: Nothing listens there.
        """
        for upstream in () if fresh else reversed(self._idle.get(key, [])[:]):
            if not isinstance(upstream, kind):
                continue
            self._forget(upstream)
            if upstream.standing:
                upstream.used = True
                return upstream
            upstream.wire.abort()
        return kind(await connected(await self._connect(*key)), key)

    def give_back(self, upstream: Connection) -> None:
        """Keep a connection for the next request if it can have one, else close it."""
        if not upstream.reusable or upstream.wire.transport.is_closing():
            upstream.wire.abort()
            return
        upstream.renew()
        loop = asyncio.get_running_loop()
        upstream.expiry = loop.call_later(KEEP_S, self._drop, upstream)
        self._idle.setdefault(upstream.key, []).append(upstream)

    def close(self) -> None:
        """Close every idle connection."""
        for upstream in [one for waiting in self._idle.values() for one in waiting]:
            self._drop(upstream)

    def _drop(self, upstream: Connection) -> None:
        self._forget(upstream)
        upstream.wire.abort()

    def _forget(self, upstream: Connection) -> None:
        if upstream.expiry:
            upstream.expiry.cancel()
        waiting = self._idle[upstream.key]
        waiting.remove(upstream)
        if not waiting:
            del self._idle[upstream.key]
