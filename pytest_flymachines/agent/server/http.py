"""HTTP/1.1 on one connection, by h11: requests in, answers out."""

from __future__ import annotations

import binascii
import hashlib
import json
import select
import socket
import zlib
from collections.abc import Callable
from typing import Any

import h11

from .wire import BadRequest, to_json

RECEIVE_BYTES = 256 * 1024
# Pieces of files are 8 MiB; stdin given to a start is the largest thing that comes as JSON.
MAX_BODY_BYTES = 64 << 20
MAX_HEAD_BYTES = 64 * 1024
IDLE_S = 3600.0
BODY_S = 120.0
WORTH_COMPRESSING_BYTES = 4096
SAMPLE_BYTES = 32 * 1024

DIGEST = "x-content-sha256"


class Request:
    """One request with its whole body.

    Attributes:
        path: Parts of the path, decoded; `["v1", "apps", ...]`.
        query: Parameters, decoded; bytes, since they may be file names.
        headers: Names in lower case.
        gone: Asks whether the client has closed its connection.
    """

    def __init__(self, head: h11.Request, body: bytes, gone: Callable[[], bool]) -> None:
        self.method = head.method.decode()
        target, _, query = head.target.partition(b"?")
        self.path = [unquote(part).decode("utf-8", "replace") for part in target[1:].split(b"/")]
        pairs = (part.partition(b"=") for part in query.split(b"&") if part)
        self.query = {name.decode("latin-1"): unquote(value) for name, _, value in pairs}
        self.headers: dict[bytes, bytes] = dict(head.headers)
        self.gone = gone
        self._body = body

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; an empty body is an empty object."""
        try:
            value = json.loads(self.data() or b"{}")
        except ValueError as error:
            raise BadRequest(f"the body is no JSON: {error}") from error
        if not isinstance(value, dict):
            raise BadRequest(f"the body is {type(value).__name__}, expected a JSON object")
        return value

    def data(self) -> bytes:
        """The body, uncompressed, and checked where the request has a digest of it."""
        body = self._body
        encoding = self.headers.get(b"content-encoding", b"identity")
        if encoding == b"gzip":
            unzip = zlib.decompressobj(wbits=31)
            try:
                body = unzip.decompress(body, MAX_BODY_BYTES)
            except zlib.error as error:
                raise BadRequest(f"the body is no gzip: {error}") from error
            if not unzip.eof:
                raise BadRequest(f"the body is cut off, or is above {MAX_BODY_BYTES} bytes")
        elif encoding != b"identity":
            raise BadRequest(f"content-encoding {encoding!r}: expected gzip or identity")
        expected = self.headers.get(DIGEST.encode())
        if expected and hashlib.sha256(body).hexdigest().encode() != expected.lower():
            raise BadRequest(
                "the body was damaged on its way: its SHA-256 is not that of the header"
            )
        return body


class Response:
    """One answer; `value` is encoded as JSON unless it is bytes, which get a digest."""

    def __init__(
        self, value: Any, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        self.status = status
        self.headers = headers or {}
        if isinstance(value, bytes):
            self.body = value
            self.headers["content-type"] = "application/octet-stream"
            self.headers[DIGEST] = hashlib.sha256(value).hexdigest()
        else:
            self.body = to_json(value)
            self.headers["content-type"] = "application/json"


class Connection:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(IDLE_S)
        self.sock = sock
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)

    def serve(self, handle: Callable[[Request], Response], upgrade: Callable[..., None]) -> None:
        """Answer requests until either side ends the connection.

        A request for a WebSocket is given to `upgrade(connection, head, trailing bytes)`.
        """
        while head := self._next_head():
            if self._wants_websocket(head):
                upgrade(self, head, self._h11.trailing_data[0])
                return
            try:
                request = Request(head, self._body(), self._gone)
            except BadRequest as error:
                self._answer(head, Response({"error": str(error)}, 413, {"connection": "close"}))
                return
            self._answer(head, handle(request))
            if self._h11.our_state is h11.MUST_CLOSE:
                return
            self._h11.start_next_cycle()

    def refuse(self, status: int, message: str) -> None:
        """Answer something that is no HTTP, and end."""
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            response = Response({"error": message}, status, {"connection": "close"})
            self._send(response, response.body)

    def _next_event(self) -> Any:
        while True:
            event = self._h11.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._h11.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                self.sock.sendall(self._h11.send(go_on) or b"")
            self._h11.receive_data(self.sock.recv(RECEIVE_BYTES))

    def _next_head(self) -> h11.Request | None:
        event = self._next_event()
        return event if isinstance(event, h11.Request) else None

    def _body(self) -> bytes:
        pieces = []
        size = 0
        self.sock.settimeout(BODY_S)
        while isinstance(event := self._next_event(), h11.Data):
            pieces.append(event.data)
            size += len(event.data)
            if size > MAX_BODY_BYTES:
                raise BadRequest(f"the body is larger than {MAX_BODY_BYTES} bytes")
        self.sock.settimeout(IDLE_S)
        return b"".join(pieces)

    @staticmethod
    def _wants_websocket(head: h11.Request) -> bool:
        return any(n == b"upgrade" and v.lower() == b"websocket" for n, v in head.headers)

    def _gone(self) -> bool:
        poll = select.poll()
        poll.register(self.sock, select.POLLRDHUP)
        return bool(poll.poll(0))

    def _answer(self, head: h11.Request, response: Response) -> None:
        body = response.body
        accepted = next((v for n, v in head.headers if n == b"accept-encoding"), b"")
        if b"gzip" in accepted and pays(body):
            zipper = zlib.compressobj(1, wbits=31)
            body = zipper.compress(body) + zipper.flush()
            response.headers["content-encoding"] = "gzip"
        self._send(response, body)

    def _send(self, response: Response, body: bytes) -> None:
        headers = [*response.headers.items(), ("content-length", str(len(body)))]
        head = self._h11.send(h11.Response(status_code=response.status, headers=headers)) or b""
        self._h11.send_with_data_passthrough(h11.Data(data=body))
        self._h11.send(h11.EndOfMessage())
        if len(body) <= 65536:
            self.sock.sendall(head + body)
        else:
            self.sock.sendall(head)
            self.sock.sendall(body)


def pays(data: bytes) -> bool:
    """Whether compression makes `data` enough smaller, by its first bytes."""
    if len(data) < WORTH_COMPRESSING_BYTES:
        return False
    sample = data[:SAMPLE_BYTES]
    return len(zlib.compress(sample, 1)) < 0.8 * len(sample)


def unquote(text: bytes) -> bytes:
    """Decode `%XX`."""
    first, *rest = text.split(b"%")
    try:
        return first + b"".join(binascii.a2b_hex(part[:2]) + part[2:] for part in rest)
    except binascii.Error as error:
        raise BadRequest(f"{text!r} in the address: expected two hex digits after %") from error
