"""Visitors and programs that mean no good, or cannot do better."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Iterator

import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import httpx
import pytest

from tests.emulator.fidelity import shows
from tests.emulator.proxy.programs import mirror, raw
from tests.emulator.proxy.world import HTTP, HTTPS, World, open_descriptors, service

HOST = b"Host: web.fly.dev\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LENGTH = b"Content-Length: 3\r\n"


class Recorder:
    """A program that keeps the bytes of each request's head, and answers at once."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            if b"content-length: 3\r\n" in self.heads[-1].lower():
                await reader.readexactly(3)
            elif b"chunked" in self.heads[-1]:
                self.heads[-1] += await reader.readuntil(b"\r\n0\r\n")
                while (line := await reader.readline()).strip():
                    self.heads[-1] += line
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()


def said(world: World, request: bytes, until: bytes = b"\n") -> bytes:
    """What comes back for these bytes, until it ends like this or the connection ends."""
    with socket.create_connection(world.front, timeout=60) as visitor:
        visitor.sendall(request)
        answer = b""
        while not answer.endswith(until) and (piece := visitor.recv(65536)):
            answer += piece
    return answer


@shows("proxy", "requests of which two readers could see different ends are refused", "ours")
@pytest.mark.parametrize(
    ("head", "body", "status"),
    [
        (LENGTH + CHUNKED, b"0\r\n\r\n", 400),
        (CHUNKED + b"Content-Length: 4\r\n", b"5c\r\nGPOST", 400),
        (CHUNKED + b"Transfer-Encoding: identity\r\n", b"0\r\n\r\n", 501),
        (b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n", 501),
        (b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n", 501),
        (b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n", 400),
        (b"X: a\rTransfer-Encoding: chunked\r\n", b"0\r\n\r\n", 400),
        (b"X: a\0b\r\n", b"", 400),
        (b": x\r\n", b"", 400),
        (LENGTH + b"Content-Length: 4\r\n", b"abcd", 400),
        (b"Content-Length: +3\r\n", b"abc", 400),
        (b"Content-Length: -1\r\n", b"abc", 400),
        (b"Content-Length: 0x3\r\n", b"abc", 400),
        (b"Content-Length: 99999999999999999999999\r\n", b"abc", 400),
        (CHUNKED, b"zz\r\nabc\r\n0\r\n\r\n", 400),
        (CHUNKED, b"-1\r\nabc\r\n0\r\n\r\n", 400),
        (CHUNKED, b"0x3\r\nabc\r\n0\r\n\r\n", 400),
        (CHUNKED, b"3;\nxx\r\nabc\r\n0\r\n\r\n", 400),
        (CHUNKED, b"3\r\nabcX\r\n0\r\n\r\n", 400),
        (b"Host: other\r\n", b"", 400),
        (b"X: " + b"a" * 200_000 + b"\r\n", b"", 431),
        (b"".join(b"X%d: a\r\n" % number for number in range(20_000)), b"", 431),
    ],
)
def test_what_could_be_taken_for_two_requests_is_refused(
    world: World, head: bytes, body: bytes, status: int
) -> None:
    recorder = Recorder()
    world.add("m1", recorder)
    hidden = b"GET /hidden HTTP/1.1\r\n" + HOST + b"\r\n"
    answer = said(world, b"POST / HTTP/1.1\r\n" + HOST + head + b"\r\n" + body + hidden, b"\0")
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"HTTP/1.1") == 1
    assert b"Connection: close" in answer
    assert not [head for head in recorder.heads if b"hidden" in head]


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET / HTTP/3.7", 505),
        (b"PRI * HTTP/2.0", 505),
        (b"GET foo HTTP/1.1", 400),
        (b"GET * HTTP/1.1", 400),
        (b"GET http://[bad/ HTTP/1.1", 400),
        (b"GET http://web.fly.dev@evil/ HTTP/1.1", 400),
        (b"GET ftp://web.fly.dev/ HTTP/1.1", 400),
        (b"GET /\xff HTTP/1.1", 400),
        (b"GET / HTTP/1.1\r\nHost: web.fly.dev:80:90", 400),
        (b"GET / HTTP/1.1\r\nHost: web.fly.dev evil", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nHost: web.fly.dev", 400),
        (b"CONNECT web.fly.dev:443 HTTP/1.1\r\nHost: web.fly.dev", 405),
        (b"\x16\x03\x01\x02\x00\x01", 400),
    ],
)
def test_what_is_no_request_is_refused(world: World, line: bytes, status: int) -> None:
    host = b"" if b"Host:" in line else b"\r\nHost: web.fly.dev"
    world.add("m1", mirror())
    assert said(world, line + host + b"\r\n\r\n").startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize(
    ("target", "path"), [(b"http://web.fly.dev/x?y=1", b"/x?y=1"), (b"HTTP://web.fly.dev", b"/")]
)
def test_a_url_in_the_first_line_counts_more_than_the_host(
    world: World, target: bytes, path: bytes
) -> None:
    recorder = Recorder()
    world.add("m1", recorder)
    said(world, b"GET " + target + b" HTTP/1.1\r\nHost: other\r\n\r\n", b"ok")
    assert recorder.heads[0].startswith(b"GET " + path + b" HTTP/1.1\r\nHost: web.fly.dev\r\n")


@pytest.mark.parametrize(
    ("names", "more"), [(b"host, content-length", LENGTH), (b"transfer-encoding", CHUNKED)]
)
def test_connection_cannot_take_the_frame_away(world: World, names: bytes, more: bytes) -> None:
    recorder = Recorder()
    world.add("m1", recorder)
    body = b"abc" if more == LENGTH else b"3\r\nabc\r\n0\r\n\r\n"
    head = b"POST / HTTP/1.1\r\n" + HOST + b"Connection: " + names + b"\r\n" + more
    assert said(world, head + b"\r\n" + body, b"ok").startswith(b"HTTP/1.1 200")
    assert HOST in recorder.heads[0]
    assert more in recorder.heads[0]


def test_names_that_look_like_ours_are_taken_away(world: World, client: httpx.Client) -> None:
    world.add("m1", mirror())
    sent = {"Fly_Client_IP": "1", "X_Forwarded-For": "2", "fly-src": "3", "Own_Name": "4"}
    headers = client.get("/", headers=sent).json()["headers"]
    assert headers["own_name"] == "4"
    assert not {"fly_client_ip", "x_forwarded-for", "fly-src"} & set(headers)


def test_trailers_cannot_say_what_only_headers_may(world: World) -> None:
    recorder = Recorder()
    world.add("m1", recorder)
    last = b"0\r\nX-Sum: 1\r\nContent-Length: 5\r\nHost: evil\r\nFly-Client-IP: 1\r\n\r\n"
    request = b"POST / HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n3\r\nabc\r\n" + last
    said(world, request, b"ok")
    assert recorder.heads[0].endswith(b"\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n")


def test_requests_in_a_row_are_answered_in_order(world: World) -> None:
    world.add("m1", mirror())
    requests = [
        b"GET /%d HTTP/1.1\r\n" % number + HOST + LENGTH + b"\r\nabc" for number in range(20)
    ]
    last = b"GET /last HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n"
    answer = said(world, b"".join(requests) + last, b"\0")
    found = [part.split(b'"')[0] for part in answer.split(b'"target": "')[1:]]
    assert found == [b"/%d" % number for number in range(20)] + [b"/last"]


@shows("proxy", "what a program sends after its answer reaches nobody", "ours")
def test_a_second_answer_is_not_kept_for_the_next_request(
    world: World, client: httpx.Client
) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"

    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(answer + b"ok" + answer + b"no")
            await writer.drain()

    world.add("m1", program)
    assert [client.get("/").text for _ in range(5)] == ["ok"] * 5


@pytest.mark.parametrize(
    "answer",
    [
        b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
        b"Content-Length: x\r\n\r\nabc",
        b"Transfer-Encoding: gzip\r\n\r\nabc",
        b"X: a\0b\r\nContent-Length: 0\r\n\r\n",
        b"X: " + b"a" * 200_000 + b"\r\n\r\n",
    ],
)
def test_an_answer_that_cannot_be_read_is_502(
    world: World, client: httpx.Client, answer: bytes
) -> None:
    world.add("m1", raw(b"HTTP/1.1 200 OK\r\n" + answer))
    assert client.get("/").status_code == 502


def test_two_lengths_of_an_answer_are_made_one(world: World, client: httpx.Client) -> None:
    world.add("m1", raw(b"HTTP/1.1 200 OK\r\n" + LENGTH + CHUNKED + b"\r\n5\r\nabcde\r\n0\r\n\r\n"))
    answer = client.get("/")
    assert (answer.text, "content-length" in answer.headers) == ("abcde", False)


@pytest.mark.parametrize("version", [1, 2])
def test_an_answer_of_no_content_has_no_length(world: World, version: int) -> None:
    world.add("m1", raw(b"HTTP/1.1 204 No Content\r\n" + LENGTH + b"\r\nabc"))
    with httpx.Client(
        http1=version == 1, http2=version == 2, verify=False, trust_env=False
    ) as visitor:
        for _ in range(2):
            answer = visitor.get("https://{}:{}/".format(*world.address(443)))
            assert (answer.status_code, answer.content) == (204, b"")
            assert "content-length" not in answer.headers


def test_an_upgrade_to_anything_is_the_programs_to_take(world: World) -> None:
    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Upgrade: chess" in head
        writer.write(b"HTTP/1.1 101 X\r\nUpgrade: chess\r\nConnection: Upgrade\r\n\r\nhi\n")
        writer.write(await reader.readline())

    world.add("m1", program)
    ask = b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: chess\r\n" + HOST + b"\r\ne4\n"
    assert said(world, ask, b"e4\n").endswith(b"\r\n\r\nhi\ne4\n")


def test_a_program_that_refuses_an_expected_body_is_heard(world: World) -> None:
    world.add("m1", raw(b"HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno"))
    head = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\n" + LENGTH + HOST + b"\r\n"
    answer = said(world, head, b"no")
    assert answer.startswith(b"HTTP/1.1 417 ")
    assert b"Connection: close" in answer


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nX: ", b"GET / HT"])
def test_a_head_that_never_ends_is_given_up(world: World, sent: bytes) -> None:
    port = HTTP | {"http_options": {"headers_read_timeout": 0.2}}
    world.add("m1", mirror(), services=[service(port)])
    with socket.create_connection(world.address(80), timeout=60) as visitor:
        visitor.sendall(sent)
        answer = b""
        while not answer:
            time.sleep(0.05)
            visitor.sendall(b"a")  # a byte now and then does not help
            visitor.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                answer = visitor.recv(65536)
            visitor.settimeout(10)
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_connections_that_say_nothing_are_closed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hundred each, in both versions."""
    from pytest_flymachines.emulator.proxy import http1, http2, visitors

    monkeypatch.setattr(http2, "IDLE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(
        http1.Http1.__init__,
        "__kwdefaults__",
        {
            "head_timeout_s": 60.0,
            "idle_timeout_s": 0.3,
        },
    )
    monkeypatch.setattr(visitors, "HANDSHAKE_S", 0.3)
    world.add("m1", mirror())
    before = open_descriptors()
    silent = [socket.create_connection(world.front, timeout=60) for _ in range(200)]
    silent += [socket.create_connection(world.address(443), timeout=60) for _ in range(200)]
    for visitor in silent:
        with visitor:
            assert visitor.recv(1) == b""
    deadline = time.monotonic() + 60
    while open_descriptors() > before:
        assert time.monotonic() < deadline, "descriptors are left"
        time.sleep(0.05)


class Rogue:
    """A visitor who speaks HTTP/2 frame by frame."""

    def __init__(self, world: World) -> None:
        blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
        blind.set_alpn_protocols(["h2"])
        plain = socket.create_connection(world.address(443), timeout=60)
        self.socket = blind.wrap_socket(plain)
        config = h2.config.H2Configuration(
            validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.http = h2.connection.H2Connection(config)
        self.http.initiate_connection()
        self.closed = False
        self.flush()

    def flush(self) -> None:
        if data := self.http.data_to_send():
            self.socket.sendall(data)

    def ask(self, stream: int, *more: tuple[str, str], **pseudo: str) -> None:
        fields = {"method": "GET", "path": "/", "scheme": "https", "authority": "web.fly.dev"}
        head = [(f":{name}", value) for name, value in (fields | pseudo).items()]
        self.http.send_headers(stream, [*head, *more], end_stream=True)

    def events(self) -> Iterator[h2.events.Event]:
        """All that comes, until the connection ends."""
        while True:
            try:
                data = self.socket.recv(65536)
            except (ConnectionError, ssl.SSLError):
                data = b""
            if not data:
                self.closed = True
                return
            yield from self.http.receive_data(data)
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                self.flush()

    def status(self) -> str:
        """Of the next answer; or what became of it."""
        for event in self.events():
            if isinstance(event, h2.events.ResponseReceived):
                fields = dict(event.headers or ())
                found = fields.get(b":status", fields.get(":status", b""))  # type: ignore[call-overload]  # text or bytes
                return found.decode() if isinstance(found, bytes) else str(found)
            if isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                return type(event).__name__
        return "closed"


@pytest.fixture
def rogue(world: World) -> Iterator[Rogue]:
    world.add("m1", mirror(), services=[service(HTTPS)])
    rogue = Rogue(world)
    yield rogue
    rogue.socket.close()


@shows("proxy", "HTTP/2 connections that only begin requests and give them up are ended", "ours")
def test_rapid_reset(world: World, rogue: Rogue) -> None:
    for number in range(2000):
        stream = 1 + 2 * number
        rogue.ask(stream)
        rogue.http.reset_stream(stream)
        if number % 100 == 99:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                rogue.flush()
    codes = {
        event.error_code
        for event in rogue.events()
        if isinstance(event, h2.events.ConnectionTerminated)
    }
    assert rogue.closed
    assert codes <= {h2.errors.ErrorCodes.ENHANCE_YOUR_CALM}
    assert len(world.connects) < 500
    with httpx.Client(http2=True, verify=False, trust_env=False) as visitor:
        assert visitor.get("https://{}:{}/".format(*world.address(443))).status_code == 200


@pytest.mark.parametrize(
    ("pseudo", "more", "outcome"),
    [
        ({"path": "foo"}, (), ("400",)),
        ({"authority": "web.fly.dev evil"}, (), ("400",)),
        ({"method": "CONNECT"}, (), ("405", "ConnectionTerminated")),
        ({}, (("transfer-encoding", "chunked"),), ("ConnectionTerminated", "StreamReset")),
        ({}, (("connection", "close"),), ("ConnectionTerminated", "StreamReset")),
        ({}, (("x", "a\r\nHost: evil"),), ("ConnectionTerminated", "StreamReset", "400")),
        ({}, (("x", "a" * 100_000),), ("ConnectionTerminated", "StreamReset", "431")),
        ({}, (("content-length", "5"),), ("ConnectionTerminated", "StreamReset", "502")),
    ],
)
def test_a_request_of_http_2_that_is_none(
    rogue: Rogue,
    pseudo: dict[str, str],
    more: tuple[tuple[str, str], ...],
    outcome: tuple[str, ...],
) -> None:
    rogue.ask(1, *more, **pseudo)
    rogue.flush()
    assert rogue.status() in outcome


def test_a_visitor_who_opens_no_window_holds_nothing_up(world: World, rogue: Rogue) -> None:
    world.kill("m1")
    body = b"x" * 1_000_000
    world.add(
        "m1",
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + body),
        services=[service(HTTPS)],
    )
    rogue.http.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
    for stream in range(1, 41, 2):
        rogue.ask(stream)
    rogue.flush()
    assert rogue.status() == "200"
    with httpx.Client(verify=False, trust_env=False, timeout=60) as visitor:
        answer = visitor.get("https://{}:{}/".format(*world.address(443)))
    assert len(answer.content) == 1_000_000
