"""HTTP: the only module that imports httpx and httpcore.

`Http` sends a request through a `Transport` and reads the answer. Transports wrap one another
(record, retry, pace); the innermost is a `PoolTransport`, which owns the sockets.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import ssl
import threading
import urllib.request
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import httpcore
import httpx
import msgspec
from httpx import (
    URL,
    ByteStream,
    Client,
    ConnectError,
    ConnectTimeout,
    Cookies,
    Headers,
    NetworkError,
    ProxyError,
    ReadError,
    ReadTimeout,
    RemoteProtocolError,
    Request,
    Response,
    SyncByteStream,
    TimeoutException,
    TransportError,
    WriteError,
)
from httpx import BaseTransport as Transport

__all__ = [
    "URL",
    "ByteStream",
    "Client",
    "ConnectError",
    "ConnectTimeout",
    "Cookies",
    "Headers",
    "Http",
    "NetworkError",
    "Param",
    "PoolTransport",
    "ProxyError",
    "ReadError",
    "ReadTimeout",
    "RemoteProtocolError",
    "Request",
    "Response",
    "SyncByteStream",
    "TimeoutException",
    "Transport",
    "TransportError",
    "WriteError",
]

CONNECT_TIMEOUT_S = 10.0
KEEPALIVE_S = 20.0

Param = str | int | float | bool | None


class Http:
    """Sends requests to one server through a transport.

    `httpx.Client` is not used: its redirects, auth flows and event hooks cost as much time as
    the whole exchange on loopback, and nothing here wants them.
    """

    def __init__(
        self, transport: Transport, base_url: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Make a sender.

        Args:
            transport: What carries the requests; not closed by this object.
            base_url: Scheme, host and optional path, to which each request's path is appended.
            headers: Sent with every request.
        """
        self._transport = transport
        self.base_url = base_url.rstrip("/")
        # httpx.Headers hides the value of Authorization in its repr, also in shown locals
        self._headers = Headers(headers)

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Param | Sequence[Param]] | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        content: bytes | Iterable[bytes] | None = None,
        timeout_s: float = 60.0,
        extensions: Mapping[str, Any] | None = None,
    ) -> Response:
        """Send a request and read the whole answer, whatever its status.

        Args:
            method: HTTP method.
            path: Path below `base_url`, starting with `/`, already percent-encoded.
            params: Query; a sequence repeats its key, None leaves the key out.
            headers: Beside those of every request.
            json: Body, anything that msgspec encodes; sets the content type.
            content: Body as bytes, or in pieces (then sent chunked unless `headers` has a
                content-length).
            timeout_s: Seconds without any progress in reading or writing after which the
                request fails; connecting takes at most 10 s of them.
            extensions: Hints for transports, see `httpx.Request.extensions`.

        Raises:
            TransportError: No answer, or a broken one; `ConnectError` and `ConnectTimeout` say
                that the request was not sent.
        """
        with self.stream(
            method,
            path,
            params=params,
            headers=headers,
            json=json,
            content=content,
            timeout_s=timeout_s,
            extensions=extensions,
        ) as response:
            response.read()
        return response

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Param | Sequence[Param]] | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        content: bytes | Iterable[bytes] | None = None,
        timeout_s: float = 60.0,
        extensions: Mapping[str, Any] | None = None,
    ) -> Iterator[Response]:
        """Like `request`, but the body is left to be read with `Response.iter_bytes`."""
        url = _url(self.base_url + path)
        if params:
            url = url.copy_merge_params({k: v for k, v in params.items() if v is not None})
        merged = self._headers
        if headers or json is not None:
            merged = merged.copy()
            merged.update(headers)
        if json is not None:
            content = msgspec.json.encode(json)
            merged["content-type"] = "application/json"
        request = Request(
            method,
            url,
            headers=merged,
            content=content,
            extensions={
                "timeout": {
                    **dict.fromkeys(("read", "write", "pool"), timeout_s),
                    "connect": min(timeout_s, CONNECT_TIMEOUT_S),
                },
                **(extensions or {}),
            },
        )
        response = self._transport.handle_request(request)
        response.request = request
        try:
            yield response
        finally:
            response.close()


@functools.lru_cache(maxsize=512)
def _url(url: str) -> URL:
    return URL(url)


_Origin = tuple[bytes, bytes, int]


class PoolTransport(Transport):
    """Kept-alive HTTP/1.1 connections, shared by all threads.

    `httpx.HTTPTransport` and `httpcore.ConnectionPool` are not used, because vcrpy,
    pytest-httpx and respx replace methods of those classes to catch the traffic of the tests
    that use them; a sandbox must not disappear behind such a mock.

    An `https` host is reached through the proxy that `https_proxy` or `all_proxy` names, unless
    `no_proxy` excludes it; `http` (loopback, Fly's private network) never goes through one.
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
            uds: Path of a Unix socket to use for every host, such as `/.fly/api`.
            ssl_context: For `https`; by default certifi's authorities, or `SSL_CERT_FILE`.
            keepalive_s: Seconds after which an idle connection is not used again.
        """
        self._uds = uds
        self._ssl_context = ssl_context
        self._keepalive_s = keepalive_s
        self._backend = httpcore.SyncBackend()
        self._lock = threading.Lock()
        self._idle: dict[_Origin, list[httpcore.HTTP11Connection]] = {}
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
        with _httpx_errors(request):
            connection = self._take(origin) or self._connect(origin, timeouts.get("connect"))
            try:
                answer = connection.handle_request(
                    httpcore.Request(
                        method=request.method,
                        url=httpcore.URL(
                            scheme=origin[0], host=origin[1], port=url.port, target=url.raw_path
                        ),
                        headers=request.headers.raw,
                        content=request.stream,
                        extensions=request.extensions,
                    )
                )
            except BaseException:
                connection.close()
                raise
        return Response(
            answer.status,
            headers=answer.headers,
            stream=_BodyStream(self, origin, connection, answer, request),
            extensions=answer.extensions,
        )

    def close(self) -> None:
        """Close idle connections now, and those in use when their answers are closed."""
        with self._lock:
            self._closed = True
            connections = [c for idle in self._idle.values() for c in idle]
            self._idle.clear()
        for connection in connections:
            connection.close()

    def _take(self, origin: _Origin) -> httpcore.HTTP11Connection | None:
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

    def _give_back(self, origin: _Origin, connection: httpcore.HTTP11Connection) -> None:
        with self._lock:
            keep = connection.is_idle() and not self._closed
            if keep:
                self._idle.setdefault(origin, []).append(connection)
        if not keep:
            connection.close()

    def _connect(self, origin: _Origin, timeout_s: float | None) -> httpcore.HTTP11Connection:
        scheme, raw_host, port = origin
        host = raw_host.decode("ascii")
        if scheme not in (b"http", b"https"):
            raise httpcore.UnsupportedProtocol(
                f"expected a URL with http:// or https://, not {scheme.decode()!r}"
            )
        if self._uds is not None:
            stream = self._backend.connect_unix_socket(self._uds, timeout=timeout_s)
        elif scheme == b"https" and (proxy := _proxy_for(host)):
            stream = self._tunnel(proxy, host, port, timeout_s)
        else:
            stream = self._backend.connect_tcp(host, port, timeout=timeout_s)
        if scheme == b"https":
            stream = stream.start_tls(self._tls(), server_hostname=host, timeout=timeout_s)
        return httpcore.HTTP11Connection(
            origin=httpcore.Origin(*origin), stream=stream, keepalive_expiry=self._keepalive_s
        )

    def _tunnel(
        self, proxy: URL, host: str, port: int, timeout_s: float | None
    ) -> httpcore.NetworkStream:
        """A stream to `host` through an HTTP proxy (RFC 9110, section 9.3.6)."""
        proxy_port = proxy.port or (443 if proxy.scheme == "https" else 80)
        stream = self._backend.connect_tcp(proxy.host, proxy_port, timeout=timeout_s)
        if proxy.scheme == "https":
            stream = stream.start_tls(self._tls(), server_hostname=proxy.host, timeout=timeout_s)
        target = f"{host}:{port}"
        headers = [("host", target)]
        if proxy.userinfo:
            userinfo = unquote(proxy.userinfo.decode("ascii")).encode()
            headers.append(("proxy-authorization", f"Basic {b64encode(userinfo).decode()}"))
        origin = httpcore.Origin(proxy.raw_scheme, proxy.raw_host, proxy_port)
        answer = httpcore.HTTP11Connection(origin=origin, stream=stream).handle_request(
            httpcore.Request(
                "CONNECT",
                httpcore.URL(
                    scheme=origin.scheme, host=origin.host, port=proxy_port, target=target
                ),
                headers=headers,
                extensions={"timeout": {"read": timeout_s, "write": timeout_s}},
            )
        )
        if not 200 <= answer.status < 300:
            stream.close()
            raise httpcore.ProxyError(
                f"proxy {proxy.host}:{proxy_port} answered {answer.status} to CONNECT {target}"
            )
        tunnel: httpcore.NetworkStream = answer.extensions["network_stream"]
        return tunnel

    def _tls(self) -> ssl.SSLContext:
        with self._lock:
            if self._ssl_context is None:  # reading the authorities takes 20 ms
                self._ssl_context = httpx.create_ssl_context()
            return self._ssl_context


class _BodyStream(SyncByteStream):
    """The body of an answer; closing it gives the connection back."""

    def __init__(
        self,
        pool: PoolTransport,
        origin: _Origin,
        connection: httpcore.HTTP11Connection,
        answer: httpcore.Response,
        request: Request,
    ) -> None:
        self._pool = pool
        self._origin = origin
        self._connection = connection
        self._stream: Any = answer.stream
        self._request = request
        self._open = True

    def __iter__(self) -> Iterator[bytes]:
        with _httpx_errors(self._request):
            yield from self._stream

    def close(self) -> None:
        if self._open:
            self._open = False
            self._stream.close()
            self._pool._give_back(self._origin, self._connection)  # noqa: SLF001 - same concept


@contextlib.contextmanager
def _httpx_errors(request: Request) -> Iterator[None]:
    """Turn httpcore's exceptions into the httpx exceptions of the same names."""
    try:
        yield
    except tuple(_ERRORS) as exc:
        kind = next(_ERRORS[c] for c in type(exc).__mro__ if c in _ERRORS)
        raise kind(str(exc) or type(exc).__name__, request=request) from None


_ERRORS: dict[type[BaseException], type[TransportError]] = {
    kind: getattr(httpx, name)
    for name, kind in vars(httpcore).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and hasattr(httpx, name)
}


def _proxy_for(host: str) -> URL | None:
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return None
    if host == "localhost" or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    url = proxies.get("https") or proxies.get("all")
    return URL(url if "://" in url else f"http://{url}") if url else None
