"""A scripted HTTP server on loopback: what the API documents, and what networks do to it."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import parse_qs, urlsplit

REQUEST_ID = "01JJRPZ859TZM6BZ1A9RN4AZ5N-fra"


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        body: Sent as JSON, or as it is if bytes.
        chunked: Without content-length, as Fly's proxies send it.
        declared: Content-length to declare although the body is shorter.
        before: Runs before the answer is sent.
    """

    status: int = 200
    body: Any = field(default_factory=lambda: {"ok": True})
    headers: Mapping[str, str] = field(default_factory=dict)
    chunked: bool = False
    declared: int | None = None
    before: Callable[[], object] | None = None

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class Cut:
    """The connection is closed without an answer."""


class Reset:
    """The connection is reset without an answer."""


class Hang:
    """No answer until the server ends."""


Step = Answer | Cut | Reset | Hang | Callable[[Seen], Answer]


class ApiServer:
    """Answers each method and path with its steps in turn, the last one for ever."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self.connections = 0
        self._steps: dict[tuple[str, str], list[Step]] = defaultdict(list)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.api = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def on(self, method: str, path: str, *steps: Step | dict[str, Any] | list[Any]) -> None:
        """Script a path; a dict or list is a 200 with that body."""
        self._steps[method, path] = [
            Answer(body=step) if isinstance(step, dict | list) else step for step in steps
        ]

    def calls(self, method: str, path: str) -> list[Seen]:
        return [r for r in self.requests if (r.method, r.path) == (method, path)]

    def next_step(self, seen: Seen) -> Step:
        with self._lock:
            self.requests.append(seen)
            steps = self._steps.get((seen.method, seen.path))
            if not steps:
                return Answer(404, b"404 page not found\n", {"content-type": "text/plain"})
            return steps.pop(0) if len(steps) > 1 else steps[0]

    def hang(self) -> None:
        self._ended.wait(30)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    api: ApiServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.api = cast("_Server", self.server).api
        with self.api._lock:
            self.api.connections += 1
            self.number = self.api.connections

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keep stderr clean."""

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def _answer(self) -> None:
        url = urlsplit(self.path)
        headers = {key.lower(): value for key, value in self.headers.items()}
        seen = Seen(self.command, url.path, parse_qs(url.query), headers, self._body(), self.number)
        step = self.api.next_step(seen)
        if isinstance(step, Hang):
            self.api.hang()
            self.close_connection = True
        elif isinstance(step, Cut):
            self.close_connection = True
        elif isinstance(step, Reset):
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            self.rfile.close()
            self.wfile.close()
            self.connection.close()
        else:
            self._send(step if isinstance(step, Answer) else step(seen))

    def __getattr__(self, name: str) -> Callable[[], None]:
        """Every method is answered alike: do_GET, do_POST, ..."""
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def _send(self, answer: Answer) -> None:
        if answer.before is not None:
            answer.before()
        self.send_response(answer.status)
        headers = {
            "content-type": "application/json; charset=utf-8",
            "fly-request-id": REQUEST_ID,
            "via": "1.1 fly.io",
            **answer.headers,
        }
        for key, value in headers.items():
            self.send_header(key, value)
        content = b"" if answer.status == 204 else answer.content
        if answer.chunked:
            self.send_header("transfer-encoding", "chunked")
        elif answer.status != 204:
            self.send_header("content-length", str(answer.declared or len(content)))
        self.end_headers()
        if answer.chunked:
            for start in range(0, len(content), 7):
                part = content[start : start + 7]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.wfile.write(content)
        if answer.declared:
            self.close_connection = True


class StepClock:
    """A clock of a test's own: it moves by sleeping, and by answers that take their time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            self.slept.append(seconds)
            self.now += seconds

    def takes(self, seconds: float) -> Callable[[], None]:
        """For `Answer.before`: so long the answer takes, by this clock."""

        def advance() -> None:
            self.now += seconds

        return advance


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Poll a condition of another thread's or process's making."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.01)
