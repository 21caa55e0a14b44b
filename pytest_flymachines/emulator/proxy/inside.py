"""The Machines API as a machine reaches it.

By the Unix socket `/.fly/api`, which needs no token for what a machine does to itself (source:
https://fly.io/docs/reference/suspend-resume/), and at `_api.internal:4280`, which asks for a
token as the public one does (https://fly.io/docs/machines/api/working-with-machines-api/).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

from pytest_flymachines.emulator.engines.base import GATEWAY, Door
from pytest_flymachines.emulator.proxy.exchange import Broken, Exchange
from pytest_flymachines.emulator.proxy.headers import Headers, end_to_end, first
from pytest_flymachines.emulator.proxy.http1 import Http1
from pytest_flymachines.emulator.proxy.listener import BACKLOG, Listener
from pytest_flymachines.emulator.proxy.message import Problem, Request, Responder
from pytest_flymachines.emulator.proxy.upstream import Upstream, Upstreams
from pytest_flymachines.emulator.proxy.wire import connected

__all__ = ["Inside"]

API_NAME, API_PORT = "_api.internal", 4280
IDLE_TIMEOUT_S = 600.0


class Inside:
    """Leads from every machine to the API."""

    def __init__(self, api: tuple[str, int], token: str, directory: Path) -> None:
        """Begin without machines.

        Args:
            api: Host and port of the API on this computer.
            token: What a machine acts on itself with.
            directory: For the sockets; exists, and only this user can enter it.
        """
        self._api = api
        self._token = token
        self._directory = directory
        self._doors: dict[str, Listener] = {}
        self._listeners: set[Listener] = set()
        self._upstreams = Upstreams(self._connect)

    def at_private_address(self) -> Door:
        """The API at `_api.internal`."""

        def serve(listening: socket.socket) -> Callable[[], None]:
            listener = Listener(self._serve, listening)
            self._listeners.add(listener)
            return listener.stop  # its connections are ended by `close`

        return Door("tcp", API_PORT, serve)

    def door(self, app: str, machine_id: str) -> Path:
        """The Unix socket that is to appear as `/.fly/api` in a machine; made when needed."""
        path = self._directory / machine_id
        if machine_id not in self._doors:

            async def serve(visitor: socket.socket) -> None:
                await self._serve(visitor, f"/v1/apps/{app}/machines/{machine_id}")

            path.unlink(missing_ok=True)
            self._doors[machine_id] = Listener(serve, _unix_socket(path))
        return path

    async def destroyed(self, machine_id: str) -> None:
        """Close the socket of a machine."""
        if listener := self._doors.pop(machine_id, None):
            await listener.close()
            (self._directory / machine_id).unlink(missing_ok=True)

    async def close(self) -> None:
        """Close everything."""
        for machine_id in tuple(self._doors):
            await self.destroyed(machine_id)
        for listener in self._listeners:
            await listener.close()
        self._upstreams.close()

    async def _serve(self, visitor: socket.socket, own: str | None = None) -> None:
        async def handle(request: Request, responder: Responder) -> None:
            if own is None and not _meant_for_us(request):
                raise Problem(403, f"the API is at http://{API_NAME}:{API_PORT} in a machine")
            await self._relay(request, responder, self._headers(request, own))

        wire = await connected(visitor)
        await Http1(wire, idle_timeout_s=IDLE_TIMEOUT_S).serve(handle)

    def _headers(self, request: Request, own: str | None) -> Headers:
        """The request's headers, with the token if it is about the machine's own path, if any."""
        headers = [pair for pair in end_to_end(request.headers) if pair[0].lower() != b"host"]
        headers.append((b"Host", "{}:{}".format(*self._api).encode()))
        path = request.target.partition(b"?")[0].decode("latin-1")
        about_itself = own is not None and (path == own or path.startswith(f"{own}/"))
        if about_itself and not first(headers, b"authorization"):
            headers.append((b"Authorization", f"Bearer {self._token}".encode()))
        return headers

    async def _relay(self, request: Request, responder: Responder, headers: Headers) -> None:
        try:
            upstream = await self._upstreams.take(Upstream, self._api)
        except OSError as error:
            raise Problem(502, f"the API does not answer: {error}") from None
        exchange = Exchange(
            upstream=upstream,
            responder=responder,
            answered=_answered,
            idle_timeout_s=IDLE_TIMEOUT_S,
            may_replay=False,
        )
        try:
            await exchange.run(request, headers)
        except Broken as error:
            raise Problem(502, f"the API did not answer: {error}") from None
        finally:
            self._upstreams.give_back(upstream)

    async def _connect(self, host: str, port: int) -> socket.socket:
        connection = socket.socket()
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connection, (host, port))
        except BaseException:
            connection.close()
            raise
        return connection


def _meant_for_us(request: Request) -> bool:
    """Whether the Host header has one of our names: one that leads here by a trick has another."""
    host = first(request.headers, b"host").lower()
    names = (API_NAME, f"[{GATEWAY}]")
    return host in names or host in [f"{name}:{API_PORT}" for name in names]


def _answered(headers: Headers) -> Headers:
    return [pair for pair in end_to_end(headers) if pair[0].lower() != b"transfer-encoding"]


def _unix_socket(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        # By way of the descriptor, since the address of a Unix socket has room for 107 bytes.
        listening.bind(f"/proc/self/fd/{directory}/{path.name}")
        path.chmod(0o666)  # every user of the machine; the directory keeps others out
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    finally:
        os.close(directory)
    return listening
