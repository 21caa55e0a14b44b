"""Bytes passed both ways between two connections, as they are."""

from __future__ import annotations

import asyncio

from pytest_flymachines.emulator.proxy.wire import Wire, reset

__all__ = ["tunnel"]


async def tunnel(
    left: Wire, right: Wire, *, greeting: bytes = b"", idle_timeout_s: float | None = None
) -> None:
    """Pass bytes both ways until both connections are gone, with back-pressure.

    The end of one stream is passed on (half-close) where the other connection can do that; both
    are closed in the end, also when this is cancelled. A reset is passed on too.

    Args:
        left: One connection, `half_open`; what it has received and nobody has read goes first.
        right: The other, likewise.
        greeting: Sent to the right one before anything else.
        idle_timeout_s: Close after this time without a byte either way; None never does.
    """
    ends = (_End(left), _End(right))
    ends[0].other, ends[1].other = ends[1], ends[0]
    try:
        if greeting:
            right.transport.write(greeting)
        for end, wire in zip(ends, (left, right), strict=True):
            end.begin(wire.taken())
        await _until_gone(ends, idle_timeout_s)
    finally:
        for end in ends:
            end.transport.abort()


async def _until_gone(ends: tuple[_End, _End], idle_timeout_s: float | None) -> None:
    loop = asyncio.get_running_loop()
    waiting = {ends[0].lost, ends[1].lost}
    while waiting:
        wait_s = None
        if idle_timeout_s is not None:
            wait_s = max(end.touched for end in ends) + idle_timeout_s - loop.time()
            if wait_s <= 0:
                return
        _, waiting = await asyncio.wait(waiting, timeout=wait_s)


class _End(asyncio.Protocol):
    """What comes in here goes out at the other end; takes a connection over from its wire."""

    other: _End

    def __init__(self, wire: Wire) -> None:
        self._loop = asyncio.get_running_loop()
        self.transport = wire.transport
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self.touched = self._loop.time()
        self.ended = False
        wire.on_lost = None
        self.transport.pause_reading()
        self.transport.set_protocol(self)
        if self.transport.is_closing():
            self.lost.set_result(None)

    def begin(self, received: bytes) -> None:
        if received:
            self.data_received(received)
        if self.lost.done():
            self.other.transport.close()
        else:
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self.touched = self._loop.time()
        if not self.other.transport.is_closing():
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        if self.ended:  # asyncio says it again whenever reading is resumed
            return True
        self.ended = True
        if self.other.ended:
            self.other.transport.close()
            return False
        if not self.other.transport.can_write_eof():  # TLS knows no half-close
            self.other.transport.close()
            return False
        self.other.transport.write_eof()
        return self.transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        if exc:
            reset(self.other.transport)
        else:
            self.other.transport.close()

    def pause_writing(self) -> None:
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if not self.other.transport.is_closing():
            self.other.transport.resume_reading()
