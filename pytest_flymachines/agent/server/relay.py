"""A TCP connection carried by a WebSocket: what both ends of a forward do.

Each binary message is a piece of the stream. The text message `eof` says that the sender's side
of the stream has ended, because a WebSocket, unlike TCP, cannot be closed in one direction.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import suppress

from .websocket import RECEIVE_BYTES, WebSocket

EOF = "eof"
BUFFER_BYTES = 256 * 1024


def relay(websocket: WebSocket, stream: socket.socket) -> None:
    """Carry bytes both ways until both directions, or either connection, have ended."""
    stream.setblocking(False)
    with suppress(OSError):
        _Relay(websocket, stream).run()


class _Relay:
    def __init__(self, websocket: WebSocket, stream: socket.socket) -> None:
        self._websocket = websocket
        self._stream = stream
        self._to_stream = bytearray()
        self._stream_ended = False
        self._peer_ended = False
        self._shut = False

    def run(self) -> None:
        self._take(self._websocket.messages())
        while not self._websocket.closed or self._websocket.outgoing:
            if self._stream_ended and self._peer_ended and not self._to_stream:
                self._websocket.close()
            for fd, events in self._poll():
                if fd == self._stream.fileno():
                    self._on_stream(events)
                else:
                    self._on_websocket(events)

    def _poll(self) -> list[tuple[int, int]]:
        poll = select.poll()
        wanted = select.POLLOUT if self._websocket.outgoing else 0
        if not self._websocket.closed and len(self._to_stream) < BUFFER_BYTES:
            wanted |= select.POLLIN
        poll.register(self._websocket.sock, wanted)
        wanted = select.POLLOUT if self._to_stream else 0
        if not self._stream_ended and len(self._websocket.outgoing) < BUFFER_BYTES:
            wanted |= select.POLLIN
        # both directions over and nothing to write: poll would only repeat POLLHUP
        if wanted:
            poll.register(self._stream, wanted)
        return poll.poll()

    def _on_stream(self, events: int) -> None:
        if events & select.POLLOUT:
            self._write()
        if events & ~select.POLLOUT and not self._stream_ended:
            try:
                data = self._stream.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            self._stream_ended = not data
            self._websocket.send(data or EOF)

    def _on_websocket(self, events: int) -> None:
        if events & select.POLLOUT:
            self._websocket.flush()
        if events & ~select.POLLOUT:
            self._take(self._websocket.receive())

    def _take(self, messages: Iterator[str | bytes]) -> None:
        for message in messages:
            if isinstance(message, bytes):
                self._to_stream += message
            elif message == EOF:
                self._peer_ended = True
        self._write()

    def _write(self) -> None:
        with suppress(BlockingIOError):
            while self._to_stream:
                del self._to_stream[: self._stream.send(self._to_stream[:BUFFER_BYTES])]
            if self._peer_ended and not self._shut:
                self._shut = True
                self._stream.shutdown(socket.SHUT_WR)
