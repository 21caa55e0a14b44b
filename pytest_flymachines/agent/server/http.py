"""HTTP/1.1 on one connection, by h11: requests in, answers out."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

import h11

from .digests import HEADER, HEX_BYTES, TAIL, with_tail_or_error
from .messages import Request, Response, gzipped, pays
from .wire import BadRequest

RECEIVE_BYTES = 256 * 1024
MAX_HEAD_BYTES = 64 * 1024
IDLE_S = 3600.0
BODY_S = 120.0
LINGER_S = 2.0
# An answer up to this size goes out in one piece with its head.
JOIN_BYTES = 64 * 1024


class Connection:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(IDLE_S)
        self.sock = sock
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)

    def serve(
        self,
        handle: Callable[[Request], Response],
        upgrade: Callable[[Connection, Request, h11.Request, bytes], None],
    ) -> None:
        """Answer requests until either side ends the connection.

        One that asks for a WebSocket goes to `upgrade` with the bytes that came after it.
        """
        while isinstance(head := self._next_event(), h11.Request):
            request = Request(head, self._body, self._gone)
            if request.headers.get(b"upgrade", b"").lower() == b"websocket":
                upgrade(self, request, head, self._h11.trailing_data[0])
                return
            self.answer(request, handle(request))
            if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
                self._linger()
                return
            self._h11.start_next_cycle()

    def refuse(self, status: int, message: str) -> None:
        """Answer what is no HTTP, and end."""
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            response = Response({"error": message}, status, {"connection": "close"})
            self._send_whole(response, response.body)
            self._linger()

    def _next_event(self) -> Any:
        while True:
            event = self._h11.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._h11.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                self.sock.sendall(self._h11.send(go_on) or b"")
            self._h11.receive_data(self.sock.recv(RECEIVE_BYTES))

    def _body(self) -> Iterator[bytes]:
        self.sock.settimeout(BODY_S)
        try:
            while isinstance(event := self._next_event(), h11.Data):
                yield event.data
        except h11.RemoteProtocolError as error:
            raise BadRequest(f"the body broke off: {error}") from error
        if not isinstance(event, h11.EndOfMessage):
            raise BadRequest("the body was read before")
        self.sock.settimeout(IDLE_S)

    def _gone(self) -> bool:
        """Whether the client has closed its side."""
        poll = select.poll()
        poll.register(self.sock, select.POLLRDHUP)
        return bool(poll.poll(0))

    def answer(self, request: Request, response: Response) -> None:
        """Send the answer to a request, compressed where the client wants that and it pays."""
        if self._h11.their_state is h11.SEND_BODY and b"expect" not in request.headers:
            # a body that is not wanted; small ones are not worth a new connection
            with suppress(BadRequest):
                request.skip(JOIN_BYTES)
        if self._h11.their_state is not h11.DONE:
            response.headers["connection"] = "close"
        zip_it = b"gzip" in request.headers.get(b"accept-encoding", b"") and pays(response.body)
        if zip_it:
            response.headers["content-encoding"] = "gzip"
        if response.rest is None:
            body = b"".join(gzipped(iter([response.body]))) if zip_it else response.body
            self._send_whole(response, body)
        else:
            self._send_pieces(response, zip_it)

    def _send_head(self, response: Response) -> bytes:
        headers = list(response.headers.items())
        head = h11.Response(status_code=response.status, headers=headers)
        return self._h11.send(head) or b""

    def _send_whole(self, response: Response, body: bytes) -> None:
        response.headers["content-length"] = str(len(body))
        head = self._send_head(response)
        self._h11.send_with_data_passthrough(h11.Data(data=body))
        self._h11.send(h11.EndOfMessage())
        if len(body) <= JOIN_BYTES:
            self.sock.sendall(head + body)
        else:
            self.sock.sendall(head)
            self.sock.sendall(body)

    def _send_pieces(self, response: Response, zip_it: bool) -> None:
        """Send what was not read to its end yet; its digest are the last bytes of the body."""
        response.headers[HEADER] = TAIL
        if response.size is None or zip_it:
            response.headers["transfer-encoding"] = "chunked"
        else:  # whoever passes it on has less to do
            response.headers["content-length"] = str(response.size + HEX_BYTES)
        pieces = with_tail_or_error(chain([response.body], response.rest or ()), response.size)
        if zip_it:
            pieces = gzipped(pieces)
        self.sock.sendall(self._send_head(response))
        for piece in pieces:
            for part in self._h11.send_with_data_passthrough(h11.Data(data=piece)) or []:
                self.sock.sendall(part)
        self.sock.sendall(self._h11.send(h11.EndOfMessage()) or b"")

    def _linger(self) -> None:
        """Read what the client still sends: closing at once would reset the answer away."""
        deadline = time.monotonic() + LINGER_S
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
            while (left := deadline - time.monotonic()) > 0:
                self.sock.settimeout(left)
                if not self.sock.recv(RECEIVE_BYTES):
                    return
