"""`Http`: requests to one server, through a transport."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from httpx import URL, BaseTransport, ByteStream, Headers, Request, Response

__all__ = ["Http", "Param"]

CONNECT_TIMEOUT_S = 10.0

Param = str | int | float | bool | None
Params = Mapping[str, Param | Sequence[Param]]


class Http:
    """Sends requests to one server through a transport.

    `httpx.Client` is not used: its redirects, auth flows and event hooks cost as much time as
    the whole exchange on loopback, and nothing here wants them.
    """

    def __init__(
        self, transport: BaseTransport, base_url: str, headers: Mapping[str, str] | None = None
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
        host = self._headers.get("host") or URL(base_url).netloc.decode("ascii")
        self._json_headers = Headers({"host": host})
        self._json_headers.update(self._headers)
        self._json_headers["content-type"] = "application/json"

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
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
        response = self._send(method, path, params, headers, json, content, timeout_s, extensions)
        try:
            response.read()
        finally:
            response.close()
        return response

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        content: bytes | Iterable[bytes] | None = None,
        timeout_s: float = 60.0,
        extensions: Mapping[str, Any] | None = None,
    ) -> Iterator[Response]:
        """Like `request`, but the body is left to be read with `Response.iter_bytes`."""
        response = self._send(method, path, params, headers, json, content, timeout_s, extensions)
        try:
            yield response
        finally:
            response.close()

    def _send(
        self,
        method: str,
        path: str,
        params: Params | None,
        headers: Mapping[str, str] | None,
        json: Any,
        content: bytes | Iterable[bytes] | None,
        timeout_s: float,
        extensions: Mapping[str, Any] | None,
    ) -> Response:
        url = _url(self.base_url + path)
        if params:
            url = url.copy_merge_params({k: v for k, v in params.items() if v is not None})
        merged = self._headers if json is None else self._json_headers
        if headers:
            merged = merged.copy()
            merged.update(headers)
        timeouts = dict.fromkeys(("read", "write", "pool"), timeout_s)
        timeouts["connect"] = min(timeout_s, CONNECT_TIMEOUT_S)
        more = {"timeout": timeouts, **(extensions or {})}
        if json is None:
            request = Request(method, url, headers=merged, content=content, extensions=more)
        else:
            request = _with_json(method, url, merged, msgspec.json.encode(json), more)
        response = self._transport.handle_request(request)
        response.request = request
        return response


def _with_json(
    method: str, url: URL, headers: Headers, body: bytes, extensions: dict[str, Any]
) -> Request:
    """As `Request(content=...)`, which takes three times as long to find out the headers."""
    request = Request(method, url, headers=headers, stream=ByteStream(body), extensions=extensions)
    request.headers["content-length"] = str(len(body))
    request.read()
    return request


@functools.lru_cache(maxsize=512)
def _url(url: str) -> URL:
    return URL(url)
