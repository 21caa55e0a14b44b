"""One request sent over one connection into a machine, and its answer taken back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import h11

from pytest_flymachines.emulator.proxy.headers import Headers, first, trailing
from pytest_flymachines.emulator.proxy.message import Body, Problem, Request, Responder
from pytest_flymachines.emulator.proxy.replay import Replay, asked_for, read
from pytest_flymachines.emulator.proxy.upstream import Connection, Upstream, long_length

__all__ = ["MAX_REPLAY_ANSWER", "BaseExchange", "Broken", "Exchange"]

MAX_REPLAY_ANSWER = 1_000_000


class Broken(Exception):
    """The connection into the machine ended before the answer had begun."""


@dataclass(frozen=True, kw_only=True)
class BaseExchange:
    """A request's way into a machine and back, whatever is spoken there.

    Attributes:
        upstream: The connection; afterwards it can be used again or has to be closed.
        responder: Where the answer goes.
        answered: Makes the headers of the machine's answers into those for the visitor.
        idle_timeout_s: For a connection that is switched to another protocol.
        may_replay: Whether an answer may send the request elsewhere.
    """

    upstream: Connection
    responder: Responder
    answered: Callable[[Headers], Headers]
    idle_timeout_s: float
    may_replay: bool = True

    async def run(self, request: Request, headers: Headers) -> Replay | None:
        """Send the request with these headers instead of its own, and take back the answer.

        Returns:
            Where the request is to go now, if that is what the machine answered.

        Raises:
            Broken: The connection ended before anything was answered.
            ConnectionError: It broke, or the visitor's did, later on.
            Problem: The request cannot be sent, or the `fly-replay` not be read.
        """
        pump: asyncio.Task[None] | None = None
        try:
            pump = self._send(request, headers)
            return await self._receive(request)
        except (h11.RemoteProtocolError, ConnectionError) as error:
            if pump and pump.done() and (cause := pump.exception()):
                raise cause from None
            if self.responder.begun:
                raise ConnectionResetError(f"the answer broke off: {error}") from error
            raise Broken(str(error)) from error
        finally:
            if pump:
                pump.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await pump

    def _send(self, request: Request, headers: Headers) -> asyncio.Task[None] | None:
        """Send what is there; the rest of a body goes out in a task of its own."""
        raise NotImplementedError

    async def _receive(self, request: Request) -> Replay | None:
        """Take the answer back."""
        raise NotImplementedError

    async def _pump(self, body: Body, *, sized: bool) -> None:
        """Send a body as it comes; `sized`: its length was told before."""
        raise NotImplementedError

    def _pumping(self, body: Body, *, sized: bool) -> asyncio.Task[None]:
        loop = asyncio.get_running_loop()
        pump = loop.create_task(self._pump(body, sized=sized), name="request body")
        pump.add_done_callback(self._pumped)
        return pump

    def _pumped(self, pump: asyncio.Task[None]) -> None:
        if not pump.cancelled() and pump.exception():
            self.upstream.wire.abort()  # there will be no whole request


@dataclass(frozen=True, kw_only=True)
class Exchange(BaseExchange):
    """One in HTTP/1.1."""

    upstream: Upstream

    def _send(self, request: Request, headers: Headers) -> asyncio.Task[None] | None:
        http, body = self.upstream.http, request.body
        sized = bool(first(headers, b"content-length"))
        try:
            head = h11.Request(method=request.method, target=request.target, headers=headers)
            parts = [http.send(head)]
            if body.complete:
                parts.append(http.send(h11.Data(data=body.arrived)) if body.arrived else b"")
                parts.append(http.send(_end_of(body, sized=sized)))
        except h11.LocalProtocolError as error:
            raise Problem(502, f"[PU04] could not build the request: {error}") from None
        self.upstream.wire.write(b"".join(part for part in parts if part))
        return None if body.complete else self._pumping(body, sized=sized)

    async def _pump(self, body: Body, *, sized: bool) -> None:
        async with contextlib.aclosing(body.pieces()) as pieces:
            async for piece in pieces:
                if not await self._pass_on(h11.Data(data=piece)):
                    return
        await self._pass_on(_end_of(body, sized=sized))

    async def _pass_on(self, event: h11.Data | h11.EndOfMessage) -> bool:
        """Send a piece; False if the machine takes no more, which its answer will explain."""
        try:
            await self.upstream.wire.send(self.upstream.http.send(event) or b"")
        except (ConnectionError, h11.LocalProtocolError):
            return False
        return True

    async def _receive(self, request: Request) -> Replay | None:
        responder, http = self.responder, self.upstream.http
        while True:
            match event := http.next_event():
                case h11.NEED_DATA:
                    await responder.flush()
                    await self.upstream.receive()
                case h11.InformationalResponse(status_code=101):
                    request.body.forget()
                    raw: Headers = event.headers.raw_items()
                    headers = self.answered(raw)
                    headers += [(b"Connection", b"Upgrade")]
                    headers += [pair for pair in raw if pair[0].lower() == b"upgrade"]
                    await responder.switch(self.upstream, headers, self.idle_timeout_s)
                    return None
                case h11.InformationalResponse():
                    responder.inform(event.status_code, event.headers.raw_items())
                case h11.Response():
                    headers = event.headers.raw_items()
                    if self.may_replay and asked_for(headers):
                        return read(headers, await self._short_body())
                    request.body.forget()
                    headers = self.answered(headers)
                    responder.begin(event.status_code, event.reason, headers)
                    if length := long_length(event, request.method):
                        async with contextlib.aclosing(self.upstream.body(length)) as pieces:
                            async for piece in pieces:
                                responder.data(piece)
                                await responder.flush()
                        responder.end([])
                        await responder.flush()
                        return None
                case h11.Data():
                    responder.data(event.data)
                case h11.EndOfMessage():
                    responder.end(trailing(event.headers.raw_items()))
                    await responder.flush()
                    return None
                case _:
                    raise h11.RemoteProtocolError(f"unexpected {event}")

    async def _short_body(self) -> bytes:
        body = bytearray()
        while True:
            match event := self.upstream.http.next_event():
                case h11.NEED_DATA:
                    await self.upstream.receive()
                case h11.Data():
                    body += event.data
                    if len(body) > MAX_REPLAY_ANSWER:
                        raise Problem(502, "[PA03] the body of the fly-replay is larger than 1 MB")
                case _:
                    return bytes(body)


def _end_of(body: Body, *, sized: bool) -> h11.EndOfMessage:
    """The end of a body; in HTTP/1.1 none has both a length and trailers."""
    return h11.EndOfMessage(headers=[] if sized else body.trailers)
