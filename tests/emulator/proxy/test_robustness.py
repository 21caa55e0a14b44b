"""Visitors and machines that break off, hang or come in masses."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable

import httpx
import pytest

from tests.emulator.proxy.programs import echo, mirror, raw
from tests.emulator.proxy.world import HTTP, PATIENT, World, open_descriptors, service

GET = b"GET / HTTP/1.1\r\nHost: web.fly.dev\r\n\r\n"


def reset(connection: socket.socket) -> None:
    """Close with a reset instead of an orderly end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def eventually(happens: Callable[[], bool]) -> None:
    """Wait until something has happened."""
    deadline = time.monotonic() + 30
    while not happens():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


class Slow:
    """A program that never answers, and notices when the other side goes away."""

    def __init__(self) -> None:
        self.entered = 0
        self.left = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.entered += 1
        try:
            while await reader.read(65536):
                pass
        finally:
            self.left += 1


def load(world: World) -> int:
    """What the proxy believes to be under way in machine m1."""
    return world.call(lambda: world.proxy._loads.of("m1", 8080))


@pytest.mark.parametrize("leave", [socket.socket.close, reset])
@pytest.mark.parametrize("handlers", [["http"], []])
def test_a_visitor_who_leaves_takes_the_request_with_him(
    world: World, handlers: list[str], leave: Callable[[socket.socket], None]
) -> None:
    slow = Slow()
    world.add("m1", slow, services=[service({"port": 80, "handlers": handlers})])
    visitor = socket.create_connection(world.address(80))
    visitor.sendall(GET)
    eventually(lambda: slow.entered == 1)
    assert load(world) == 1
    leave(visitor)
    eventually(lambda: slow.left == 1)
    eventually(lambda: load(world) == 0)


@PATIENT
def test_a_visitor_who_leaves_while_a_machine_is_awaited_is_forgotten(world: World) -> None:
    world.add("m1")
    visitor = socket.create_connection(world.front)
    visitor.sendall(GET)
    eventually(lambda: len(world.connects) > 2)
    visitor.close()

    def no_more_tries() -> bool:
        tries = len(world.connects)
        time.sleep(0.5)
        return len(world.connects) == tries

    eventually(no_more_tries)


def test_a_visitor_who_leaves_in_the_middle_of_a_body_ends_the_request(world: World) -> None:
    slow = Slow()
    world.add("m1", slow)
    visitor = socket.create_connection(world.front)
    visitor.sendall(b"POST / HTTP/1.1\r\nHost: web.fly.dev\r\nContent-Length: 10\r\n\r\nabc")
    eventually(lambda: slow.entered == 1)
    visitor.close()
    eventually(lambda: slow.left == 1)


@pytest.mark.parametrize("cut", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Le"])
def test_a_machine_that_hangs_up_before_its_answer_is_502(
    world: World, client: httpx.Client, cut: bytes
) -> None:
    world.add("m1", raw(cut))
    answer = client.post("/", content=b"x")
    assert answer.status_code == 502
    assert "[PU02] machine m1 did not answer on port 8080" in answer.text


def test_a_machine_that_does_not_speak_http_is_502(world: World, client: httpx.Client) -> None:
    world.add("m1", raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"))
    assert client.get("/").status_code == 502


@pytest.mark.parametrize("head", [b"Content-Length: 100\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_an_answer_that_breaks_off_is_not_taken_for_whole(
    world: World, client: httpx.Client, head: bytes
) -> None:
    world.add("m1", raw(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n5\r\nabcde\r\n"))
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/")


def test_an_answer_until_the_end_that_is_reset_is_not_taken_for_whole(
    world: World, client: httpx.Client
) -> None:
    sent = asyncio.Event()

    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\npart")
        await sent.wait()
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    world.add("m1", program)
    with client.stream("GET", "/") as answer:
        parts = answer.iter_raw()
        assert next(parts) == b"part"
        world.call(sent.set)
        with pytest.raises(httpx.RemoteProtocolError):
            next(parts)


def test_a_kept_connection_that_has_ended_is_replaced(world: World, client: httpx.Client) -> None:
    world.add("m1", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    for _ in range(3):
        assert client.post("/", content=b"x").text == "ok"


def test_a_request_that_can_be_repeated_is_when_a_kept_connection_dies(
    world: World, client: httpx.Client
) -> None:
    served: list[bytes] = []

    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(2):
            served.append(await reader.readuntil(b"\r\n\r\n"))
            if number == 1:
                return
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    world.add("m1", program)
    assert client.get("/").text == "ok"
    assert client.get("/").text == "ok"
    assert len(served) == 3
    assert client.post("/").status_code == 502


def test_an_idle_connection_is_closed_after_the_configured_time(world: World) -> None:
    port = HTTP | {"http_options": {"idle_timeout": 0.2}}
    slow = Slow()
    world.add("m1", slow, services=[service(port)])
    with socket.create_connection(world.address(80), timeout=60) as visitor:
        visitor.sendall(GET)
        with contextlib.suppress(ConnectionResetError):
            assert visitor.recv(1) == b""
    eventually(lambda: slow.left == 1)


def test_a_busy_connection_is_not_idle(world: World) -> None:
    port = HTTP | {"http_options": {"idle_timeout": 1.5}}

    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
        for _ in range(8):
            await asyncio.sleep(0.25)
            writer.write(b"x")

    world.add("m1", program, services=[service(port)])
    url = "http://{}:{}/".format(*world.address(80))
    assert httpx.get(url, trust_env=False).text == "x" * 8


def test_a_thousand_visitors_at_once(world: World) -> None:
    world.add("m1", mirror(), services=[service(concurrency={"soft_limit": 2000})])

    async def visit() -> bytes:
        reader, writer = await asyncio.open_connection(*world.front)
        try:
            for _ in range(2):
                writer.write(GET)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0])
                await reader.readexactly(length)
            return head
        finally:
            writer.close()
            await writer.wait_closed()

    async def crowd() -> list[bytes]:
        return await asyncio.gather(*(visit() for _ in range(1000)))

    answers = asyncio.run(crowd())
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    eventually(lambda: load(world) == 0)


def test_a_thousand_raw_connections_leave_nothing_behind(world: World) -> None:
    world.add("m1", echo, services=[service({"port": 7})])

    async def visit(number: int) -> bytes:
        reader, writer = await asyncio.open_connection(*world.address(7))
        writer.write(b"%d" % number)
        writer.write_eof()
        try:
            return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()

    async def crowd() -> list[bytes]:
        return await asyncio.gather(*(visit(number) for number in range(1000)))

    before = open_descriptors()
    answers = asyncio.run(crowd())
    assert not world.logged
    assert answers == [b"%d" % number for number in range(1000)]
    eventually(lambda: open_descriptors() <= before)
    assert load(world) == 0


def test_a_reset_of_a_raw_connection_is_passed_on(world: World) -> None:
    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    world.add("m1", program, services=[service({"port": 7})])
    with socket.create_connection(world.address(7), timeout=60) as visitor:
        visitor.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            visitor.recv(1)


def test_the_end_of_one_stream_leaves_the_other_open(world: World) -> None:
    go_on = asyncio.Event()

    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write_eof()
        await go_on.wait()
        world.logged.append((await reader.read()).decode())

    world.add("m1", program, services=[service({"port": 7})])
    with socket.create_connection(world.address(7), timeout=60) as visitor:
        assert visitor.recv(1) == b""
        visitor.sendall(b"still")
        world.call(go_on.set)
    eventually(lambda: world.logged == ["still"])


def test_the_proxy_closes_with_everything_under_way(world: World) -> None:
    slow = Slow()
    world.add("m1", slow, services=[service({"port": 7}), service()])
    world.add("m2", state="starting", app="late")
    visitors = [
        socket.create_connection(address, timeout=60)
        for address in (world.front, world.front, world.front, world.address(7), world.address(443))
    ]
    visitors[0].sendall(GET)
    visitors[1].sendall(GET.replace(b"web", b"late"))
    visitors[2].sendall(b"POST / HTTP/1.1\r\nHost: web.fly.dev\r\nContent-Length: 9\r\n\r\n")
    visitors[3].sendall(b"x")
    eventually(lambda: slow.entered == 3)
    world.run(world.proxy.close())
    for visitor in visitors:
        with visitor, contextlib.suppress(ConnectionResetError):
            assert visitor.recv(1) == b""
