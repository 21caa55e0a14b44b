"""Raw forwards: a port of this computer that leads into a port of a machine."""

from __future__ import annotations

import asyncio
import socket

from pytest_flymachines.emulator.proxy.directory import Directory
from pytest_flymachines.emulator.proxy.listener import Listener
from pytest_flymachines.emulator.proxy.tunnel import tunnel
from pytest_flymachines.emulator.proxy.wire import connected

__all__ = ["Forwards"]


class Forwards:
    """Every forward that is open; asking for one twice gives the same."""

    def __init__(self, directory: Directory, host: str = "127.0.0.1") -> None:
        self._directory = directory
        self._host = host
        self._listeners: dict[tuple[str, int], Listener] = {}
        self._closing: set[asyncio.Task[int]] = set()

    def open(self, machine_id: str, port: int) -> tuple[str, int]:
        """Listen for connections into a port of a machine, whether or not it listens yet.

        Returns:
            Host and port on this computer.
        """
        listener = self._listeners.get((machine_id, port))
        if listener is None:

            async def serve(visitor: socket.socket) -> None:
                await self._serve(visitor, machine_id, port)

            listener = self._listeners[machine_id, port] = Listener.at(serve, self._host)
        return listener.where

    def listing(self) -> dict[tuple[str, int], tuple[str, int]]:
        """Host and port on this computer, by machine and port."""
        return {target: way.where for target, way in self._listeners.items()}

    def sync(self) -> None:
        """Close the forwards into machines that are destroyed."""
        for machine_id in {target[0] for target in self._listeners}:
            if self._directory.machine(machine_id) is None:
                closing = self.close(machine_id)
                task = asyncio.get_running_loop().create_task(closing, name="forwards")
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)

    async def close(self, machine_id: str | None = None, port: int | None = None) -> int:
        """Close forwards and their connections.

        Args:
            machine_id: Only those into this machine; None means any.
            port: Only those into this port; None means any.

        Returns:
            How many were closed.
        """
        chosen = [
            target
            for target in self._listeners
            if machine_id in (None, target[0]) and port in (None, target[1])
        ]
        for listener in [self._listeners.pop(target) for target in chosen]:
            await listener.close()
        return len(chosen)

    async def end(self) -> None:
        """Close everything."""
        await self.close()
        await asyncio.gather(*self._closing)

    async def _serve(self, visitor: socket.socket, machine_id: str, port: int) -> None:
        near = await connected(visitor, half_open=True)
        try:
            inside = await self._directory.connect(machine_id, port)
            far = await connected(inside, half_open=True)
        except OSError as error:
            app = machine.app if (machine := self._directory.machine(machine_id)) else ""
            self._directory.log(app, machine_id, f"forward into port {port}: {error}")
            near.reset()
            return
        except BaseException:
            near.abort()
            raise
        await tunnel(near, far)
