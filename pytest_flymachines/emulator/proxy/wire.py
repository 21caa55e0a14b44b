"""One end of a byte stream: read by awaiting, written with back-pressure."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

__all__ = ["Wire", "connected", "reset", "send_at_once"]

MAX_BUFFERED = 256 * 1024


class Wire(asyncio.Protocol):
    """A connection, as a protocol of asyncio.

    Attributes:
        half_open: Whether the end of the other side's stream leaves the connection open. Else
            it closes it: an HTTP peer that has closed its half is taken for gone.
        ended: The other side's stream has ended.
        touched: When bytes last went either way, in the event loop's time.
        error: What broke the connection, if it did not just end.
        on_lost: Called once when the connection is gone.
    """

    transport: asyncio.Transport

    def __init__(self, sock: socket.socket | None = None, *, half_open: bool = False) -> None:
        self.half_open = half_open
        self.ended = False
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._received: list[bytes] = []
        self._size = 0
        self._reader: asyncio.Future[None] | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._lost = False
        self._idle_timer: asyncio.TimerHandle | None = None
        self.touched = self._loop.time()
        self.error: Exception | None = None
        self.on_lost: Callable[[], object] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Keep what came; called by asyncio."""
        self.touched = self._loop.time()
        self._received.append(data)
        self._size += len(data)
        if self._size >= MAX_BUFFERED:
            self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """Close, or not; called by asyncio."""
        self.ended = True
        self._wake()
        return self.half_open

    def connection_lost(self, exc: Exception | None) -> None:
        """End whatever waits; called by asyncio."""
        self._lost = self.ended = True
        self.error = exc
        self._stop_timer()
        self._wake()
        self.resume_writing()
        if self.on_lost:
            self.on_lost()

    def pause_writing(self) -> None:
        """The peer does not keep up; called by asyncio."""
        self._flowing.clear()

    def resume_writing(self) -> None:
        """The peer has caught up; called by asyncio."""
        self._flowing.set()

    @property
    def peer(self) -> str:
        """IP address of the other side; that of this computer where it has none."""
        name = self.transport.get_extra_info("peername")
        return name[0] if isinstance(name, tuple) else "127.0.0.1"

    @property
    def quiet(self) -> bool:
        """Whether the connection stands and the other side has said nothing unasked."""
        if self._sock is None or self.ended or self._received or self.transport.is_closing():
            return False
        try:  # what has arrived may not have reached the event loop yet
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    async def receive(self) -> bytes:
        """What has come since the last time, waiting for it; empty once the other side ended."""
        if not self._received and not self.ended:
            self._reader = self._loop.create_future()
            await self._reader
        return self.taken()

    def taken(self) -> bytes:
        """What has come since the last time, without waiting."""
        received, self._received = self._received, []
        if self._size >= MAX_BUFFERED and not self.transport.is_closing():
            self.transport.resume_reading()
        self._size = 0
        return received[0] if len(received) == 1 else b"".join(received)

    def write(self, data: bytes) -> None:
        """Write without waiting.

        Raises:
            ConnectionError: It is gone.
        """
        if self._lost or self.transport.is_closing():
            raise ConnectionResetError("the connection is gone")
        self.touched = self._loop.time()
        self.transport.write(data)

    async def send(self, data: bytes) -> None:
        """Write, and wait while the other side does not keep up.

        Raises:
            ConnectionError: It is gone.
        """
        self.write(data)
        if not self._flowing.is_set():
            await self._flowing.wait()
            if self._lost:
                raise ConnectionResetError("the connection is gone")

    def limit_idle(self, timeout_s: float) -> None:
        """Close once no byte has gone either way for this long; replaces an earlier limit."""
        self._stop_timer()
        left_s = self.touched + timeout_s - self._loop.time()
        if left_s <= 0:
            self.abort()
        elif not self._lost:
            self._idle_timer = self._loop.call_later(left_s, self.limit_idle, timeout_s)

    def close(self) -> None:
        """Send what is left to send, then close."""
        self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        self.transport.abort()

    def reset(self) -> None:
        """Close at once, and tell the other side that something is wrong."""
        reset(self.transport)

    def _stop_timer(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


def send_at_once(sock: socket.socket) -> None:
    """Switch Nagle's algorithm off.

    asyncio does that for sockets made as IPPROTO_TCP only; without it the second part of an
    answer waits 40 ms for the other side's delayed acknowledgement.
    """
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def reset(transport: asyncio.Transport) -> None:
    """Close a connection with a TCP reset instead of an orderly end."""
    if not transport.is_closing():
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()


async def connected(sock: socket.socket, *, half_open: bool = False) -> Wire:
    """A wire over a socket that is connected; the socket is closed if that fails."""
    loop = asyncio.get_running_loop()
    try:
        send_at_once(sock)
        _, wire = await loop.create_connection(lambda: Wire(sock, half_open=half_open), sock=sock)
    except BaseException:
        sock.close()
        raise
    return wire
