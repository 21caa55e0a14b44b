"""One end of a WebSocket on a socket that does not block; frames by wsproto."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from wsproto import ConnectionType, WSConnection
from wsproto.connection import Connection, ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    TextMessage,
)
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from .wire import BadRequest

if TYPE_CHECKING:
    import h11

RECEIVE_BYTES = 64 * 1024
SEND_BYTES = 256 * 1024
MAX_MESSAGE_BYTES = 16 << 20


class WebSocket:
    """Messages in and out, for a loop that polls the socket.

    Attributes:
        outgoing: Bytes that wait for `flush`.
        closed: Nothing more can be received; the rest of `outgoing` is the farewell.
    """

    # what the socket raises for "not now"; TLS has more
    not_now: tuple[type[OSError], ...] = (BlockingIOError,)

    def __init__(self, sock: socket.socket, connection: Connection, start: bytes = b"") -> None:
        self.sock = sock
        self.outgoing = bytearray(start)
        self.closed = False
        self._connection = connection
        self._parts: list[str] | list[bytes] = []
        self._size = 0
        sock.setblocking(False)

    def send(self, message: str | bytes) -> None:
        """Queue a text or binary message."""
        self._queue(TextMessage(message) if isinstance(message, str) else BytesMessage(message))

    def close(self, code: int = CloseReason.NORMAL_CLOSURE, reason: str = "") -> None:
        """Queue the end."""
        self._queue(CloseConnection(code, reason))
        self.closed = True

    def _queue(self, event: Event) -> None:
        if not self.closed:
            self.outgoing += self._connection.send(event)

    def flush(self) -> bool:
        """Send what the socket takes; whether it took anything.

        Raises:
            OSError: The connection is gone.
        """
        try:
            sent = self.sock.send(self.outgoing[:SEND_BYTES])
        except self.not_now:
            return False
        del self.outgoing[:sent]
        return sent > 0

    def receive(self) -> Iterator[str | bytes]:
        """Read what the socket has; the whole messages in it.

        Raises:
            OSError: The connection is gone.
        """
        try:
            data = self.sock.recv(RECEIVE_BYTES)
        except self.not_now:
            return
        if not data:
            self.closed = True
            return
        self._connection.receive_data(data)
        yield from self.messages()

    def messages(self) -> Iterator[str | bytes]:
        """The whole messages among the bytes that were received."""
        try:
            for event in self._connection.events():
                if isinstance(event, Ping):
                    self._queue(event.response())
                elif isinstance(event, CloseConnection):
                    # OPEN: the peer broke the protocol, and is told so
                    if self._connection.state in (
                        ConnectionState.OPEN,
                        ConnectionState.REMOTE_CLOSING,
                    ):
                        self._queue(event.response())
                    self.closed = True
                    return
                elif isinstance(event, TextMessage | BytesMessage):
                    message = self._assemble(event)
                    if message is not None:
                        yield message
        except LocalProtocolError:  # bytes after the end
            self.closed = True

    def _assemble(self, event: TextMessage | BytesMessage) -> str | bytes | None:
        self._size += len(event.data)
        if self._size > MAX_MESSAGE_BYTES:
            self.close(CloseReason.MESSAGE_TOO_BIG)
            return None
        self._parts.append(event.data)  # type: ignore[arg-type]
        if not event.message_finished:
            return None
        empty: str | bytes = "" if isinstance(event, TextMessage) else b""
        message = empty.join(self._parts)  # type: ignore[arg-type]
        self._parts = []
        self._size = 0
        return message


def accept(sock: socket.socket, head: h11.Request, trailing: bytes) -> WebSocket:
    """The server's end for a request that asks for a WebSocket.

    Raises:
        BadRequest: It does not ask rightly.
    """
    handshake = WSConnection(ConnectionType.SERVER)
    try:
        handshake.initiate_upgrade_connection(list(head.headers), head.target)
    except RemoteProtocolError as error:
        raise BadRequest(f"no good request for a WebSocket: {error}") from error
    start = handshake.send(AcceptConnection())
    assert handshake.connection
    handshake.connection.receive_data(trailing)
    return WebSocket(sock, handshake.connection, start)
