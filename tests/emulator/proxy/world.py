"""Apps and machines for the proxy: programs are real TCP servers on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec
import pytest

from pytest_flymachines.emulator.config import MachineConfig, decode_hook
from pytest_flymachines.emulator.proxy import AppRecord, Caller, MachineRecord, Proxy, StartRefused
from pytest_flymachines.emulator.proxy.proxy import start_proxy

Program = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
T = TypeVar("T")

PATIENT = pytest.mark.parametrize("world", [60.0], indirect=True, ids=["patient"])
HTTP = {"port": 80, "handlers": ["http"]}
HTTPS = {"port": 443, "handlers": ["tls", "http"]}


def service(*ports: dict[str, Any], internal_port: int = 8080, **more: Any) -> dict[str, Any]:
    """A service as in a machine's config; by default on ports 80 and 443."""
    return {
        "protocol": "tcp",
        "internal_port": internal_port,
        "ports": list(ports) or [HTTP, HTTPS],
    } | more


class World:
    """A directory with its proxy, in an event loop of their own in a thread."""

    def __init__(self, *, patience_s: float = 1.0) -> None:
        self.apps: dict[str, AppRecord] = {}
        self.records: dict[str, MachineRecord] = {}
        self.callers: dict[str, Caller] = {}
        self.programs: dict[str, Program] = {}
        self.servers: dict[str, asyncio.Server] = {}
        self.udp: dict[str, tuple[str, int]] = {}
        self.connects: list[str] = []
        self.sockets: list[socket.socket] = []
        self.starts: list[str] = []
        self.boot_s = 0.0
        self.refuse_start = ""
        self.logged: list[str] = []
        self._running: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.descriptors = open_descriptors()
        self.proxy: Proxy = self.run(start_proxy(self, patience_s=patience_s))

    # What tests do.

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in the event loop."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(60)

    def call(self, function: Callable[[], T]) -> T:
        """Call something in the event loop."""

        async def work() -> T:
            return function()

        return self.run(work())

    def add(
        self,
        machine_id: str,
        program: Program | None = None,
        *,
        services: Iterable[dict[str, Any]] = (service(),),
        app: str = "web",
        state: str = "started",
        region: str = "ord",
        config: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        """Make a machine; its program listens on every internal port while it is started."""
        self.apps.setdefault(app, AppRecord(name=app))
        parsed = msgspec.convert(
            {"services": list(services)} | (config or {}), MachineConfig, dec_hook=decode_hook
        )
        self.records[machine_id] = MachineRecord(
            id=machine_id, app=app, region=region, state=state, config=parsed, **more
        )
        if program:
            self.programs[machine_id] = program
        if state == "started":
            self.run(self._boot(machine_id))
        self.call(lambda: self.proxy.sync(app))

    def change(self, machine_id: str, **changes: Any) -> None:
        """Change a machine's record."""
        self.records[machine_id] = replace(self.records[machine_id], **changes)
        self.call(lambda: self.proxy.sync(self.records[machine_id].app))

    def kill(self, machine_id: str) -> None:
        """Stop a machine's program from listening; its connections live on."""

        async def work() -> None:
            self.servers.pop(machine_id).close()

        self.run(work())

    def address(self, external: int, app: str = "web") -> tuple[str, int]:
        """Where an external port is on this computer."""
        host, _, port = self.proxy.listing()[app][external].rpartition(":")
        return host, int(port)

    @property
    def front(self) -> tuple[str, int]:
        """Host and port of the front."""
        host, _, port = self.proxy.url.removeprefix("http://").rpartition(":")
        return host, int(port)

    def close(self) -> None:
        """End everything; afterwards no task and no descriptor may be left."""
        self.run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        left = [task.get_name() for task in asyncio.all_tasks(self._loop)]
        self._loop.close()
        gc.collect()
        assert not left, f"tasks left: {left}"

    # What the proxy asks for.

    def app(self, name: str) -> AppRecord | None:
        return self.apps.get(name)

    def machines(self, app: str) -> Iterable[MachineRecord]:
        return [machine for machine in self.records.values() if machine.app == app]

    def machine(self, machine_id: str) -> MachineRecord | None:
        return self.records.get(machine_id)

    async def open_file(self, machine_id: str, path: str) -> IO[bytes] | None:
        raise FileNotFoundError(f"{machine_id} has no {path}: no config here has statics")

    def caller(self, address: str) -> Caller | None:
        return self.callers.get(address)

    async def connect(self, machine_id: str, port: int) -> socket.socket:
        self.connects.append(machine_id)
        server = self.servers.get(machine_id)
        if server is None:
            raise ConnectionRefusedError(111, "Connection refused")
        connection = socket.socket()
        connection.setblocking(False)
        address = server.sockets[0].getsockname()
        try:
            await asyncio.get_running_loop().sock_connect(connection, address)
        except BaseException:
            connection.close()
            raise
        self.sockets.append(connection)
        return connection

    async def datagrams(self, machine_id: str, port: int) -> socket.socket:
        if machine_id not in self.udp:
            raise ConnectionRefusedError(111, "Connection refused")
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        sock.connect(self.udp[machine_id])
        return sock

    async def start(self, machine_id: str) -> None:
        self.starts.append(machine_id)
        if self.refuse_start:
            raise StartRefused(self.refuse_start)
        self.records[machine_id] = replace(self.records[machine_id], state="starting")
        await asyncio.sleep(self.boot_s)
        await self._boot(machine_id)
        self.records[machine_id] = replace(self.records[machine_id], state="started")

    def log(self, app: str, machine_id: str, text: str) -> None:
        self.logged.append(text)

    async def _boot(self, machine_id: str) -> None:
        program = self.programs.get(machine_id)
        if program is None:
            return

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            try:
                await program(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

        self.servers[machine_id] = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=2048)

    async def _close(self) -> None:
        await self.proxy.close()
        ours = [task for task in asyncio.all_tasks() if task not in self._running]
        assert ours == [asyncio.current_task()], "the proxy left tasks"
        for server in self.servers.values():
            server.close()
        for _ in range(100):
            for task in self._running:
                task.cancel()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            if not others:
                break
            await asyncio.sleep(0.01)


def open_descriptors() -> int:
    """How many file descriptors this process has."""
    return len(tuple(Path("/proc/self/fd").iterdir()))
