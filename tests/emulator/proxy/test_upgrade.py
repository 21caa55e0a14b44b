from __future__ import annotations

import asyncio
import socket

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Message,
    Request,
    TextMessage,
)

from tests.emulator.fidelity import shows
from tests.emulator.proxy.programs import mirror, says
from tests.emulator.proxy.world import World, service


async def websocket_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A WebSocket server that greets, then sends back what it gets."""
    server = WSConnection(ConnectionType.SERVER)
    while data := await reader.read(65536):
        server.receive_data(data)
        for event in server.events():
            if isinstance(event, Request):
                # The greeting goes out together with the head of the answer.
                chosen = event.subprotocols[0] if event.subprotocols else None
                head = server.send(AcceptConnection(subprotocol=chosen))
                writer.write(head + server.send(TextMessage("welcome")))
            elif isinstance(event, Message):
                writer.write(server.send(TextMessage(str(event.data).upper())))
            elif isinstance(event, CloseConnection):
                writer.write(server.send(event.response()))
                return


class Visitor:
    """A WebSocket client on a plain socket."""

    def __init__(self, address: tuple[str, int], host: str = "web.fly.dev") -> None:
        self.socket = socket.create_connection(address, timeout=60)
        self.ws = WSConnection(ConnectionType.CLIENT)
        self.events: list[object] = []
        request = Request(host=host, target="/chat", subprotocols=["chat"])
        self.socket.sendall(self.ws.send(request))

    def next(self) -> object:
        while not self.events:
            data = self.socket.recv(65536)
            self.ws.receive_data(data or None)
            self.events += self.ws.events()
        return self.events.pop(0)

    def say(self, text: str) -> None:
        self.socket.sendall(self.ws.send(TextMessage(text)))


def test_a_websocket_passes_through(world: World) -> None:
    world.add("m1", websocket_echo)
    visitor = Visitor(world.front)
    accepted = visitor.next()
    assert isinstance(accepted, AcceptConnection)
    assert accepted.subprotocol == "chat"
    assert visitor.next() == TextMessage(data="welcome")
    for text in ("a", "b"):
        visitor.say(text)
        assert visitor.next() == TextMessage(data=text.upper())
    visitor.socket.sendall(visitor.ws.send(CloseConnection(code=1000)))
    assert isinstance(visitor.next(), CloseConnection)
    assert visitor.socket.recv(1) == b""
    visitor.socket.close()


@shows("proxy", "a WebSocket counts as work until it ends", "docs")
def test_a_websocket_counts_as_work_until_it_ends(world: World) -> None:
    world.add("m1", websocket_echo, services=[service(concurrency={"hard_limit": 1})])
    first = Visitor(world.front)
    first.next()
    second = Visitor(world.front)
    assert "503" in str(second.next())
    first.socket.close()
    third = Visitor(world.front)
    assert isinstance(third.next(), AcceptConnection)
    for visitor in (second, third):
        visitor.socket.close()


@shows("proxy", "a WebSocket follows a `fly-replay`", "docs")
def test_a_websocket_follows_a_replay(world: World) -> None:
    world.add("r", says("", fly_replay="instance=t"))
    world.add("t", websocket_echo, region="fra")
    visitor = Visitor(world.front)
    assert isinstance(visitor.next(), AcceptConnection)
    visitor.socket.close()


def test_an_upgrade_that_is_not_accepted_is_a_plain_answer(world: World) -> None:
    world.add("m1", mirror())
    visitor = Visitor(world.front)
    assert "200" in str(visitor.next())
    visitor.socket.close()


def test_any_protocol_can_be_switched_to_with_bytes_already_under_way(world: World) -> None:
    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"upgrade: foo/2" in head.lower()
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n")
        writer.write(b"Upgrade: foo/2\r\n\r\nearly")
        writer.write(b"[" + await reader.readexactly(6) + b"]")

    world.add("m1", program)
    with socket.create_connection(world.front, timeout=60) as visitor:
        visitor.sendall(b"GET / HTTP/1.1\r\nHost: web.fly.dev\r\nUpgrade: foo/2\r\n")
        visitor.sendall(b"Connection: keep-alive, Upgrade\r\n\r\nbefore")
        received = b""
        while piece := visitor.recv(65536):
            received += piece
    assert received.startswith(b"HTTP/1.1 101 ")
    assert b"Upgrade: foo/2" in received
    assert received.endswith(b"\r\n\r\nearly[before]")


@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
def test_an_upgrade_without_the_connection_header_or_to_http2_is_not_passed_on(
    world: World, upgrade: str
) -> None:
    world.add("m1", mirror())
    connection = "Upgrade, HTTP2-Settings" if upgrade == "h2c" else "keep-alive"
    with socket.create_connection(world.front, timeout=60) as visitor:
        visitor.sendall(
            f"GET / HTTP/1.1\r\nHost: web.fly.dev\r\nUpgrade: {upgrade}\r\n"
            f"Connection: {connection}\r\nHTTP2-Settings: AAMAAABk\r\n\r\n".encode()
        )
        answer = visitor.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"upgrade"' not in answer
