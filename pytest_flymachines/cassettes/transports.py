"""The outermost transports: one writes down what passes, the other answers from what was."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from vcr.request import Request as VcrRequest

from pytest_flymachines import _http
from pytest_flymachines._http import (
    ByteStream,
    DecodingError,
    Headers,
    Request,
    Response,
    SyncByteStream,
    Transport,
    TransportError,
)
from pytest_flymachines.cassettes.kept import Kept, whole
from pytest_flymachines.cassettes.meaning import target
from pytest_flymachines.cassettes.packing import GZIP, expanded, unpacked
from pytest_flymachines.cassettes.volatile import (
    BODIES,
    KEPT_REQUEST_HEADERS,
    UNKEPT_ANSWER_HEADERS,
)

if TYPE_CHECKING:
    from pytest_flymachines.cassettes.recorder import Recorder
    from pytest_flymachines.cassettes.scopes import Scope

__all__ = ["RecordingTransport", "ReplayTransport"]

_ELSEWHERE = re.compile(r"^https?://(?!api\.machines\.dev)[^/]+")


class RecordingTransport(Transport):
    """Sends requests on and gives a copy of each exchange to the recorder.

    Bodies are copied while they pass, in both directions, so streams stay streams.
    """

    def __init__(self, recorder: Recorder, inner: Transport, service: str) -> None:
        self._recorder = recorder
        self._inner = inner
        self._service = service

    def handle_request(self, request: Request) -> Response:
        """Send the request on, whether or not anybody records now."""
        scope = self._recorder.scopes.current()
        if scope is None or scope.blank is None:
            return self._inner.handle_request(request)
        exchange = _Exchange(self._recorder, scope, request, self._service)
        try:
            response = self._inner.handle_request(request)
        except TransportError as error:
            exchange.fail(error)
            raise
        return exchange.answer(response)

    def close(self) -> None:
        """Close the transport beneath."""
        self._inner.close()


class _Exchange:
    """One request and its answer on their way into a cassette."""

    def __init__(self, recorder: Recorder, scope: Scope, request: Request, service: str) -> None:
        recorder.scrubber.add_token("Authorization", request.headers.get("authorization", ""))
        self._recorder = recorder
        self._scope = scope
        self._request = request
        self._notes: dict[str, Any] = {"service": service} if service else {}
        assert scope.blank is not None
        self._blank = scope.blank
        self._sent: _Copy | None = None
        # a stream that can be sent again is to stay one for the transports beneath
        if not isinstance(request.stream, ByteStream):
            unkept = BODIES.fullmatch(f"{request.method} {target(str(request.url))}")
            keep = _nothing if unkept else self._blank.kept
            self._sent = request.stream = _Copy(request.stream, keep)
        self._recorded = VcrRequest(request.method, _uri(request, service), None, _kept(request))
        self._pending = self._blank.begin(self._recorded)
        if self._sent is None:  # before it is sent: this process may die before the answer comes
            self._take(self._kept([request.content]))

    def fail(self, error: TransportError) -> None:
        """No answer came."""
        self._note(error)
        self._end({"code": 0, "message": str(error)}, {}, b"")

    def answer(self, response: Response) -> Response:
        """The answer, whose body is copied while it is read."""

        def end(raw: bytes | Kept, error: TransportError | None = None) -> None:
            if error is not None:
                self._note(error)
            body, decoded = (
                (raw, True) if response.is_closed else self._plain(response.headers, raw)
            )
            status = {"code": response.status_code, "message": response.reason_phrase}
            self._end(status, _answer_headers(response, decoded), body)

        if response.is_closed:
            end(self._kept([response.content]))
            return response
        return Response(
            response.status_code,
            headers=response.headers.raw,
            stream=_Copy(response.stream, self._blank.kept, end),
            extensions=response.extensions,
        )

    def _note(self, error: TransportError) -> None:
        """The nearest class of the error that replay can raise again."""
        self._notes["error"] = next(
            kind.__name__ for kind in type(error).__mro__ if hasattr(_http, kind.__name__)
        )
        self._notes["message"] = str(error)

    def _kept(self, pieces: Iterable[bytes]) -> bytes | Kept:
        kept = self._blank.kept()
        for piece in pieces:
            kept.append(piece)
        return kept.result()

    def _plain(self, headers: Headers, body: bytes | Kept) -> tuple[bytes | Kept, bool]:
        """As `_decoded`."""
        if not isinstance(body, Kept):
            return _decoded(headers, body)
        if "content-encoding" not in headers:
            return body, True
        if body.part(0, 2) == GZIP:
            return self._kept(expanded(body)), True
        plain, decoded = _decoded(headers, whole(body))
        return self._kept([plain]), decoded

    def _take(self, sent: bytes | Kept) -> None:
        """Keep what is sent."""
        self._recorded.body = self._plain(self._request.headers, sent)[0] or None
        self._recorder.learn_variables(self._recorded.body)

    def _end(
        self, status: dict[str, Any], headers: dict[str, list[str]], body: bytes | Kept
    ) -> None:
        if self._sent is not None:
            self._take(self._sent.data())
        response = {"status": status, "headers": headers, "body": {"string": body}}
        self._blank.end(self._pending, response, self._notes)
        self._recorder.learn(self._scope, self._recorded.method, self._recorded.uri, response)


class ReplayTransport(Transport):
    """Answers from cassettes; has nothing beneath."""

    def __init__(self, recorder: Recorder, service: str) -> None:
        self._recorder = recorder
        self._service = service

    def handle_request(self, request: Request) -> Response:
        """The recorded answer.

        Raises:
            CassetteMiss: There is none.
            TransportError: The one that was recorded.
        """
        body = request.read()
        if body[:1] not in (b"{", b"["):  # JSON is not encoded
            body = _decoded(request.headers, body)[0]
        response = self._recorder.replay(request.method, str(request.url), body, self._service)
        status, error = response["status"], _error(response.get("recorded", {}), request)
        if error is not None and not status["code"]:
            raise error
        content = response["body"]
        headers = [(name, item) for name, items in response["headers"].items() for item in items]
        if content:
            headers.append(("content-length", str(len(content))))
        plain = error is None and "content-encoding" not in response["headers"]
        return (_Whole if plain else Response)(
            status["code"],
            headers=headers,
            stream=ByteStream(content) if error is None else _Broken(content, error),
            extensions={"reason_phrase": status["message"].encode("ascii", "replace")},
        )


def _error(notes: dict[str, Any], request: Request) -> TransportError | None:
    if "error" not in notes:
        return None
    kind = getattr(_http, notes["error"], TransportError)
    error: TransportError = kind(notes.get("message", ""), request=request)
    return error


class _Copy(SyncByteStream):
    """A stream that keeps what it gave."""

    def __init__(
        self, inner: Any, keep: Callable[[], Kept | None], ended: Callable[..., None] | None = None
    ) -> None:
        self._inner = inner
        self._keep = keep
        self._ended = ended
        self._kept = keep()

    def __iter__(self) -> Iterator[bytes]:
        self._kept = self._keep()
        try:
            for piece in self._inner:
                if self._kept is not None:
                    self._kept.append(piece)
                yield piece
        except TransportError as error:
            self._tell(error)
            raise
        self._tell()

    def close(self) -> None:
        """End, also before everything was read."""
        self._tell()
        if hasattr(self._inner, "close"):
            self._inner.close()

    def data(self) -> bytes | Kept:
        """What was given so far."""
        return b"" if self._kept is None else self._kept.result()

    def _tell(self, error: TransportError | None = None) -> None:
        if self._ended is not None:
            ended, self._ended = self._ended, None
            ended(self.data(), error)


class _Whole(Response):
    """An answer whose body is here: it need not pass httpx's decoders, which take long."""

    def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """As `Response.iter_bytes`."""
        if chunk_size is not None or self.is_stream_consumed or self.is_closed:
            yield from super().iter_bytes(chunk_size)
            return
        self.is_stream_consumed = True
        assert isinstance(self.stream, SyncByteStream)
        for piece in self.stream:
            self._num_bytes_downloaded += len(piece)
            yield piece
        self.close()


def _nothing() -> None:
    """What is left out of the cassette anyway."""


class _Broken(SyncByteStream):
    """A body that ends in an error."""

    def __init__(self, body: bytes, error: TransportError) -> None:
        self._body = body
        self._error = error

    def __iter__(self) -> Iterator[bytes]:
        yield self._body
        raise self._error


def _uri(request: Request, service: str) -> str:
    """The URL to write down: ports and hosts of emulators and agents are not worth a diff."""
    uri = str(request.url)
    if service:
        return f"http://{service}{target(uri)}"
    return _ELSEWHERE.sub("https://api.machines.dev", uri)


def _kept(request: Request) -> dict[str, str]:
    return {k: v for k, v in sorted(request.headers.items()) if k in KEPT_REQUEST_HEADERS}


def _answer_headers(response: Response, decoded: bool) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for name, value in sorted(response.headers.multi_items()):
        kept = name not in UNKEPT_ANSWER_HEADERS or (name == "content-encoding" and not decoded)
        if name == "fly-request-id":  # told with errors, and else new in every recording
            kept = response.status_code >= 400
        if kept and not value.startswith("fly_flaps_affinity="):
            headers.setdefault(name, []).append(value)
    return headers


def _decoded(headers: Headers, body: bytes) -> tuple[bytes, bool]:
    """A body without its content-encoding, and whether that could be taken off."""
    if "content-encoding" not in headers:
        return body, True
    plain = unpacked(body)
    if plain is None:
        # deflate alone, and brotli and zstd if there is a package for them
        coding = {"content-encoding": headers["content-encoding"]}
        with suppress(DecodingError):
            plain = Response(200, headers=coding, content=body).content
    return (body, False) if plain is None or plain == body else (plain, True)
