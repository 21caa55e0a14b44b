"""Answers compressed for visitors who can take that.

On unless `http_options.compress` is false. Source:
https://fly.io/docs/reference/content-encoding/; Fly also has zstd and br, for which the standard
library has nothing. Which types of content are compressed is not documented.
"""

from __future__ import annotations

import re
import zlib

from pytest_flymachines.emulator.proxy.headers import Headers, first
from pytest_flymachines.emulator.proxy.message import Request, Responder
from pytest_flymachines.emulator.proxy.upstream import Upstream

__all__ = ["Compressing", "accepted"]

# In the order in which Fly prefers them; the number is zlib's word for the format.
CODINGS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
TEXT = re.compile(
    r"(?!application/grpc)(text/(?!event-stream)|application/(json|javascript|xml|wasm|manifest\+json)|[^;]*\+(json|xml))"
)
# No body, or a part of one.
NEVER = (204, 206, 304)


def accepted(header: str) -> str:
    """The coding to use for an `Accept-Encoding`; empty for none."""
    weights = {}
    for part in header.lower().split(","):
        name, _, weight = part.partition(";")
        try:
            weights[name.strip()] = float(weight.partition("=")[2] or 1)
        except ValueError:
            weights[name.strip()] = 0.0
    default = weights.get("*", 0.0)
    best = max(CODINGS, key=lambda name: weights.get(name, default))
    return best if weights.get(best, default) > 0 else ""


class Compressing:
    """A responder that compresses what goes through it, where that is right; see message.py.

    As on Fly, what is compressed is buffered: an answer that trickles, and is not an event
    stream, arrives late.
    """

    def __init__(self, inner: Responder, request: Request) -> None:
        """Wrap the responder of a request."""
        self._inner = inner
        self._coding = accepted(first(request.headers, b"accept-encoding"))
        self._head = request.method == b"HEAD"
        self._packer: zlib._Compress | None = None

    @property
    def begun(self) -> bool:
        """Whether the head of the final answer is on its way."""
        return self._inner.begun

    def limit_idle(self, timeout_s: float) -> None:
        """Close the connection after this time without a byte."""
        self._inner.limit_idle(timeout_s)

    def inform(self, status: int, headers: Headers) -> None:
        """Add a 1xx answer."""
        self._inner.inform(status, headers)

    def begin(self, status: int, reason: bytes, headers: Headers) -> None:
        """Add the head of the final answer."""
        if self._coding and not self._head and status not in NEVER and _fit(headers):
            self._packer = zlib.compressobj(wbits=CODINGS[self._coding])
            headers = _compressed(headers, self._coding)
        self._inner.begin(status, reason, headers)

    def data(self, data: bytes) -> None:
        """Add a piece of its body."""
        if self._packer:
            data = self._packer.compress(data)
        if data:
            self._inner.data(data)

    def end(self, trailers: Headers) -> None:
        """End it."""
        if self._packer:
            self._inner.data(self._packer.flush())
        self._inner.end(trailers)

    async def flush(self) -> None:
        """Send what was gathered."""
        await self._inner.flush()

    async def switch(self, upstream: Upstream, headers: Headers, idle_timeout_s: float) -> None:
        """Answer 101 and pass bytes both ways until both sides are gone."""
        await self._inner.switch(upstream, headers, idle_timeout_s)


def _fit(headers: Headers) -> bool:
    return (
        not first(headers, b"content-encoding")
        and first(headers, b"content-length") != "0"
        and "no-transform" not in first(headers, b"cache-control").lower()
        and TEXT.match(first(headers, b"content-type").lower()) is not None
    )


def _compressed(headers: Headers, coding: str) -> Headers:
    """Headers of an answer whose body is now another one (RFC 9110, 8.8.3: a weak ETag)."""
    changed = []
    for name, value in headers:
        match name.lower():
            case b"content-length" | b"accept-ranges":
                continue
            case b"etag" if not value.startswith(b"W/"):
                value = b"W/" + value
        changed.append((name, value))
    return [
        *changed,
        (b"Content-Encoding", coding.encode()),
        (b"Vary", b"Accept-Encoding"),
    ]
