"""One HTTP/1.1 connection: h11 over a network stream of httpcore's."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Any

import h11
import httpcore

__all__ = ["Connection"]

# The head of an answer may be this large, as in httpcore.
MAX_HEAD_BYTES = 100 * 1024
# An answer's head comes with little; in a body less than this costs system calls.
HEAD_READ_BYTES = 64 * 1024
BODY_READ_BYTES = 256 * 1024
# From this length on a body is read without h11, which copies it three times.
LONG_BYTES = 1024 * 1024
WITHOUT_BODY = (204, 304)


class Connection:
    """A connection, for one request at a time; raises httpcore's exceptions.

    `httpcore.HTTP11Connection` is not used: it takes twice the processor time, and sends the
    head of a request apart from its body, which costs both sides system calls.
    """

    def __init__(self, stream: httpcore.NetworkStream, keepalive_s: float) -> None:
        """Take over a connected stream.

        Args:
            stream: Connected, TLS included.
            keepalive_s: Seconds after which the idle connection is not to be used again.
        """
        self.stream = stream
        self._keepalive_s = keepalive_s
        self._idle_since = time.monotonic()
        self._h11 = _new_h11()
        self._long = 0

    def send(
        self,
        method: str,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        body: Iterable[bytes] = (),
        *,
        write_s: float | None,
        read_s: float | None,
    ) -> h11.Response:
        """Send a request, and wait for the head of its answer.

        Args:
            method: HTTP method.
            target: Path and query, or what else is to stand in the first line.
            headers: All of them, the length of the body included.
            body: The body in pieces.
            write_s: Seconds without progress in sending after which it fails.
            read_s: The same for receiving.
        """
        # a server may refuse, and say why, before it has read everything
        with contextlib.suppress(httpcore.WriteError):
            self._write(h11.Request(method=method, target=target, headers=headers), body, write_s)
        while True:
            event = self._next_event(read_s)
            if isinstance(event, h11.Response):  # and no 1xx before it
                self._long = 0 if method == "HEAD" else _length_if_long(event)
                return event

    def body(self, read_s: float | None) -> Iterator[bytes]:
        """The body of the answer, in pieces as they come."""
        if self._long:
            yield from self._long_body(read_s)
            return
        while isinstance(event := self._next_event(read_s), h11.Data):
            yield bytes(event.data)

    def _long_body(self, read_s: float | None) -> Iterator[bytes]:
        """A body of known length, as it comes from the socket."""
        left = self._long
        piece = self._h11.trailing_data[0]
        while True:
            left -= len(piece)
            if not left:
                break
            if piece:
                yield piece
            piece = self.stream.read(min(left, BODY_READ_BYTES), read_s)
            if not piece:
                raise httpcore.RemoteProtocolError(
                    "peer closed connection without sending complete message body "
                    f"(received {self._long - left} bytes, expected {self._long})"
                )
        self._long = 0
        if self._h11.our_state is h11.DONE:  # and the connection is to be kept
            self._h11 = _new_h11()
        yield piece

    def end(self) -> bool:
        """Be done with an answer; true if the connection can carry another request."""
        match self._h11.our_state, self._h11.their_state:
            case h11.DONE, h11.DONE:
                self._h11.start_next_cycle()
            case h11.IDLE, h11.IDLE:  # a long body was the last
                pass
            case _:
                return False
        self._idle_since = time.monotonic()
        return True

    def is_old(self) -> bool:
        """Whether it has been idle for too long."""
        return time.monotonic() - self._idle_since > self._keepalive_s

    def has_expired(self) -> bool:
        """Whether it has been idle for too long, or the server has closed it."""
        return self.is_old() or bool(self.stream.get_extra_info("is_readable"))

    def close(self) -> None:
        """Close it now."""
        self.stream.close()

    def _write(self, head: h11.Request, body: Iterable[bytes], write_s: float | None) -> None:
        """Send a request, its head together with the first piece of its body."""
        try:
            held = self._h11.send(head) or b""
            for piece in body:
                self.stream.write(held + (self._h11.send(h11.Data(data=piece)) or b""), write_s)
                held = b""
            self.stream.write(held + (self._h11.send(h11.EndOfMessage()) or b""), write_s)
        except h11.LocalProtocolError as error:
            raise httpcore.LocalProtocolError(str(error)) from None

    def _next_event(self, read_s: float | None) -> Any:
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise httpcore.RemoteProtocolError(str(error)) from None
            if event is not h11.NEED_DATA:
                return event
            waits = self._h11.their_state is h11.SEND_RESPONSE
            data = self.stream.read(HEAD_READ_BYTES if waits else BODY_READ_BYTES, read_s)
            if not data and waits:
                # what h11 would say of this tells of its states only
                raise httpcore.RemoteProtocolError(
                    "Server disconnected without sending a response."
                )
            self._h11.receive_data(data)


def _new_h11() -> h11.Connection:
    return h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)


def _length_if_long(answer: h11.Response) -> int:
    """The length of its body, if that is known and large, else 0 (RFC 9112, section 6.3)."""
    headers = dict(answer.headers)
    if answer.status_code in WITHOUT_BODY or b"transfer-encoding" in headers:
        return 0
    length = int(headers.get(b"content-length", b"0"))
    return length if length >= LONG_BYTES else 0
