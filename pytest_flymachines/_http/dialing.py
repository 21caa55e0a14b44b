"""Connected streams to servers: TCP, Unix sockets, TLS, and tunnels through proxies."""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
import threading
import urllib.request
from base64 import b64encode
from urllib.parse import unquote

import httpcore
import httpx

from pytest_flymachines._http.connection import Connection

__all__ = ["Dialer", "Origin"]

Origin = tuple[bytes, bytes, int]


class Dialer:
    """Connects to servers; raises httpcore's exceptions.

    An `https` host is reached through the proxy that `https_proxy` or `all_proxy` names, unless
    `no_proxy` excludes it; `http` (loopback, Fly's private network) never goes through one.
    """

    def __init__(self, uds: str | None, ssl_context: ssl.SSLContext | None) -> None:
        """Make a dialer.

        Args:
            uds: Path of a Unix socket to use for every host, such as `/.fly/api`.
            ssl_context: For `https`; by default certifi's authorities, or `SSL_CERT_FILE`.
        """
        self._uds = uds
        self._ssl_context = ssl_context
        self._lock = threading.Lock()
        self._backend = httpcore.SyncBackend()

    def connect(self, origin: Origin, timeout_s: float | None) -> httpcore.NetworkStream:
        """A stream to (scheme, host, port), ready for HTTP."""
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
        return stream

    def _tunnel(
        self, proxy: httpx.URL, host: str, port: int, timeout_s: float | None
    ) -> httpcore.NetworkStream:
        """A stream to `host` through an HTTP proxy (RFC 9110, section 9.3.6)."""
        proxy_port = proxy.port or (443 if proxy.scheme == "https" else 80)
        stream = self._backend.connect_tcp(proxy.host, proxy_port, timeout=timeout_s)
        if proxy.scheme == "https":
            stream = stream.start_tls(self._tls(), server_hostname=proxy.host, timeout=timeout_s)
        target = f"{host}:{port}".encode("ascii")
        headers = [(b"host", target)]
        if proxy.userinfo:
            userinfo = unquote(proxy.userinfo.decode("ascii")).encode()
            headers.append((b"proxy-authorization", b"Basic " + b64encode(userinfo)))
        try:
            answer = Connection(stream, 0.0).send(
                "CONNECT", target, headers, write_s=timeout_s, read_s=timeout_s
            )
            if not 200 <= answer.status_code < 300:
                raise httpcore.ProxyError(
                    f"proxy {proxy.host}:{proxy_port} answered {answer.status_code} to "
                    f"CONNECT {target.decode()}"
                )
        except BaseException:
            stream.close()
            raise
        return stream

    def _tls(self) -> ssl.SSLContext:
        with self._lock:
            if self._ssl_context is None:  # reading the authorities takes 20 ms
                self._ssl_context = httpx.create_ssl_context()
            return self._ssl_context


def _proxy_for(host: str) -> httpx.URL | None:
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return None
    if host == "localhost" or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    url = proxies.get("https") or proxies.get("all")
    return httpx.URL(url if "://" in url else f"http://{url}") if url else None
