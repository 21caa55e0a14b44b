"""Forwards: a port on loopback that leads to a port in a machine, byte for byte."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from pytest_flymachines.emulator.flyd import Flyd

__all__ = ["Forward", "Forwards", "pump"]

CHUNK = 64 * 1024


class Forward(Struct, frozen=True):
    """Where a forward leads."""

    app: str
    machine: str
    port: int


class Forwards:
    """The forwards in force; one for each target."""

    def __init__(self, flyd: Flyd) -> None:
        self._flyd = flyd
        self._servers: dict[Forward, asyncio.Server] = {}

    async def open(self, forward: Forward) -> tuple[str, int]:
        """Host and port on loopback; connections are made when somebody connects."""
        server = self._servers.get(forward)
        if server is None:

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await self._serve(forward, reader, writer)

            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            self._servers[forward] = server
        host, port = server.sockets[0].getsockname()
        return host, port

    def list(self) -> list[dict[str, object]]:
        """All of them, with the port on loopback."""
        return [
            {
                "app": forward.app,
                "machine": forward.machine,
                "port": forward.port,
                "host": "127.0.0.1",
                "local_port": server.sockets[0].getsockname()[1],
            }
            for forward, server in self._servers.items()
        ]

    def close(self, forward: Forward | None = None) -> bool:
        """End one, or all; False when there was none."""
        ended = [forward] if forward in self._servers else []
        for old in list(self._servers) if forward is None else ended:
            self._servers.pop(old).close()
        return forward is None or bool(ended)

    async def _serve(
        self, forward: Forward, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        life = self._flyd.life(forward.machine)
        try:
            if life is None or life.running is None:
                raise ConnectionRefusedError("the machine is not running")
            inner = await life.running.connect(forward.port)
        except OSError:
            writer.transport.abort()
            return
        await pump(reader, writer, inner)


async def pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, inner: socket.socket
) -> None:
    """Carry bytes both ways until both sides have said that they are done."""
    inner_reader, inner_writer = await asyncio.open_connection(sock=inner)
    try:
        await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
    except OSError:
        inner_writer.transport.abort()
        writer.transport.abort()
    finally:
        inner_writer.close()
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(CHUNK):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
