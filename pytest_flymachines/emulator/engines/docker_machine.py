"""One machine that is a container."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import IO, Any

from docker.errors import DockerException, NotFound

from pytest_flymachines.emulator.engines.base import (
    EngineError,
    ExecOutcome,
    ExitStatus,
    GuestMount,
    GuestProcess,
    MachineConfigForEngine,
    Program,
)
from pytest_flymachines.emulator.engines.docker_client import explained
from pytest_flymachines.emulator.engines.docker_disks import mountpoint
from pytest_flymachines.emulator.engines.docker_exec import DockerExec
from pytest_flymachines.emulator.engines.docker_files import only_file
from pytest_flymachines.emulator.engines.docker_network import Link
from pytest_flymachines.emulator.engines.docker_program import DockerProgram, close
from pytest_flymachines.emulator.engines.docker_reach import Reach
from pytest_flymachines.emulator.engines.processes import describe
from pytest_flymachines.emulator.engines.supervisor.tail import Tail, open_log

__all__ = ["DockerMachine"]

_KILLED = 137


class DockerMachine:
    """A container, attached to before it was started.

    Args:
        api: The daemon's client.
        pool: Runs its blocking calls.
        container: Its id; also an attribute.
        config: What it was made from.
        label: Of the engine.
        podman: The daemon is podman's.
        group: The control group of the machine, if it is ours; also an attribute.
        link: Its place in a network that it can leave; see `Reach`.
    """

    def __init__(
        self,
        api: Any,
        pool: Executor,
        container: str,
        config: MachineConfigForEngine,
        *,
        label: str,
        podman: bool,
        group: str | None = None,
        link: Link | None = None,
    ) -> None:
        self._api = api
        self._label = label
        self._podman = podman
        # With podman, ps would run in the container.
        self._ps = "hpid,comm,args" if podman else "-eo pid,comm,args"
        self._pool = pool
        self.container = container
        self.group = group
        self._config = config
        self._paused = False
        self._within = config.beside is not None
        self._reach = Reach(api, self._call, container, link)
        self._others: list[DockerProgram] = []
        self._first_end: int | None = None
        loop = asyncio.get_running_loop()
        self._status: asyncio.Future[ExitStatus] = loop.create_future()

    async def start(self, others: Sequence[Program] = ()) -> None:
        """Start it; its output goes to the log from the first byte on.

        Args:
            others: More main processes, each with its whole argv.
        """
        stream = await self._call(self._api.attach, self.container, stream=True)
        try:
            await self._call(self._api.start, self.container)
        except BaseException:
            close(stream)
            raise
        loop = asyncio.get_running_loop()
        copy = functools.partial(self._copy_output, stream, loop)
        threading.Thread(target=copy, name=f"log of {self._config.id}", daemon=True).start()
        await self._reach.find()
        for program in others:
            await self._call(self._start_beside, program)

    @property
    def addresses(self) -> Sequence[str]:
        """Where it is reached."""
        return self._reach.addresses

    @property
    def private_ip(self) -> str:
        """Its 6PN address."""
        return self._config.private_ip

    def failed(self, exit_code: int, why: str) -> None:
        """Its program could not be executed: it has ended before it began."""
        self._status.set_result(ExitStatus(exit_code=exit_code))
        with self._config.log.open("a") as log:
            log.write(f"{why}\n")

    async def wait(self) -> ExitStatus:
        """As in `RunningMachine.wait`."""
        return await asyncio.shield(self._status)

    async def exec(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        timeout_s: float,
    ) -> ExecOutcome:
        """As in `RunningMachine.exec`; a death by signal is told as 128 + n, like a shell does."""
        work = DockerExec(self._api, self.container, argv, stdin, env or {}, podman=self._podman)
        running = asyncio.get_running_loop().run_in_executor(self._pool, work.run)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(running)
        except TimeoutError:
            running.add_done_callback(lambda done: done.exception())
            return work.so_far()
        except (DockerException, OSError) as error:
            raise EngineError(
                f"exec in container {self.container[:12]}: {explained(error)}"
            ) from error

    def signal(self, number: int) -> None:
        """As in `RunningMachine.signal`."""
        self._pool.submit(_quietly, self._api.kill, self.container, signal=number)
        for program in self._others:
            self._pool.submit(program.signal, number)

    async def kill(self) -> None:
        """As in `RunningMachine.kill`."""
        if self._paused:
            await self._call(_quietly, self._api.unpause, self.container)
        if not self._status.done():
            await self._call(_quietly, self._api.kill, self.container)
        await self.wait()

    async def suspend(self) -> None:
        """As in `RunningMachine.suspend`."""
        await self._call(self._api.pause, self.container)
        self._paused = True
        if not self._within:
            await self._reach.give_up()

    async def resume(self) -> None:
        """As in `RunningMachine.resume`."""
        if not self._within:
            await self._reach.take()
        await self._call(self._api.unpause, self.container)
        self._paused = False

    async def connect(self, port: int) -> socket.socket:
        """As in `RunningMachine.connect`."""
        if self._status.done():
            raise ConnectionRefusedError(f"machine {self._config.id} has ended")
        if isinstance(self._config.beside, DockerMachine):
            return await self._config.beside.connect(port)  # the network is that one's
        return await self._reach.connect(port)

    async def open_file(self, path: str) -> IO[bytes] | None:
        """As in `RunningMachine.open_file`; the daemon follows links on the way, inside."""

        def fetch() -> IO[bytes] | None:
            try:
                stream, about = self._api.get_archive(self.container, path)
            except NotFound:
                return None
            with contextlib.closing(stream):
                return only_file(stream, about)

        found: IO[bytes] | None = await self._call(fetch)
        return found

    def mounted(self, mount: GuestMount) -> Path | None:
        """As in `RunningMachine.mounted`, where the daemon is on this computer."""
        try:
            return mountpoint(self._api, self._label, mount)
        except (DockerException, OSError):
            return None

    async def datagrams(self, port: int) -> socket.socket:
        """As in `RunningMachine.datagrams`."""
        if self._status.done():
            raise ConnectionRefusedError(f"machine {self._config.id} has ended")
        return self._reach.datagrams(port)

    async def processes(self) -> list[GuestProcess]:
        """As in `RunningMachine.processes`; less is known of another computer's or user's."""
        try:
            top = await self._call(self._api.top, self.container, ps_args=self._ps)
        except EngineError:
            return []
        found = []
        listeners: dict[str, dict[str, tuple[str, str]]] = {}
        for pid, name, command in top["Processes"]:
            # podman says `?` of one that has just ended
            if name in {"docker-init", "podman-init", "tini"} or not pid.isdigit():
                continue
            described = describe(Path("/proc", pid), listeners)
            found.append(described or GuestProcess(pid=int(pid), command=command))
        return sorted(found, key=lambda process: process.pid)

    async def memory(self) -> tuple[int, int]:
        """As in `RunningMachine.memory`."""
        stats = await self._call(self._api.stats, self.container, stream=False, one_shot=True)
        memory = stats["memory_stats"]
        details = memory.get("stats", {})
        cache = details.get("total_inactive_file", details.get("inactive_file", 0))
        limit = self._config.memory_mb
        return max(0, limit - (memory.get("usage", 0) - cache) // 2**20), limit

    async def _call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        loop = asyncio.get_running_loop()
        call = functools.partial(function, *arguments, **options)
        try:
            return await loop.run_in_executor(self._pool, call)
        except (DockerException, OSError) as error:
            raise EngineError(f"container {self.container[:12]}: {explained(error)}") from error

    def _start_beside(self, program: Program) -> None:
        other = DockerProgram(self._api, self.container, self._config.log)
        unset = self._config.env.keys() - program.env.keys()
        other.start(program, sorted(unset), tty=self._config.tty)
        self._others.append(other)

        def follow() -> None:
            code = other.follow()
            if code == _KILLED and self._ends_by_itself():
                return
            if self._first_end is None:
                self._first_end = code
            _quietly(self._api.kill, self.container)

        name = f"program of {self._config.id}"
        threading.Thread(target=follow, name=name, daemon=True).start()

    def _ends_by_itself(self) -> bool:
        """Whether the container is about to end, so that it took the program with it."""
        try:
            self._api.wait(self.container, timeout=2)
        except (DockerException, OSError):
            return False
        return True

    def _copy_output(self, stream: Any, loop: asyncio.AbstractEventLoop) -> None:
        log = open_log(self._config.log)
        with contextlib.suppress(OSError):
            tail = Tail(log)
            for piece in stream:
                tail.write(piece)
        os.close(log)
        close(stream)
        status = self._final_status()

        def tell() -> None:
            if not self._status.done():
                self._status.set_result(status)

        with contextlib.suppress(RuntimeError):  # The loop was closed with the machine running.
            loop.call_soon_threadsafe(tell)

    def _final_status(self) -> ExitStatus:
        try:
            self._api.wait(self.container, timeout=None)
            state = self._api.inspect_container(self.container)["State"]
        except NotFound:
            return ExitStatus(exit_code=_KILLED)  # Removed by force.
        except (DockerException, OSError) as error:
            with contextlib.suppress(OSError), self._config.log.open("a") as log:
                log.write(f"machine {self._config.id} is lost: {explained(error)}\n")
            return ExitStatus(exit_code=_KILLED)
        code = state["ExitCode"] if self._first_end is None else self._first_end
        return ExitStatus(exit_code=code, oom_killed=state["OOMKilled"])


def _quietly(function: Callable[..., object], *arguments: object, **options: object) -> None:
    """Call what fails when the container has just ended, or the daemon."""
    with contextlib.suppress(DockerException, OSError):
        function(*arguments, **options)
