"""Flycast: private addresses of apps, which lead machines of a network to the proxy.

Source: https://fly.io/docs/networking/flycast/. Every external TCP port of the app is there, with
its handlers, autostart and balancing.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Awaitable, Callable

from pytest_flymachines.emulator.engines.base import Door, EngineError
from pytest_flymachines.emulator.proxy.directory import Directory
from pytest_flymachines.emulator.proxy.listener import Listener
from pytest_flymachines.emulator.proxy.visitors import Visitors

__all__ = ["Flycast", "OpenDoor"]

# Opens a door in the machines' network; gives what closes it, or None where there is no such.
OpenDoor = Callable[[Door], Awaitable[Callable[[], None] | None]]

# App, address, network of that, port.
Place = tuple[str, str, str, int]


class Flycast:
    """Listens in the machines' networks."""

    def __init__(
        self,
        directory: Directory,
        visitors: Visitors,
        ports: Callable[[str], set[int]],
        open_door: OpenDoor,
    ) -> None:
        """Begin with none; see `sync`.

        Args:
            directory: The apps.
            visitors: Serves the connections.
            ports: Gives the external ports of an app.
            open_door: See `OpenDoor`.
        """
        self._directory = directory
        self._visitors = visitors
        self._ports = ports
        self._open_door = open_door
        self._open: dict[Place, Callable[[], None] | None] = {}
        self._changed: dict[str, None] = {}
        self._settling: asyncio.Task[None] | None = None
        self._listeners: set[Listener] = set()
        self._closing: set[asyncio.Task[None]] = set()

    def sync(self, app: str) -> None:
        """Have the doors opened and closed that an app's addresses and ports ask for now."""
        if self._wanted(app) != {place for place in self._open if place[0] == app}:
            self._changed[app] = None
            if self._settling is None or self._settling.done():
                loop = asyncio.get_running_loop()
                self._settling = loop.create_task(self._settle(), name="flycast")

    async def close(self) -> None:
        """Close every door and connection."""
        if self._settling:
            self._settling.cancel()
            await asyncio.wait([self._settling])
        for close in self._open.values():
            if close:
                close()
        self._open.clear()
        await asyncio.gather(*(listener.close() for listener in self._listeners), *self._closing)

    def _wanted(self, app: str) -> set[Place]:
        record = self._directory.app(app)
        if record is None or not record.flycast:
            return set()
        ports = self._ports(app)
        return {
            (app, address, network, port) for address, network in record.flycast for port in ports
        }

    async def _settle(self) -> None:
        while self._changed:
            app = next(iter(self._changed))
            del self._changed[app]
            wanted = self._wanted(app)
            for place in [one for one in self._open if one[0] == app and one not in wanted]:
                if close := self._open.pop(place):
                    close()
            for place in sorted(wanted - self._open.keys()):
                self._open[place] = await self._opened(place)

    async def _opened(self, place: Place) -> Callable[[], None] | None:
        app, address, network, port = place

        async def serve(visitor: socket.socket) -> None:
            await self._visitors.serve(visitor, app, port, flycast=address)

        door = Door("tcp", port, functools.partial(self._listen, serve), address, network)
        try:
            return await self._open_door(door)
        except (EngineError, OSError) as error:
            self._directory.log(app, "", f"flycast address {address}, port {port}: {error}")
            return None

    def _listen(
        self,
        serve: Callable[[socket.socket], Awaitable[None]],
        listening: socket.socket,
    ) -> Callable[[], None]:
        listener = Listener(serve, listening)  # type: ignore[arg-type]  # a coroutine function
        self._listeners.add(listener)

        def close() -> None:
            self._listeners.discard(listener)
            task = asyncio.get_running_loop().create_task(listener.close(), name="flycast")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

        return close
