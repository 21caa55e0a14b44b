"""A machine of containers, to the rest of the emulator a machine like any other."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pytest_flymachines.emulator.config import Dependency
from pytest_flymachines.emulator.containers.container import Container
from pytest_flymachines.emulator.engines.base import (
    EngineError,
    ExecOutcome,
    ExitStatus,
    GuestMount,
    GuestProcess,
    RunningMachine,
)

__all__ = ["Pod"]


class Pod:
    """The machine around its containers, which start as their dependencies let them.

    It ends when all of them rest, with the first exit code that is not 0.

    Args:
        outer: The machine without them.
        containers: In the order of the config.
    """

    def __init__(self, outer: RunningMachine, containers: Sequence[Container]) -> None:
        self._outer = outer
        self._containers = {container.name: container for container in containers}
        self._life = asyncio.ensure_future(self._live())

    async def up(self) -> None:
        """Until those have been started, once, that wait for no other."""
        first = [c for c in self._containers.values() if not c.given.depends_on]
        await asyncio.gather(*(_reached(container.started, container) for container in first))

    def inside(self, name: str, *, machine: bool) -> RunningMachine | None:
        """Where an exec goes: a container by name, else the first; or the machine around them.

        Returns:
            None if that container does not run now.

        Raises:
            KeyError: There is none of that name.
        """
        if machine:
            return self._outer
        return self._containers[name or next(iter(self._containers))].running

    def stop(self, number: int) -> None:
        """Have every container end, each in its own way, and start none any more."""
        for container in self._containers.values():
            container.stop(number)

    async def wait(self) -> ExitStatus:
        """As in `RunningMachine.wait`."""
        return await asyncio.shield(self._life)

    async def exec(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        timeout_s: float,
    ) -> ExecOutcome:
        """As in `RunningMachine.exec`, in the first container."""
        running = self.inside("", machine=False)
        if running is None:
            raise EngineError("container not running")
        return await running.exec(argv, stdin=stdin, env=env, timeout_s=timeout_s)

    def signal(self, number: int) -> None:
        """Send a signal to every main process of every container."""
        for running in self._running():
            with contextlib.suppress(ProcessLookupError):
                running.signal(number)

    async def kill(self) -> None:
        """As in `RunningMachine.kill`."""
        await self._kill_containers()
        await self.wait()

    async def suspend(self) -> None:
        """As in `RunningMachine.suspend`."""
        for container in self._containers.values():
            container.frozen = True
        for machine in (*self._running(), self._outer):
            await machine.suspend()

    async def resume(self) -> None:
        """As in `RunningMachine.resume`."""
        for machine in (self._outer, *self._running()):
            await machine.resume()
        for container in self._containers.values():
            container.frozen = False

    async def connect(self, port: int) -> socket.socket:
        """As in `RunningMachine.connect`: whoever of them listens there."""
        for machine in self._running():
            with contextlib.suppress(OSError):
                return await machine.connect(port)
        return await self._outer.connect(port)

    async def datagrams(self, port: int) -> socket.socket:
        """As in `RunningMachine.datagrams`: they share its network."""
        return await self._outer.datagrams(port)

    async def open_file(self, path: str) -> IO[bytes] | None:
        """As in `RunningMachine.open_file`, of the first container."""
        running = self.inside("", machine=False)
        return await running.open_file(path) if running else None

    def mounted(self, mount: GuestMount) -> Path | None:
        """As in `RunningMachine.mounted`."""
        found = (machine.mounted(mount) for machine in (self._outer, *self._running()))
        return next(filter(None, found), None)

    async def processes(self) -> list[GuestProcess]:
        """As in `RunningMachine.processes`; each container counts its own pids."""
        listed = await asyncio.gather(*(machine.processes() for machine in self._running()))
        return [process for processes in listed for process in processes]

    async def memory(self) -> tuple[int, int]:
        """As in `RunningMachine.memory`."""
        machines = (self._outer, *self._running())
        found = await asyncio.gather(*(machine.memory() for machine in machines))
        limit_mb = found[0][1]
        return max(0, limit_mb - sum(limit - available for available, limit in found)), limit_mb

    def _running(self) -> list[RunningMachine]:
        found = (container.running for container in self._containers.values())
        return [running for running in found if running is not None]

    async def _live(self) -> ExitStatus:
        members = [
            asyncio.ensure_future(container.live(self._dependencies(container)))
            for container in self._containers.values()
        ]
        everybody = asyncio.gather(*members)
        outer_end = asyncio.ensure_future(self._outer.wait())
        either: list[asyncio.Future[Any]] = [everybody, outer_end]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        lost = outer_end.done() and not everybody.done()
        await self._kill_containers()
        await everybody
        await self._outer.kill()
        await outer_end
        if lost:
            return ExitStatus(exit_code=137, signal=signal.SIGKILL)
        ends = [container.rest.result() for container in self._containers.values()]
        return next((end for end in ends if end.exit_code), ends[0])

    async def _kill_containers(self) -> None:
        await asyncio.gather(*(container.kill() for container in self._containers.values()))

    async def _dependencies(self, container: Container) -> bool:
        """Until each is as it must be; False when one will never be."""
        met = (self._met(dependency) for dependency in container.given.depends_on or ())
        return all(await asyncio.gather(*met))

    async def _met(self, dependency: Dependency) -> bool:
        other = self._containers[dependency.name]
        if dependency.condition == "exited_successfully":
            return (await asyncio.shield(other.rest)).exit_code == 0
        event = other.healthy if dependency.condition == "healthy" else other.started
        return await _reached(event, other)


async def _reached(event: asyncio.Event, container: Container) -> bool:
    """Wait for an event of a container; False if it rests before."""
    reached = asyncio.ensure_future(event.wait())
    either: list[asyncio.Future[Any]] = [reached, container.rest]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    met = reached.done()
    reached.cancel()
    return met
