"""HTTP/2 in cleartext with a program: `http_options.h2_backend`, which gRPC needs.

The program is expected to know (h2c with prior knowledge). Source:
https://fly.io/docs/networking/services/#http-handler. A connection serves one request at a
time, so that what breaks it breaks nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from pytest_flymachines.emulator.proxy.exchange import MAX_REPLAY_ANSWER, BaseExchange
from pytest_flymachines.emulator.proxy.headers import HOP_BY_HOP, Headers, first, trailing
from pytest_flymachines.emulator.proxy.message import Body, Problem, Request
from pytest_flymachines.emulator.proxy.replay import Replay, asked_for, read
from pytest_flymachines.emulator.proxy.upstream import Connection, Key
from pytest_flymachines.emulator.proxy.wire import Wire

__all__ = ["Http2Exchange", "Http2Upstream"]

MAX_ID = 2**30
NOT_IN_HTTP2 = HOP_BY_HOP | {b"host", b"transfer-encoding"}


class Http2Upstream(Connection):
    """A connection to a program that speaks HTTP/2."""

    def __init__(self, wire: Wire, key: Key) -> None:
        super().__init__(wire, key)
        config = h2.config.H2Configuration(client_side=True, header_encoding=None)
        self.http = h2.connection.H2Connection(config)
        self.http.initiate_connection()
        self.whole = False

    @property
    def standing(self) -> bool:
        """Whether an idle one can still be used; a program may have sent pings, or goodbye."""
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self.http.receive_data(self.wire.taken())
        return self._open and not self.wire.transport.is_closing()

    @property
    def reusable(self) -> bool:
        """Whether the last exchange came to its end, and there may be another."""
        return self.whole and self._open

    @property
    def _open(self) -> bool:
        closed = self.http.state_machine.state is h2.connection.ConnectionState.CLOSED
        return not closed and not self.wire.ended and self.http.highest_outbound_stream_id < MAX_ID

    def renew(self) -> None:
        """Get ready for another exchange."""
        self.whole = False

    async def flush(self) -> None:
        """Send what the protocol has to say.

        Raises:
            ConnectionError: The connection is gone.
        """
        if out := self.http.data_to_send():
            await self.wire.send(out)

    async def events(self) -> list[h2.events.Event]:
        """What comes next.

        Raises:
            ConnectionError: The connection has ended, or the program speaks something else.
        """
        await self.flush()
        data = await self.wire.receive()
        if not data:
            raise ConnectionResetError("the connection ended")
        try:
            return self.http.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            with contextlib.suppress(ConnectionError):
                await self.flush()
            text = f"it does not speak HTTP/2 as h2_backend asks for: {error or type(error)}"
            raise ConnectionResetError(text) from error


@dataclass(frozen=True, kw_only=True)
class Http2Exchange(BaseExchange):
    """An exchange in HTTP/2."""

    upstream: Http2Upstream
    window: asyncio.Event = field(default_factory=asyncio.Event)
    stream: list[int] = field(default_factory=list)

    def _send(self, request: Request, headers: Headers) -> asyncio.Task[None] | None:
        http, body = self.upstream.http, request.body
        stream_id = http.get_next_available_stream_id()
        self.stream.append(stream_id)
        empty = body.complete and not body.arrived and not body.trailers
        try:
            http.send_headers(stream_id, _fields(request, headers), end_stream=empty)
        except h2.exceptions.ProtocolError as error:
            raise Problem(502, f"[PU04] could not build the request: {error}") from None
        return None if empty else self._pumping(body, sized=False)

    async def _pump(self, body: Body, *, sized: bool) -> None:
        del sized
        async with contextlib.aclosing(body.pieces()) as pieces:
            async for piece in pieces:
                await self._send_data(piece)
        http, stream_id = self.upstream.http, self.stream[0]
        with contextlib.suppress(h2.exceptions.ProtocolError, ConnectionError):
            if body.trailers:
                fields = [(name.lower(), value) for name, value in body.trailers]
                http.send_headers(stream_id, fields, end_stream=True)
            else:
                http.end_stream(stream_id)
            await self.upstream.flush()

    async def _send_data(self, data: bytes) -> None:
        """Send as the program lets us; what it takes no more its answer will explain."""
        http, stream_id = self.upstream.http, self.stream[0]
        at = 0
        with contextlib.suppress(h2.exceptions.ProtocolError, ConnectionError):
            while at < len(data):
                self.window.clear()
                room = http.local_flow_control_window(stream_id)
                size = min(room, http.max_outbound_frame_size, len(data) - at)
                if size <= 0:
                    await self.upstream.flush()
                    await self.window.wait()
                    continue
                http.send_data(stream_id, data[at : at + size])
                at += size
                await self.upstream.flush()

    async def _receive(self, request: Request) -> Replay | None:
        responder = self.responder
        replay: Headers | None = None
        kept, trailers = bytearray(), Headers()
        while True:
            taken = 0
            for event in self._of_stream(await self.upstream.events()):
                match event:
                    case h2.events.InformationalResponseReceived():
                        responder.inform(*_answer(event.headers or ()))
                    case h2.events.ResponseReceived():
                        status, headers = _answer(event.headers or ())
                        if self.may_replay and asked_for(headers):
                            replay = headers
                            continue
                        request.body.forget()
                        responder.begin(status, _reason(status), self.answered(headers))
                    case h2.events.DataReceived():
                        taken += event.flow_controlled_length or 0
                        if replay is None:
                            responder.data(event.data or b"")
                            continue
                        kept += event.data or b""
                        if len(kept) > MAX_REPLAY_ANSWER:
                            text = "[PA03] the body of the fly-replay is larger than 1 MB"
                            raise Problem(502, text)
                    case h2.events.TrailersReceived():
                        trailers = trailing(list(event.headers or ()))
                    case h2.events.StreamEnded():
                        self._acknowledge(taken)
                        await self._finish()
                        if replay is not None:
                            return read(replay, bytes(kept))
                        responder.end(trailers)
                        await responder.flush()
                        return None
            await responder.flush()
            self._acknowledge(taken)

    def _acknowledge(self, length: int) -> None:
        """Let the program send so much again."""
        if length:
            self.upstream.http.acknowledge_received_data(length, self.stream[0])

    def _of_stream(self, events: list[h2.events.Event]) -> Iterator[h2.events.Event]:
        """The events of this exchange, the others having been dealt with.

        Raises:
            ConnectionError: The program has ended the stream or the connection.
        """
        for event in events:
            match event:
                case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                    self.window.set()
                case h2.events.StreamReset(stream_id=stream_id) if stream_id in self.stream:
                    raise ConnectionResetError(f"it has reset the stream ({event.error_code!r})")
                case h2.events.ConnectionTerminated():
                    text = f"it has ended the connection ({event.error_code!r})"
                    raise ConnectionResetError(text)
            if getattr(event, "stream_id", None) in self.stream:
                yield event

    async def _finish(self) -> None:
        """Leave the connection in order; what is left of the request is not wanted any more."""
        http, stream_id = self.upstream.http, self.stream[0]
        state = http.streams.get(stream_id)
        if state is not None and not state.closed:
            http.reset_stream(stream_id, h2.errors.ErrorCodes.NO_ERROR)
        with contextlib.suppress(ConnectionError):
            await self.upstream.flush()
        self.upstream.whole = True


def _fields(request: Request, headers: Headers) -> Headers:
    fields = [
        (b":method", request.method),
        (b":scheme", b"http"),
        (b":authority", first(headers, b"host").encode("latin-1")),
        (b":path", request.target),
    ]
    fields += [(name.lower(), value) for name, value in headers if name.lower() not in NOT_IN_HTTP2]
    if "trailers" in first(request.headers, b"te").lower():
        fields.append((b"te", b"trailers"))
    return fields


def _answer(fields: Iterable[tuple[bytes, bytes]]) -> tuple[int, Headers]:
    pairs = list(fields)
    status = next(int(value) for name, value in pairs if name == b":status")
    return status, [(name, value) for name, value in pairs if not name.startswith(b":")]


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
