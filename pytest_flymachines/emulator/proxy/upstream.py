"""Connections into machines, kept for a short while for the next request."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

import h11

from pytest_flymachines.emulator.proxy.wire import Wire, connected

__all__ = ["Connection", "Upstream", "Upstreams", "long_length"]

# https://fly.io/docs/reference/load-balancing/: connections are pooled for about 4 seconds.
KEEP_S = 4.0
# From this length on a body is read without h11, which copies it twice.
LONG_BYTES = 1024 * 1024
WITHOUT_BODY = (204, 304)


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

    async def body(self, length: int) -> AsyncGenerator[bytes, None]:
        """A body of known length, as it comes; instead of `receive` once its head was read.

        Raises:
            ConnectionError: The connection broke, or ended too early.
        """
        left = length
        piece = self.http.trailing_data[0]
        while left := left - len(piece):
            if piece:
                yield piece
            piece = await self.wire.receive()
            if not piece:
                why = self.wire.error or f"{left} of {length} bytes were left when it ended"
                raise ConnectionResetError(str(why))
            if len(piece) > left:  # what comes after the answer is nobody's: it stays unfinished
                yield piece[:left]
                return
        if self.http.our_state is h11.DONE:  # and the connection is to be kept
            self.http = h11.Connection(h11.CLIENT)
        yield piece

    @property
    def reusable(self) -> bool:
        """Whether both sides are done with this exchange and will have another."""
        states = self.http.our_state, self.http.their_state
        done = states in ((h11.DONE, h11.DONE), (h11.IDLE, h11.IDLE))
        # What came after the answer would be taken for that to the next request.
        return done and not self.http.trailing_data[0]

    def renew(self) -> None:
        """Get ready for another exchange."""
        if self.http.our_state is h11.DONE:
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


def long_length(answer: h11.Response, method: bytes) -> int:
    """The length of an answer's body, if that is known and large (RFC 9112, 6.3), else 0."""
    headers = dict(answer.headers)
    if method == b"HEAD" or answer.status_code in WITHOUT_BODY or b"transfer-encoding" in headers:
        return 0
    length = int(headers.get(b"content-length", b"0"))
    return length if length >= LONG_BYTES else 0
