"""The client's end of a WebSocket."""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from urllib.parse import SplitResult, urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, RejectConnection, RejectData, Request
from wsproto.utilities import RemoteProtocolError

from pytest_flymachines.agent.server.websocket import WebSocket
from pytest_flymachines.errors import AgentUnavailable

__all__ = ["TextSocket", "open_websocket"]

CONNECT_S = 10.0
_UNSENT = {"accept-encoding", "host"}


class TlsWebSocket(WebSocket):
    """Over TLS, which may hold bytes that poll(2) does not see."""

    not_now = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

    def receive(self) -> Iterator[str | bytes]:
        """See `WebSocket.receive`."""
        yield from super().receive()
        assert isinstance(self.sock, ssl.SSLSocket)
        while not self.closed and self.sock.pending():
            yield from super().receive()


def open_websocket(url: str, path: str, headers: Mapping[str, str]) -> WebSocket:
    """Connect and upgrade.

    Args:
        url: `http`, `https`, `ws` or `wss` URL; a bare `host:port` means `ws`.
        path: Path and query, percent-encoded.
        headers: For the upgrade; `host` replaces that of the URL.

    Raises:
        AgentUnavailable: Nobody answers, or the answer is no WebSocket.
    """
    parts = urlsplit(url if "://" in url else f"ws://{url}")
    try:
        sock = _connect(parts)
    except OSError as error:
        raise AgentUnavailable(f"no connection to {url} for a WebSocket: {error}") from error
    try:
        connection = _upgrade(sock, headers.get("host", parts.netloc), path, headers).connection
        assert connection
    except (OSError, RemoteProtocolError) as error:
        sock.close()
        raise AgentUnavailable(f"{url}{path} gave no WebSocket: {error}") from error
    return (TlsWebSocket if isinstance(sock, ssl.SSLSocket) else WebSocket)(sock, connection)


def _connect(parts: SplitResult) -> socket.socket:
    secure = parts.scheme in ("https", "wss")
    address = (parts.hostname or "", parts.port or (443 if secure else 80))
    sock = socket.create_connection(address, CONNECT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not secure:
        return sock
    try:
        return ssl.create_default_context().wrap_socket(sock, server_hostname=parts.hostname)
    except OSError:
        sock.close()
        raise


def _upgrade(sock: socket.socket, host: str, path: str, headers: Mapping[str, str]) -> WSConnection:
    handshake = WSConnection(ConnectionType.CLIENT)
    sock.sendall(handshake.send(_request(host, path, headers)))
    status, text, complete = 0, b"", False
    while not complete:
        data = sock.recv(65536)
        if not data:
            raise ConnectionError(
                f"the connection was closed {f'after {status}' if status else ''}"
            )
        handshake.receive_data(data)
        for event in handshake.events():
            if isinstance(event, AcceptConnection):
                return handshake
            if isinstance(event, RejectConnection):
                status, complete = event.status_code, not event.has_body
            if isinstance(event, RejectData):
                text += event.data
                complete = event.body_finished
    raise ConnectionError(f"the answer was {status}: {text.decode('utf-8', 'replace').strip()}")


def _request(host: str, path: str, headers: Mapping[str, str]) -> Request:
    return Request(
        host=host,
        target=path,
        extra_headers=[
            (name.encode(), value.encode())
            for name, value in headers.items()
            if name.lower() not in _UNSENT
        ],
    )


class TextSocket:
    """Text messages on a WebSocket, one at a time. Any thread may send while one receives."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._messages: deque[str] = deque()
        self._lock = threading.Lock()
        self._closed = False

    def send(self, text: str) -> None:
        """Send one message.

        Raises:
            AgentUnavailable: The connection is closed.
        """
        with self._lock:
            if self._websocket.closed:
                raise AgentUnavailable("cook-agent has closed the terminal's connection")
            self._websocket.send(text)
        while self._flush():
            self._poll(select.POLLOUT, 60.0)

    def receive(self, timeout_s: float) -> str | None:
        """The next message; None when the server has closed the connection.

        Raises:
            TimeoutError: There was none for `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while not self._messages:
            if self._websocket.closed:
                return None
            left = deadline - time.monotonic()
            if not self._poll(select.POLLIN, max(0.0, left)):
                raise TimeoutError(f"no message for {timeout_s:g} s")
            with self._lock:
                try:
                    received = list(self._websocket.receive())
                except OSError:
                    self._websocket.closed = True
                    return None
            self._messages += [m for m in received if isinstance(m, str)]
            self._flush()
        return self._messages.popleft()

    def close(self) -> None:
        """Say goodbye and close the connection."""
        if not self._closed:
            self._closed = True
            with self._lock:
                self._websocket.close()
            self._flush()
            self._websocket.sock.close()

    def _flush(self) -> bool:
        """Send what the socket takes; whether something is left."""
        with self._lock, suppress(OSError):
            while self._websocket.outgoing and self._websocket.flush():
                pass
            return bool(self._websocket.outgoing)
        return False

    def _poll(self, events: int, timeout_s: float) -> bool:
        poll = select.poll()
        poll.register(self._websocket.sock, events)
        return bool(poll.poll(timeout_s * 1000))
