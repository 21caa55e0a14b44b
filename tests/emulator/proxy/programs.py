"""Programs for machines: what listens behind the proxy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import h11

from tests.emulator.proxy.world import Program

Answer = h11.Response | tuple[int, dict[str, str], bytes]


class Seen:
    """A request as it reached a program."""

    def __init__(self, event: h11.Request, body: bytes) -> None:
        self.method = event.method.decode()
        self.target = event.target.decode()
        self.headers = {
            name.decode().lower(): value.decode() for name, value in event.headers.raw_items()
        }
        self.body = body


def http(handle: Callable[[Seen], tuple[int, dict[str, str], bytes]]) -> Program:
    """An HTTP/1.1 server that keeps connections open."""

    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        while True:
            request, body = None, b""
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await reader.read(65536))
                elif isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    break
                else:
                    return
            assert request is not None
            status, headers, content = handle(Seen(request, body))
            length = {} if "content-length" in headers else {"Content-Length": str(len(content))}
            response = h11.Response(status_code=status, headers=[*(headers | length).items()])
            writer.write(connection.send(response) or b"")
            if content and request.method != b"HEAD":
                writer.write(connection.send(h11.Data(data=content)) or b"")
            writer.write(connection.send(h11.EndOfMessage()) or b"")
            await writer.drain()
            if connection.our_state is h11.MUST_CLOSE:
                return
            connection.start_next_cycle()

    return program


def mirror(name: str = "") -> Program:
    """Answers with what it got, as JSON."""

    def handle(seen: Seen) -> tuple[int, dict[str, str], bytes]:
        shown = {
            "machine": name,
            "method": seen.method,
            "target": seen.target,
            "headers": seen.headers,
            "body": seen.body.decode(),
        }
        return 200, {"Content-Type": "application/json"}, json.dumps(shown).encode()

    return http(handle)


def says(text: str, status: int = 200, **headers: str) -> Program:
    """Answers always the same; underscores in header names stand for dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return http(lambda _: (status, named, text.encode()))


def raw(respond: Callable[[bytes], Awaitable[bytes]] | bytes) -> Program:
    """Reads the head of one request, answers with these bytes and hangs up."""

    async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(respond if isinstance(respond, bytes) else await respond(head))
        await writer.drain()

    return program


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends back every byte, and ends when the other side does."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
