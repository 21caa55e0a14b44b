"""The external ports of all apps, each on a loopback port of its own, with its handlers.

Source: https://fly.io/docs/networking/services/#connection-handlers.
"""

from __future__ import annotations

import asyncio
import socket

from pytest_flymachines.emulator.proxy.directory import Directory
from pytest_flymachines.emulator.proxy.listener import Listener
from pytest_flymachines.emulator.proxy.routing import span
from pytest_flymachines.emulator.proxy.udp import Datagrams
from pytest_flymachines.emulator.proxy.visitors import Visitors

__all__ = ["Services"]

# Of one entry with start_port and end_port; more would take all sockets of this process. The
# front serves all of them.
MAX_RANGE = 64


class Services:
    """Listens for every external port of every app."""

    def __init__(self, directory: Directory, visitors: Visitors, host: str, edge: str) -> None:
        """Begin with none; see `sync`.

        Args:
            directory: The apps.
            visitors: Serves the connections.
            host: A loopback address.
            edge: The region where visitors are.
        """
        self._directory = directory
        self._visitors = visitors
        self._host = host
        self._edge = edge
        self._datagrams: dict[tuple[str, int], Datagrams] = {}
        self._listeners: dict[tuple[str, int], Listener] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def sync(self, app: str) -> None:
        """Open and close listeners as the configs of an app's machines say now."""
        wanted = self.ports(app)
        open_now = {external for name, external in self._listeners if name == app}
        for external in wanted - open_now:
            self._listeners[app, external] = self._open(app, external)
        for external in open_now - wanted:
            self._close(self._listeners.pop((app, external)))
        self._sync_udp(app)

    def _sync_udp(self, app: str) -> None:
        wanted = self.ports(app, "udp")
        open_now = {external for name, external in self._datagrams if name == app}
        for external in wanted - open_now:
            self._datagrams[app, external] = Datagrams(
                self._directory, app, external, host=self._host, edge=self._edge
            )
        for external in open_now - wanted:
            self._close(self._datagrams.pop((app, external)))
        for external in open_now & wanted:
            self._datagrams[app, external].sync()

    def _close(self, open_port: Listener | Datagrams) -> None:
        task = asyncio.get_running_loop().create_task(open_port.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def listing(self) -> dict[str, dict[int, str]]:
        """`host:port` on this computer, by app and external port."""
        listing: dict[str, dict[int, str]] = {}
        for (app, external), listener in sorted(self._listeners.items()):
            listing.setdefault(app, {})[external] = listener.address
        return listing

    def udp_listing(self) -> dict[str, dict[int, str]]:
        """The same for the UDP ports."""
        listing: dict[str, dict[int, str]] = {}
        for (app, external), datagrams in sorted(self._datagrams.items()):
            listing.setdefault(app, {})[external] = datagrams.address
        return listing

    async def close(self) -> None:
        """Close every listener and connection."""
        listeners: list[Listener | Datagrams] = [*self._listeners.values()]
        listeners += self._datagrams.values()
        self._listeners.clear()
        self._datagrams.clear()
        await asyncio.gather(*(listener.close() for listener in listeners), *self._closing)

    def ports(self, app: str, protocol: str = "tcp") -> set[int]:
        """The external ports of an app; of each range, the first 64."""
        ports: set[int] = set()
        for machine in self._directory.machines(app):
            for service in machine.config.services or ():
                if (service.protocol or "tcp") == protocol:
                    for port in service.ports or ():
                        first, last = span(port)
                        ports.update(range(first, min(last + 1, first + MAX_RANGE)))
        return ports

    def _open(self, app: str, external: int) -> Listener:
        async def serve(visitor: socket.socket) -> None:
            await self._visitors.serve(visitor, app, external)

        return Listener.at(serve, self._host)
