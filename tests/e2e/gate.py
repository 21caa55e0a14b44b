"""A gate before the API or the agent's proxy: a run is stopped at an exact moment of its life."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from .cloud import kind_of

#: Not sent yet; carried out, but not answered; answered.
MOMENTS = ("before", "carried out", "answered")


@dataclass(frozen=True)
class Stop:
    """A moment at one request.

    Attributes:
        kind: As `cloud.kind_of`.
        moment: One of `MOMENTS`.
        after: Only once a request of this kind was answered.
        holds: Only if this stands in the request's body.
    """

    kind: str
    moment: str
    after: str = ""
    holds: str = ""

    def __str__(self) -> str:
        return f"{self.kind}{' of a renewal' if self.holds else ''}, {self.moment}"


@dataclass
class Gate:
    """Lets requests through, and acts at each stop, in the order of the stops.

    Attributes:
        upstream: Host and port of the API.
        stops: What to wait for.
        act: Called at each; true lets the request go on, false drops it.
        passed: How many stops were reached.
        kind_of: Names what a request of this method and path does.
    """

    upstream: tuple[str, int]
    stops: Sequence[Stop]
    act: Callable[[Stop], bool]
    passed: int = 0
    kind_of: Callable[[str, str], str] = kind_of
    url: str = ""
    _answered: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def done(self) -> bool:
        """Every stop was reached."""
        return self.passed == len(self.stops)

    def at(self, kind: str, moment: str, body: bytes) -> bool:
        """Act if this is the next stop; whether the request goes on."""
        with self._lock:
            stop = None if self.done else self.stops[self.passed]
            if stop is None or (stop.kind, stop.moment) != (kind, moment):
                return True
            if stop.holds.encode() not in body or not {stop.after} <= {"", *self._answered}:
                return True
            goes_on = self.act(stop)
            self.passed += 1
            return goes_on

    def answered(self, kind: str) -> None:
        """Take note that a request of this kind was answered."""
        with self._lock:
            self._answered.add(kind)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    gate: Gate

    def _pass(self) -> None:
        kind = self.gate.kind_of(self.command, self.path)
        body = self._body()
        self.close_connection = True
        if not self.gate.at(kind, "before", body):
            return
        upstream = HTTPConnection(*self.gate.upstream)
        upstream.request(self.command, self.path, body, dict(self.headers))
        answer = upstream.getresponse()
        data = answer.read()
        upstream.close()
        if not self.gate.at(kind, "carried out", body):
            return
        self.gate.answered(kind)
        try:
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            self.send_header("connection", "close")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except ConnectionError:
            return
        self.gate.at(kind, "answered", body)

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        del self.headers["transfer-encoding"]
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    do_GET = do_POST = do_PUT = do_DELETE = _pass  # noqa: N815  # names of http.server's

    def log_message(self, *_: object) -> None:
        """Nothing: the emulator has a log."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """A visitor that was killed is no error."""


@contextmanager
def gate(
    url: str,
    stops: Sequence[Stop],
    act: Callable[[Stop], bool],
    kind: Callable[[str, str], str] = kind_of,
) -> Iterator[Gate]:
    """A gate before a URL that stands open until the end of the block."""
    address = urlsplit(url)
    made = Gate((str(address.hostname), int(address.port or 80)), stops, act, kind_of=kind)
    handler = type("Handler", (_Handler,), {"gate": made})
    with _Server(("127.0.0.1", 0), handler) as server:
        made.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="gate")
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()
