"""HTTP/1.1 with a visitor: one request after another on one connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import h11

from pytest_flymachines.emulator.proxy.headers import Headers, first, trailing
from pytest_flymachines.emulator.proxy.message import Body, Problem, Request, Responder
from pytest_flymachines.emulator.proxy.target import check_framing, origin_form
from pytest_flymachines.emulator.proxy.tunnel import tunnel
from pytest_flymachines.emulator.proxy.upstream import Upstream
from pytest_flymachines.emulator.proxy.wire import Wire

__all__ = ["HEAD_TIMEOUT_S", "IDLE_TIMEOUT_S", "LINGER_S", "Handle", "Http1", "Passthrough"]

# https://fly.io/docs/reference/services/: idle connections are closed after 60 seconds.
IDLE_TIMEOUT_S = 60.0

MAX_HEAD = 64 * 1024
LINGER_S = 2.0
# Not documented; without any limit whoever sends a byte now and then could stay for ever.
HEAD_TIMEOUT_S = 60.0
# A request of which something has not been read: nothing can follow on its connection.
NO_BODY = (204, 304)
UNREAD = (h11.SEND_BODY, h11.ERROR)

Handle = Callable[[Request, Responder], Awaitable[None]]


# Takes a connection that is not to be spoken HTTP on, with all the bytes it has received.
Passthrough = Callable[[Wire, bytes], Awaitable[None]]


class Http1:
    """One connection of a visitor."""

    _body: Body

    def __init__(
        self,
        wire: Wire,
        *,
        head_timeout_s: float = HEAD_TIMEOUT_S,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
    ) -> None:
        """Take over a connection.

        Args:
            wire: The connection.
            head_timeout_s: How long the head of a request may take from its first byte on.
            idle_timeout_s: How long there may be no byte either way; `limit_idle` changes it.
        """
        self._wire = wire
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._head_timeout_s = head_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._out: list[bytes] = []
        self._first: list[bytes] | None = []
        self.begun = False
        self._takes_trailers = False

    async def serve(
        self, handle: Handle, instead: Callable[[Request], Passthrough | None] | None = None
    ) -> None:
        """Have each request handled, until either side closes.

        The task that runs this is cancelled when the visitor goes away.

        Args:
            handle: Answers a request.
            instead: Says of the first request whether the connection goes elsewhere, and how.
        """
        task = asyncio.current_task()
        assert task is not None
        self._wire.on_lost = task.cancel
        self._wire.limit_idle(self._idle_timeout_s)
        try:
            while request := await self._request():
                if self._first is not None and instead and (way := instead(request)):
                    self._wire.on_lost = None
                    await way(self._wire, b"".join(self._first))
                    return
                self._first, self._wire.half_open = None, False
                if self._wire.ended:
                    return
                await self._handle(request, handle)
                if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                    break
                self._http.start_next_cycle()
            await self._linger()
        except ConnectionError:
            pass
        finally:
            self._wire.on_lost = None
            self._wire.close()

    async def _handle(self, request: Request, handle: Handle) -> None:
        self.begun = False
        try:
            await handle(request, self)
        except Problem as problem:
            await self._answer(problem, request.method)
        except h11.LocalProtocolError as error:
            if self.begun:
                raise ConnectionAbortedError(f"the answer cannot go on: {error}") from error
            text = f"[PU02] the machine's answer cannot be passed on: {error}"
            await self._answer(Problem(502, text), request.method)

    async def _request(self) -> Request | None:
        """The next request; None if the visitor is done, or has been told of a bad one."""
        try:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                await self._receive()
                async with asyncio.timeout(self._head_timeout_s):
                    while (event := self._http.next_event()) is h11.NEED_DATA:
                        await self._receive()
            return self._read(event) if isinstance(event, h11.Request) else None
        except h11.RemoteProtocolError as error:
            await self._answer(Problem(error.error_status_hint, f"bad request: {error}"))
        except Problem as problem:
            await self._answer(problem)
        except TimeoutError:
            await self._answer(Problem(408, "the head of the request took too long"))
        return None

    async def _receive(self) -> None:
        data = await self._wire.receive()
        if self._first is not None:
            self._first.append(data)
        self._http.receive_data(data)

    def _read(self, event: h11.Request) -> Request:
        if event.method == b"CONNECT":
            raise Problem(405, "there is no CONNECT here: address the app by the Host header")
        check_framing(event.http_version, event.headers.raw_items())
        target, headers = origin_form(event.method, event.target, event.headers.raw_items())
        connection = {part.strip() for part in first(headers, b"connection").lower().split(",")}
        protocol = first(headers, b"upgrade").lower()
        self._body = body = Body(self._more)
        self._gather(body)
        return Request(
            method=event.method,
            target=target,
            host=first(headers, b"host").lower(),
            headers=headers,
            body=body,
            client=self._wire.peer,
            version=event.http_version.decode(),
            # Fly Proxy speaks HTTP/2 to visitors itself.
            upgrade="upgrade" in connection and protocol not in ("", "h2c"),
        )

    def _gather(self, body: Body) -> None:
        """Take what has already arrived of a body."""
        while not body.complete:
            match event := self._http.next_event():
                case h11.Data():
                    body.add(bytes(event.data))
                case h11.EndOfMessage():
                    body.trailers = trailing(event.headers.raw_items())
                    body.add(b"")
                case _:
                    return

    async def _more(self) -> bytes:
        """The next piece of the body; empty at the end."""
        while True:
            match event := self._http.next_event():
                case h11.Data():
                    return bytes(event.data)
                case h11.EndOfMessage():
                    self._body.trailers = trailing(event.headers.raw_items())
                    return b""
                case _:
                    await self._receive()

    async def _answer(self, problem: Problem, method: bytes = b"") -> None:
        """Answer in the proxy's own name."""
        if self.begun or self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        self.begin(problem.status, problem.reason, problem.answer_headers)
        if method != b"HEAD":
            self.data(problem.body)
        self.end([])
        await self.flush()

    async def _linger(self) -> None:
        """Let a visitor who still sends read the answer, which a reset would take away."""
        if self._http.their_state not in UNREAD or not self._wire.transport.can_write_eof():
            return
        self._wire.transport.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while await self._wire.receive():
                    pass

    # A responder, see message.py.

    def limit_idle(self, timeout_s: float) -> None:
        """Close the connection after this time without a byte."""
        if timeout_s != self._idle_timeout_s:
            self._idle_timeout_s = timeout_s
            self._wire.limit_idle(timeout_s)

    def inform(self, status: int, headers: Headers) -> None:
        """Add a 1xx answer, if the visitor knows such."""
        if self._http.their_http_version != b"1.0":
            self._send(h11.InformationalResponse(status_code=status, headers=headers))

    def begin(self, status: int, reason: bytes, headers: Headers) -> None:
        """Add the head of the final answer."""
        self.begun = True
        if status == 204:
            headers = [pair for pair in headers if pair[0].lower() != b"content-length"]
        chunked = self._http.their_http_version != b"1.0" and not first(headers, b"content-length")
        self._takes_trailers = chunked and not (status < 200 or status in NO_BODY)
        if self._http.their_state in UNREAD:
            headers = [*headers, (b"Connection", b"close")]
        self._send(h11.Response(status_code=status, headers=headers, reason=reason))

    def data(self, data: bytes) -> None:
        """Add a piece of its body."""
        self._send(h11.Data(data=data))

    def end(self, trailers: Headers) -> None:
        """End it."""
        self._send(h11.EndOfMessage(headers=trailers if self._takes_trailers else []))

    async def flush(self) -> None:
        """Send what was gathered."""
        if self._out:
            out, self._out = self._out, []
            await self._wire.send(b"".join(out))

    async def switch(self, upstream: Upstream, headers: Headers, idle_timeout_s: float) -> None:
        """Answer 101 and pass bytes both ways until both sides are gone."""
        self._send(h11.InformationalResponse(status_code=101, headers=headers))
        await self.flush()
        self._wire.write(upstream.http.trailing_data[0])
        self._wire.on_lost = None
        greeting = self._http.trailing_data[0]
        await tunnel(self._wire, upstream.wire, greeting=greeting, idle_timeout_s=idle_timeout_s)

    def _send(self, event: h11.Event) -> None:
        if out := self._http.send(event):
            self._out.append(out)
