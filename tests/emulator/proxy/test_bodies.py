"""Bodies of any size and framing, both ways."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.emulator.proxy.programs import echo, http, mirror, raw
from tests.emulator.proxy.world import World, service

LARGE = 64 * 1024 * 1024


async def consume(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads a body of known length, piece by piece, and answers with its digest."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:-2])
    left, digest = int(fields["Content-Length"]), hashlib.sha256()
    while left:
        piece = await reader.read(min(left, 1 << 18))
        digest.update(piece)
        left -= len(piece)
    answer = digest.hexdigest().encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)


def test_a_large_upload_arrives_whole(world: World, client: httpx.Client) -> None:
    world.add("m1", consume)
    piece = bytes(range(256)) * 256
    digest = hashlib.sha256()

    def pieces() -> Iterator[bytes]:
        for _ in range(LARGE // len(piece)):
            digest.update(piece)
            yield piece

    answer = client.post("/", content=pieces(), headers={"Content-Length": str(LARGE)})
    assert answer.text == digest.hexdigest()


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_large_download_arrives_whole(world: World, client: httpx.Client, framing: str) -> None:
    piece = bytes(range(256)) * 256
    count = LARGE // len(piece)

    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = {
            "length": b"Content-Length: %d\r\n" % LARGE,
            "chunked": b"Transfer-Encoding: chunked\r\n",
            "close": b"Connection: close\r\n",
        }[framing]
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
        for _ in range(count):
            chunk = b"%x\r\n%s\r\n" % (len(piece), piece) if framing == "chunked" else piece
            writer.write(chunk)
            await writer.drain()
        if framing == "chunked":
            writer.write(b"0\r\n\r\n")

    world.add("m1", program)
    digest, size = hashlib.sha256(), 0
    with client.stream("GET", "/") as answer:
        for part in answer.iter_bytes():
            digest.update(part)
            size += len(part)
    assert size == LARGE
    assert digest.digest() == hashlib.sha256(piece * count).digest()


def test_a_connection_into_a_machine_stays_in_use_after_a_long_answer(
    world: World, client: httpx.Client
) -> None:
    connections = 0
    long = http(lambda seen: (200, {}, bytes(3_000_000) if seen.target == "/long" else b"short"))

    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await long(reader, writer)

    world.add("m1", program)
    for _ in range(2):
        assert client.get("/long").content == bytes(3_000_000)
        head = client.head("/long")
        assert (head.headers["content-length"], head.content) == ("3000000", b"")
        assert client.get("/").content == b"short"
    assert connections == 1


def test_a_long_answer_that_ends_early_breaks_off(world: World, client: httpx.Client) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n"
    world.add("m1", raw(head + bytes(2_000_000)))
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/")


def test_a_chunked_upload_with_trailers_arrives(world: World) -> None:
    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received = await reader.readuntil(b"X-Sum: 7\r\n\r\n")
        body = received.partition(b"\r\n\r\n")[2]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    world.add("m1", program)
    with socket.create_connection(world.front, timeout=60) as visitor:
        visitor.sendall(b"POST / HTTP/1.1\r\nHost: web.fly.dev\r\nConnection: close\r\n")
        visitor.sendall(b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n")
        time.sleep(0.05)
        visitor.sendall(b"4\r\ndefg\r\n0\r\nX-Sum: 7\r\n\r\n")
        answer = _all(visitor)
    assert b"abc" in answer
    assert b"defg" in answer


def test_trailers_of_an_answer_come_back(world: World) -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-Sum: 2\r\n\r\n"
    )
    world.add("m1", raw(answer))
    with socket.create_connection(world.front, timeout=60) as visitor:
        visitor.sendall(b"GET / HTTP/1.1\r\nHost: web.fly.dev\r\nConnection: close\r\n\r\n")
        assert _all(visitor).endswith(b"2\r\nab\r\n0\r\nX-Sum: 2\r\n\r\n")


def test_an_answer_streams_as_it_is_written(world: World, client: httpx.Client) -> None:
    go_on = asyncio.Event()

    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await go_on.wait()
        writer.write(b"6\r\nsecond\r\n0\r\n\r\n")

    world.add("m1", program)
    with client.stream("GET", "/") as answer:
        parts = answer.iter_raw()
        assert next(parts) == b"first"
        world.call(go_on.set)
        assert next(parts) == b"second"


def test_a_body_streams_while_the_answer_does(world: World) -> None:
    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
        for _ in range(2):
            writer.write(await reader.readexactly(3))

    world.add("m1", program)
    with socket.create_connection(world.front, timeout=60) as visitor:
        visitor.sendall(b"POST / HTTP/1.1\r\nHost: web.fly.dev\r\nContent-Length: 6\r\n\r\nabc")
        received = b""
        while not received.endswith(b"abc"):
            received += visitor.recv(65536)
        visitor.sendall(b"def")
        while not received.endswith(b"abcdef"):
            received += visitor.recv(65536)


@pytest.mark.parametrize("handlers", [["http"], []])
def test_a_visitor_who_does_not_read_slows_the_machine_down(
    world: World, handlers: list[str]
) -> None:
    written = 0

    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 40))
        while True:
            writer.write(bytes(1 << 16))
            written += 1 << 16
            await writer.drain()

    world.add("m1", program, services=[service({"port": 80, "handlers": handlers})])
    with socket.create_connection(world.address(80), timeout=60) as visitor:
        visitor.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        visitor.recv(10)
        assert _settled(lambda: written) < 32 << 20


@pytest.mark.parametrize("handlers", [["http"], []])
def test_a_machine_that_does_not_read_slows_the_visitor_down(
    world: World, handlers: list[str]
) -> None:
    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a plain TCP transport
        await asyncio.Event().wait()

    world.add("m1", program, services=[service({"port": 80, "handlers": handlers})])
    sent = 0
    with socket.create_connection(world.address(80)) as visitor:
        visitor.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (1 << 40))
        visitor.setblocking(False)

        def push() -> int:
            nonlocal sent
            try:
                while True:
                    sent += visitor.send(bytes(1 << 16))
            except BlockingIOError:
                return sent

        assert _settled(push) < 32 << 20


def test_a_visitor_who_waits_is_told_to_continue(world: World) -> None:
    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"Expect: 100-continue" in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(4)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + body)

    world.add("m1", program)
    with socket.create_connection(world.front, timeout=60) as visitor:
        visitor.sendall(b"POST / HTTP/1.1\r\nHost: web.fly.dev\r\nContent-Length: 4\r\n")
        visitor.sendall(b"Expect: 100-continue\r\nConnection: close\r\n\r\n")
        assert visitor.recv(65536).startswith(b"HTTP/1.1 100 ")
        visitor.sendall(b"body")
        assert _all(visitor).endswith(b"body")


def test_a_visitor_who_waits_can_be_refused(world: World) -> None:
    world.add("m1", raw(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"))
    with socket.create_connection(world.front, timeout=60) as visitor:
        visitor.sendall(b"POST / HTTP/1.1\r\nHost: web.fly.dev\r\nContent-Length: 4\r\n")
        visitor.sendall(b"Expect: 100-continue\r\n\r\n")
        assert _all(visitor).startswith(b"HTTP/1.1 417 ")


def test_early_hints_pass(world: World) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
    world.add("m1", raw(hints + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    with socket.create_connection(world.front, timeout=60) as visitor:
        visitor.sendall(b"GET / HTTP/1.1\r\nHost: web.fly.dev\r\nConnection: close\r\n\r\n")
        answer = _all(visitor)
    assert answer.startswith(b"HTTP/1.1 103 ")
    assert b"Link: </a.css>" in answer
    assert b"HTTP/1.1 200 OK" in answer


def test_an_old_visitor_gets_an_answer_without_chunks(world: World) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
    world.add("m1", raw(answer))
    with socket.create_connection(world.front, timeout=60) as visitor:
        visitor.sendall(b"GET / HTTP/1.0\r\nHost: web.fly.dev\r\n\r\n")
        assert _all(visitor).endswith(b"\r\n\r\nab")


def test_an_upload_that_is_answered_early_does_not_cut_the_answer(world: World) -> None:
    body = b"x" * 100_000
    world.add(
        "m1",
        raw(b"HTTP/1.1 413 Too Large\r\nContent-Length: %d\r\n\r\n" % len(body) + body),
    )
    with socket.create_connection(world.front, timeout=60) as visitor:
        visitor.sendall(b"POST / HTTP/1.1\r\nHost: web.fly.dev\r\nContent-Length: 9999999\r\n\r\n")
        for _ in range(16):
            visitor.sendall(bytes(4096))
        answer = _all(visitor)
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(body)


def test_bodies_of_answers_without_one_are_not_awaited(world: World, client: httpx.Client) -> None:
    world.add("m1", raw(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"))
    assert client.get("/").status_code == 304


def test_an_empty_post_is_passed_on(world: World, client: httpx.Client) -> None:
    world.add("m1", mirror())
    seen = client.post("/").json()
    assert (seen["body"], seen["headers"]["content-length"]) == ("", "0")


def test_raw_bytes_of_any_kind_pass_both_ways(world: World) -> None:
    world.add("m1", echo, services=[service({"port": 7})])
    sent = bytes(range(256)) * 1000
    with socket.create_connection(world.address(7), timeout=60) as visitor:
        visitor.sendall(sent)
        visitor.shutdown(socket.SHUT_WR)
        assert _all(visitor) == sent


def _all(visitor: socket.socket) -> bytes:
    received = b""
    while piece := visitor.recv(65536):
        received += piece
    return received


def _settled(measure: object) -> int:
    """A growing number, once it has stopped growing."""
    assert callable(measure)
    before = -1
    while (now := int(measure())) != before:
        before = now
        time.sleep(0.2)
    return now
