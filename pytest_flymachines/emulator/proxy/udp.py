"""Services with the protocol `udp`: datagrams between a port of this computer and machines.

Source: https://fly.io/docs/networking/udp-and-tcp/. The port stays the same on the way: a program
binds `fly-global-services` and the external port, whatever `internal_port` says. Handlers,
autostart and limits are of TCP only.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket

from pytest_flymachines.emulator.proxy.directory import Directory, MachineRecord
from pytest_flymachines.emulator.proxy.listener import dialled
from pytest_flymachines.emulator.proxy.routing import match
from pytest_flymachines.emulator.regions import distance

__all__ = ["Datagrams"]

# How long a visitor keeps his machine without a datagram either way.
SESSION_S = 60.0
MAX_SESSIONS = 1024
# What a session keeps until it knows its machine.
MAX_WAITING = 64
MAX_DATAGRAM = 65536
TURN = 64

Address = tuple[str, int]


class Datagrams:
    """One external port of an app: what comes there, and the answers to each visitor."""

    def __init__(
        self,
        directory: Directory,
        app: str,
        external: int,
        *,
        host: str,
        edge: str,
        session_s: float = SESSION_S,
    ) -> None:
        """Begin to listen; an event loop must run.

        Args:
            directory: The machines.
            app: Name of the app.
            external: The port of its services.
            host: The address on this computer.
            edge: The region where visitors are.
            session_s: How long a visitor keeps his machine without a datagram either way.
        """
        self._directory = directory
        self._app = app
        self.external = external
        self._edge = edge
        self.session_s = session_s
        self._sessions: dict[Address, _Session] = {}
        self._told = False
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.bind((host, 0))
        except BaseException:
            self._socket.close()
            raise
        self._loop.add_reader(self._socket, self._receive)

    @property
    def address(self) -> str:
        """`host:port` on this computer."""
        host, port = self._socket.getsockname()
        return f"{dialled(host)}:{port}"

    def sync(self) -> None:
        """End the sessions with machines that take no datagrams any more."""
        for session in tuple(self._sessions.values()):
            if session.machine_id and not self._fit(self._directory.machine(session.machine_id)):
                session.close()

    async def close(self) -> None:
        """Stop listening, and end every session."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        sessions = tuple(self._sessions.values())
        for session in sessions:
            session.close()
        await asyncio.gather(*(session.task for session in sessions), return_exceptions=True)

    def machine(self) -> MachineRecord | None:
        """The machine for a new visitor: one of the nearest that run."""
        found = [one for one in self._directory.machines(self._app) if self._fit(one)]
        if not found and not self._told:
            text = f"UDP port {self.external}: no machine that runs has a service with it"
            self._directory.log(self._app, "", f"[PR01] {text}")
        self._told = not found
        return min(
            found,
            key=lambda one: (distance(self._edge, one.region), random.random()),  # noqa: S311 - a fair choice, no secret
            default=None,
        )

    async def connect(self, machine_id: str) -> socket.socket:
        """A socket into a machine.

        Raises:
            OSError: It does not run.
        """
        return await self._directory.datagrams(machine_id, self.external)

    def reply(self, data: bytes, visitor: Address) -> None:
        """Send to a visitor; what there is no room for is lost, as on any network."""
        with contextlib.suppress(OSError):
            self._socket.sendto(data, visitor)

    def forget(self, visitor: Address) -> None:
        """Drop a session that has ended."""
        self._sessions.pop(visitor, None)

    def _fit(self, machine: MachineRecord | None) -> bool:
        if machine is None or machine.cordoned or machine.state != "started":
            return False
        matched = match(machine, self.external, "udp")
        return matched is not None and matched[0].internal_port not in machine.failing

    def _receive(self) -> None:
        for _ in range(TURN):
            try:
                data, visitor = self._socket.recvfrom(MAX_DATAGRAM)
            except OSError:
                return
            session = self._sessions.get(visitor)
            if session is None:
                if len(self._sessions) >= MAX_SESSIONS:
                    next(iter(self._sessions.values())).close()
                session = self._sessions[visitor] = _Session(self, visitor)
            session.send(data)


class _Session:
    """One visitor and his machine."""

    def __init__(self, port: Datagrams, visitor: Address) -> None:
        self._port = port
        self._visitor = visitor
        self._loop = asyncio.get_running_loop()
        self._waiting: list[bytes] = []
        self._inside: socket.socket | None = None
        self._touched = self._loop.time()
        self._timer = self._loop.call_later(port.session_s, self._expire)
        self.machine_id = ""
        self.task = self._loop.create_task(self._begin(), name="datagrams")

    def send(self, data: bytes) -> None:
        """Send to the machine, at the latest once it is known."""
        self._touched = self._loop.time()
        if self._inside is not None:
            with contextlib.suppress(OSError):  # nothing listens there, or there is no room
                try:
                    self._inside.send(data)
                except ConnectionRefusedError:  # of an earlier datagram
                    self._inside.send(data)
        elif len(self._waiting) < MAX_WAITING:
            self._waiting.append(data)

    def close(self) -> None:
        """End it."""
        self._port.forget(self._visitor)
        self._timer.cancel()
        self.task.cancel()
        if self._inside is not None:
            self._loop.remove_reader(self._inside)
            self._inside.close()
            self._inside = None

    async def _begin(self) -> None:
        machine = self._port.machine()
        try:
            if machine is None:
                self.close()
                return
            inside = await self._port.connect(machine.id)
        except OSError:
            self.close()
            return
        self.machine_id, self._inside = machine.id, inside
        self._loop.add_reader(inside, self._receive)
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self.send(data)

    def _receive(self) -> None:
        for _ in range(TURN):
            try:
                assert self._inside is not None
                data = self._inside.recv(MAX_DATAGRAM)
            except ConnectionRefusedError:
                continue  # nothing listens there yet: news of one datagram, not of the others
            except OSError:
                return
            self._touched = self._loop.time()
            self._port.reply(data, self._visitor)

    def _expire(self) -> None:
        left_s = self._touched + self._port.session_s - self._loop.time()
        if left_s <= 0:
            self.close()
        else:
            self._timer = self._loop.call_later(left_s, self._expire)
