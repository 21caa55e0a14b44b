"""One boot of a machine: from the start of its main process to its end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any
from weakref import WeakSet

from pytest_flymachines.emulator.containers.pod import Pod
from pytest_flymachines.emulator.engines.base import ExitStatus, RunningMachine

__all__ = ["GuestRun"]


class GuestRun:
    """What runs now.

    Attributes:
        machine: The engine's handle.
        ended: How it ended, once it has.
        frozen: It is suspended.
    """

    def __init__(self, machine: RunningMachine) -> None:
        self.machine = machine
        self.ended: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        self.frozen = False
        self._connections: WeakSet[socket.socket] = WeakSet()

    async def connect(self, port: int) -> socket.socket:
        """As in `RunningMachine.connect`; the connection ends when this is suspended.

        Source: https://fly.io/docs/reference/suspend-resume/.
        """
        connection = await self.machine.connect(port)
        if self.frozen:
            connection.close()
            raise ConnectionRefusedError("the machine was suspended meanwhile")
        self._connections.add(connection)
        return connection

    async def watch(self) -> ExitStatus:
        """Wait for the end, and let others know of it."""
        status = await self.machine.wait()
        self.ended.set_result(status)
        return status

    async def freeze(self) -> None:
        """Suspend it."""
        await self.machine.suspend()
        self.frozen = True
        for connection in self._connections:
            with contextlib.suppress(OSError):  # It was closed meanwhile.
                connection.shutdown(socket.SHUT_RDWR)

    async def thaw(self) -> None:
        """Resume it."""
        await self.machine.resume()
        self.frozen = False

    async def end(self, number: int, grace_s: float, hurry: asyncio.Event) -> ExitStatus:
        """End it: the signal, then SIGKILL after `grace_s`, or as soon as there is hurry.

        What is frozen cannot take a signal and is killed at once.
        """
        if grace_s > 0 and not self.frozen and not self.ended.done():
            if isinstance(self.machine, Pod):
                self.machine.stop(number)
            else:
                with contextlib.suppress(ProcessLookupError):  # it ends at this very moment
                    self.machine.signal(number)
            hurrying = asyncio.ensure_future(hurry.wait())
            either: list[asyncio.Future[Any]] = [self.ended, hurrying]
            await asyncio.wait(either, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
            hurrying.cancel()
        if not self.ended.done():
            await self.machine.kill()
        return await self.ended
