"""HTTP/2 with a visitor: many requests at once on one connection."""

from __future__ import annotations

import asyncio
import contextlib
import re

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from pytest_flymachines.emulator.proxy.headers import Headers, first, trailing
from pytest_flymachines.emulator.proxy.http1 import IDLE_TIMEOUT_S, LINGER_S, Handle
from pytest_flymachines.emulator.proxy.message import Body, Problem, Request
from pytest_flymachines.emulator.proxy.target import origin_form
from pytest_flymachines.emulator.proxy.upstream import Upstream
from pytest_flymachines.emulator.proxy.wire import Wire

__all__ = ["Http2"]


# https://nvd.nist.gov/vuln/detail/CVE-2023-44487: rapid reset.
MAX_GIVEN_UP = 200
# Older releases of h2 let these in: RFC 9113, 8.2.1.
BREAKS = re.compile(rb"[\r\n\0]")


class Http2:
    """One connection of a visitor."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self.http = h2.connection.H2Connection(config)
        self.idle_timeout_s = 0.0
        self._streams: dict[int, Stream] = {}
        self._begun = self._given_up = 0

    async def serve(self, handle: Handle) -> None:
        """Have each request handled, until either side closes.

        The task that runs this is cancelled when the visitor goes away.
        """
        task = asyncio.current_task()
        assert task is not None
        self.wire.on_lost = task.cancel
        self.idle_timeout_s = IDLE_TIMEOUT_S
        self.wire.limit_idle(IDLE_TIMEOUT_S)
        try:
            self.http.initiate_connection()
            await self.flush()
            while data := await self.wire.receive():
                for event in self.http.receive_data(data):
                    self._take(event, handle)
                await self.flush()
        except (ConnectionError, h2.exceptions.ProtocolError):
            with contextlib.suppress(ConnectionError):
                await self.flush()  # what is wrong
        finally:
            self.wire.on_lost = None
            tasks = [stream.task for stream in self._streams.values() if stream.task]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.wire.close()

    async def flush(self) -> None:
        """Send what the protocol has to say."""
        if out := self.http.data_to_send():
            await self.wire.send(out)

    def _take(self, event: h2.events.Event, handle: Handle) -> None:
        match event:
            case h2.events.RequestReceived():
                self._begin(event, handle)
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                for stream in self._streams.values():
                    stream.window.set()
            case h2.events.StreamReset(stream_id=reset) if reset in self._streams:
                self._count_reset()
            case h2.events.ConnectionTerminated():
                raise ConnectionResetError("the visitor has ended the connection")
        stream_id = getattr(event, "stream_id", None)
        if stream_id in self._streams:
            self._streams[stream_id].take(event)

    def _count_reset(self) -> None:
        """End a connection that does little else than to begin requests and give them up."""
        self._given_up += 1
        if self._given_up > MAX_GIVEN_UP and self._given_up * 2 > self._begun:
            self.http.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
            raise ConnectionAbortedError("the visitor gives up nearly all that he asks for")

    def _begin(self, event: h2.events.RequestReceived, handle: Handle) -> None:
        self._begun += 1
        stream_id = event.stream_id
        stream = self._streams[stream_id] = Stream(self, stream_id)
        fields, whole = list(event.headers), event.stream_ended is not None
        task = asyncio.get_running_loop().create_task(
            stream.serve(fields, handle, whole=whole), name=f"stream {stream_id}"
        )
        stream.task = task
        task.add_done_callback(lambda _: self._streams.pop(stream_id, None))


class Stream:
    """One request and its answer; a responder, see message.py."""

    def __init__(self, connection: Http2, stream_id: int) -> None:
        self._connection = connection
        self._http = connection.http
        self._id = stream_id
        self._body = Body(self._more)
        self._arrived: asyncio.Queue[tuple[bytes, int]] = asyncio.Queue()
        self._out: list[bytes] = []
        self._end: Headers | None = None
        self.window = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.begun = False

    def _request(self, fields: list[tuple[bytes, bytes]], *, whole: bool) -> Request:
        """The request that these fields describe, in the words of HTTP/1.1."""
        if any(BREAKS.search(name) or BREAKS.search(value) for name, value in fields):
            raise Problem(400, "bad request: a header holds a line break or a null byte")
        pseudo = {name: value for name, value in fields if name.startswith(b":")}
        headers: Headers = [
            (name, value) for name, value in fields if name[:1] != b":" and name != b"cookie"
        ]
        if crumbs := [value for name, value in fields if name == b"cookie"]:
            headers.append((b"cookie", b"; ".join(crumbs)))
        authority = pseudo.get(b":authority")
        if authority is not None:
            headers = [pair for pair in headers if pair[0] != b"host"]
            headers.insert(0, (b"Host", authority))
        method = pseudo.get(b":method", b"")
        target, headers = origin_form(method, pseudo.get(b":path", b"*"), headers)
        if whole:
            self._body.add(b"")
        elif not first(headers, b"content-length"):
            headers.append((b"Transfer-Encoding", b"chunked"))
        return Request(
            method=method,
            target=target,
            host=first(headers, b"host").lower(),
            headers=headers,
            body=self._body,
            client=self._connection.wire.peer,
            version="2",
        )

    async def serve(
        self, fields: list[tuple[bytes, bytes]], handle: Handle, *, whole: bool
    ) -> None:
        """Have the request that these fields describe handled.

        Args:
            fields: Its head.
            handle: Answers it.
            whole: There is no body.
        """
        method = dict(fields).get(b":method", b"")
        try:
            try:
                if method == b"CONNECT":
                    raise Problem(405, "there is no CONNECT here")
                await handle(self._request(fields, whole=whole), self)
            except Problem as problem:
                self.begin(problem.status, problem.reason, problem.answer_headers)
                if method != b"HEAD":
                    self.data(problem.body)
                self.end([])
                await self.flush()
            await self._linger()
        except (ConnectionError, h2.exceptions.ProtocolError):
            self._reset(h2.errors.ErrorCodes.INTERNAL_ERROR)
        finally:
            self._give_back_window()
        with contextlib.suppress(ConnectionError):
            await self._connection.flush()

    async def _linger(self) -> None:
        """Read what the visitor still sends; not every client sees the answer before that."""
        try:
            async with asyncio.timeout(LINGER_S):
                while not self._body.complete and await self._more():
                    pass
        except TimeoutError:
            self._reset(h2.errors.ErrorCodes.NO_ERROR)

    def take(self, event: h2.events.Event) -> None:
        """Take note of something that came for this stream."""
        match event:
            case h2.events.DataReceived():
                self._arrived.put_nowait((event.data or b"", event.flow_controlled_length or 0))
            case h2.events.TrailersReceived():
                self._body.trailers = trailing(list(event.headers or []))
            case h2.events.StreamEnded():
                if not self._body.complete:
                    self._arrived.put_nowait((b"", 0))
            case h2.events.StreamReset():
                if self.task:
                    self.task.cancel()

    async def _more(self) -> bytes:
        """The next piece of the body; only now may the visitor send so much again."""
        while True:
            data, length = await self._arrived.get()
            if length:
                self._acknowledge(length)
                await self._connection.flush()
            if data or not length:
                return data

    def _acknowledge(self, length: int) -> None:
        with contextlib.suppress(h2.exceptions.ProtocolError):  # the stream is over
            self._http.acknowledge_received_data(length, self._id)

    def _give_back_window(self) -> None:
        """Let the other streams have what nobody has read of this one."""
        while not self._arrived.empty():
            self._acknowledge(self._arrived.get_nowait()[1])

    def _reset(self, code: h2.errors.ErrorCodes) -> None:
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self._http.reset_stream(self._id, code)

    def limit_idle(self, timeout_s: float) -> None:
        """Close the connection after this time without a byte."""
        if timeout_s != self._connection.idle_timeout_s:
            self._connection.idle_timeout_s = timeout_s
            self._connection.wire.limit_idle(timeout_s)

    def inform(self, status: int, headers: Headers) -> None:
        """Add a 1xx answer."""
        self._http.send_headers(self._id, _fields(status, headers))

    def begin(self, status: int, reason: bytes, headers: Headers) -> None:
        """Add the head of the final answer; HTTP/2 knows no reason."""
        del reason
        self.begun = True
        if status == 204:
            headers = [pair for pair in headers if pair[0].lower() != b"content-length"]
        self._http.send_headers(self._id, _fields(status, headers))

    def data(self, data: bytes) -> None:
        """Add a piece of its body."""
        self._out.append(bytes(data))

    def end(self, trailers: Headers) -> None:
        """End it."""
        self._end = trailers

    async def flush(self) -> None:
        """Send what was gathered, as far and as fast as the visitor lets us."""
        out, self._out = b"".join(self._out), []
        at = 0
        while at < len(out):
            self.window.clear()
            room = self._http.local_flow_control_window(self._id)
            size = min(room, self._http.max_outbound_frame_size, len(out) - at)
            if size <= 0:
                await self._connection.flush()
                await self.window.wait()
                continue
            self._http.send_data(self._id, out[at : at + size])
            at += size
            await self._connection.flush()
        if self._end is not None:
            trailers, self._end = self._end, None
            if trailers:
                fields = [(name.lower(), value) for name, value in trailers]
                self._http.send_headers(self._id, fields, end_stream=True)
            else:
                self._http.end_stream(self._id)
        await self._connection.flush()

    async def switch(self, upstream: Upstream, headers: Headers, idle_timeout_s: float) -> None:
        """Refuse: no request of HTTP/2 asks for another protocol."""
        del upstream, headers, idle_timeout_s
        raise Problem(502, "[PU02] the machine switched to another protocol without being asked")


def _fields(status: int, headers: Headers) -> Headers:
    fields = [(name.lower(), value) for name, value in headers]
    return [(b":status", str(status).encode()), *fields]
