"""A request on its way through the proxy, and where its answer goes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from pytest_flymachines.emulator.proxy.headers import SERVER, Headers
from pytest_flymachines.emulator.proxy.upstream import Upstream

__all__ = ["MAX_REPLAYED", "Body", "Problem", "Request", "Responder"]

# https://fly.io/docs/networking/dynamic-request-routing/#requirements-and-limitations
MAX_REPLAYED = 1_000_000


class Problem(Exception):
    """An error answer of the proxy itself: status and a line of text."""

    def __init__(self, status: int, text: str, headers: Headers | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers or []

    @property
    def reason(self) -> bytes:
        """The phrase that goes with the status."""
        return HTTPStatus(self.status).phrase.encode()

    @property
    def body(self) -> bytes:
        """The body of the answer."""
        return f"{self.text}\n".encode()

    @property
    def answer_headers(self) -> Headers:
        """All headers of the answer."""
        return [
            *self.headers,
            (b"Content-Type", b"text/plain; charset=utf-8"),
            (b"Content-Length", str(len(self.body)).encode()),
            (b"Server", SERVER),
        ]


class Body:
    """The body of a request: read as it comes, kept for another try while it is small.

    Attributes:
        complete: All of it has arrived.
        again: All that was read is still there, so that it can be sent once more.
        trailers: Those that came after it.
    """

    def __init__(self, more: Callable[[], Awaitable[bytes]]) -> None:
        """Make the body of a request.

        Args:
            more: Gives the next piece; empty at the end.
        """
        self._more = more
        self._kept: list[bytes] = []
        self._size = 0
        self.complete = False
        self.again = True
        self.trailers: Headers = []

    def add(self, data: bytes) -> None:
        """Take a piece that has arrived; an empty one is the end."""
        if not data:
            self.complete = True
        elif self.again:
            self._size += len(data)
            self._kept.append(data)
            if self._size > MAX_REPLAYED:
                self.again = False
                self._kept.clear()

    def forget(self) -> None:
        """Keep nothing any more: there will be no other try."""
        self.again = False
        self._kept.clear()

    @property
    def arrived(self) -> bytes:
        """What is kept."""
        return b"".join(self._kept)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Every piece from the first on, waiting for those that have not arrived."""
        for piece in tuple(self._kept):
            yield piece
        while not self.complete:
            piece = await self._more()
            self.add(piece)
            if piece:
                yield piece


@dataclass(kw_only=True)
class Request:
    """A request as it came.

    Attributes:
        method: As written.
        target: Path and query.
        host: Of the URL or the `Host` header, in lower case, with the port if one is named.
        headers: All of them.
        body: Its body.
        client: IP address of the visitor.
        version: HTTP version of the visitor: `1.0`, `1.1` or `2`.
        upgrade: It asks for another protocol.
    """

    method: bytes
    target: bytes
    host: str
    headers: Headers
    body: Body
    client: str
    version: str = "1.1"
    upgrade: bool = False


class Responder(Protocol):
    """Where the answer to one request goes; everything but `flush` only gathers."""

    @property
    def begun(self) -> bool:
        """Whether the head of the final answer is on its way."""
        ...

    def limit_idle(self, timeout_s: float) -> None:
        """Close the connection after this time without a byte."""
        ...

    def inform(self, status: int, headers: Headers) -> None:
        """Add a 1xx answer."""
        ...

    def begin(self, status: int, reason: bytes, headers: Headers) -> None:
        """Add the head of the final answer."""
        ...

    def data(self, data: bytes) -> None:
        """Add a piece of its body."""
        ...

    def end(self, trailers: Headers) -> None:
        """End it."""
        ...

    async def flush(self) -> None:
        """Send what was gathered, waiting for a visitor who does not keep up."""
        ...

    async def switch(self, upstream: Upstream, headers: Headers, idle_timeout_s: float) -> None:
        """Answer 101 and pass bytes both ways until both sides are gone."""
        ...
