"""`PoolTransport`: kept-alive connections, shared by all threads."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Iterator

import httpcore
import httpx
from httpx import BaseTransport, Request, Response, SyncByteStream, TransportError

from pytest_flymachines._http.connection import Connection
from pytest_flymachines._http.dialing import Dialer, Origin

__all__ = ["PoolTransport"]

KEEPALIVE_S = 20.0

# httpcore's exceptions, and the httpx exceptions of the same names
_ERRORS: dict[type[BaseException], type[TransportError]] = {
    kind: getattr(httpx, name)
    for name, kind in vars(httpcore).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and hasattr(httpx, name)
}
_CAUGHT = tuple(_ERRORS)


class PoolTransport(BaseTransport):
    """Kept-alive HTTP/1.1 connections, shared by all threads.

    `httpx.HTTPTransport` and `httpcore.ConnectionPool` are not used, because vcrpy,
    pytest-httpx and respx replace methods of those classes to catch the traffic of the tests
    that use them; a sandbox must not disappear behind such a mock.
    """

    def __init__(
        self,
        *,
        uds: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        keepalive_s: float = KEEPALIVE_S,
    ) -> None:
        """Make a pool without any connection.

        Args:
            uds: See `Dialer`.
            ssl_context: See `Dialer`.
            keepalive_s: Seconds after which an idle connection is not used again.
        """
        self._dialer = Dialer(uds, ssl_context)
        self._keepalive_s = keepalive_s
        self._lock = threading.Lock()
        self._idle: dict[Origin, list[Connection]] = {}
        self._pid = os.getpid()
        self._closed = False

    def handle_request(self, request: Request) -> Response:
        """Send a request; the answer's body is read from its stream.

        Raises:
            TransportError: As httpx's own transport, but without httpcore's exception as cause.
        """
        url = request.url
        origin = (url.raw_scheme, url.raw_host, url.port or (443 if url.scheme == "https" else 80))
        timeouts = request.extensions.get("timeout", {})
        read_s = timeouts.get("read")
        assert isinstance(request.stream, SyncByteStream)
        try:
            connection = self._take(origin) or self._connect(origin, timeouts.get("connect"))
            try:
                answer = connection.send(
                    request.method,
                    url.raw_path,
                    request.headers.raw,
                    request.stream,
                    write_s=timeouts.get("write"),
                    read_s=read_s,
                )
            except BaseException:
                connection.close()
                raise
        except _CAUGHT as error:
            raise _httpx_error(error, request) from None
        return Response(
            answer.status_code,
            headers=answer.headers.raw_items(),
            stream=_BodyStream(self, origin, connection, request, read_s),
            extensions={
                "http_version": b"HTTP/" + answer.http_version,
                "reason_phrase": answer.reason,
            },
        )

    def close(self) -> None:
        """Close idle connections now, and those in use when their answers are closed."""
        with self._lock:
            self._closed = True
            connections = [c for idle in self._idle.values() for c in idle]
            self._idle.clear()
        for connection in connections:
            connection.close()

    def _connect(self, origin: Origin, timeout_s: float | None) -> Connection:
        return Connection(self._dialer.connect(origin, timeout_s), self._keepalive_s)

    def _take(self, origin: Origin) -> Connection | None:
        if self._pid != os.getpid():  # forked: the sockets are shared with the parent
            self._pid, self._idle, self._lock = os.getpid(), {}, threading.Lock()
        while True:
            with self._lock:
                idle = self._idle.get(origin)
                if not idle:
                    return None
                connection = idle.pop()
            if not connection.has_expired():
                return connection
            connection.close()

    def _give_back(self, origin: Origin, connection: Connection) -> None:
        done = []
        with self._lock:
            if connection.end() and not self._closed:
                idle = self._idle.setdefault(origin, [])
                # the oldest are first, and those of a burst of threads may never be taken again
                while idle and idle[0].is_old():
                    done.append(idle.pop(0))
                idle.append(connection)
            else:
                done.append(connection)
        for one in done:
            one.close()


class _BodyStream(SyncByteStream):
    """The body of an answer; closing it gives the connection back."""

    def __init__(
        self,
        pool: PoolTransport,
        origin: Origin,
        connection: Connection,
        request: Request,
        read_s: float | None,
    ) -> None:
        self._pool = pool
        self._origin = origin
        self._connection = connection
        self._request = request
        self._read_s = read_s
        self._open = True

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._connection.body(self._read_s)
        except _CAUGHT as error:
            raise _httpx_error(error, self._request) from None

    def close(self) -> None:
        if self._open:
            self._open = False
            self._pool._give_back(self._origin, self._connection)  # noqa: SLF001 - same concept


def _httpx_error(error: BaseException, request: Request) -> TransportError:
    kind = next(_ERRORS[c] for c in type(error).__mro__ if c in _ERRORS)
    return kind(str(error) or type(error).__name__, request=request)
