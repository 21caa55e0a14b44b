"""Machines under a supervisor: what the bubblewrap and the process engine share."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pytest_flymachines.emulator.engines import cgroups
from pytest_flymachines.emulator.engines.base import (
    EngineError,
    ExecOutcome,
    ExitStatus,
    GuestMount,
    GuestProcess,
    MachineConfigForEngine,
)
from pytest_flymachines.emulator.engines.freezing import StoppedTree
from pytest_flymachines.emulator.engines.opening import open_below
from pytest_flymachines.emulator.engines.output import OutputPipe
from pytest_flymachines.emulator.engines.peer import Peer
from pytest_flymachines.emulator.engines.processes import list_processes, resident_bytes
from pytest_flymachines.emulator.engines.spawner import Spawner
from pytest_flymachines.emulator.engines.supervisor import wire
from pytest_flymachines.emulator.engines.supervisor.tail import Tail, open_log

__all__ = ["SupervisedMachine"]


class SupervisedMachine:
    """One machine: its supervisor's control socket and what has become of its main process.

    Args:
        spawner: Forks the supervisor.
        config: What the machine is.
        groups: Its control groups; those of the machine that it is `beside`, if any.
    """

    def __init__(
        self,
        spawner: Spawner,
        config: MachineConfigForEngine,
        groups: cgroups.MachineGroups,
    ) -> None:
        self.config = config
        self._spawner = spawner
        self.groups = groups
        self._within = config.beside is not None
        self._status: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        self._walls: list[int] = []
        self._pipes: set[OutputPipe] = set()
        self._drains: set[asyncio.Task[None]] = set()

    async def start(
        self, *, listen: int | None = None, **fields: Any
    ) -> tuple[socket.socket | None, int | None]:
        """Have a supervisor build and boot the machine; see its `start` request.

        Args:
            listen: Port on loopback inside, for a socket that listens from the first moment.
            fields: Those of the request that depend on the engine.

        Returns:
            That socket, if it was asked for; descriptor of the machine's interface to the
            private network, if it has one.

        Raises:
            EngineError: It could not; nothing of the machine is left.
        """
        # A container lives in the groups of its machine, which are not its own to make and remove.
        own_paths = () if self._within else self.groups.paths
        sock, self._pid = await self._spawner.supervisor(own_paths)
        self._peer = Peer(sock, self._on_event)
        self._ended = asyncio.ensure_future(self._wait())
        self._stopped = StoppedTree(self._pid)
        config = self.config
        log = open_log(config.log)
        try:
            answer, fds = await self._peer.request(
                "start",
                [log],
                cgroup=self.groups.plan(config.memory_mb, config.swap_mb, made=self._within),
                data_bytes=None
                if self.groups.limits
                else (config.memory_mb + config.swap_mb) * 2**20,
                tty=config.tty,
                listen=listen,
                disks=[(m.device, str(m.source)) for m in config.mounts if m.device]
                + ([(root.device, str(root.source))] if (root := config.root_disk) else []),
                **fields,
            )
        except BaseException:
            self._peer.close()
            await self.wait()
            raise
        finally:
            os.close(log)
        self._walls = answer["walls"]
        for _ in (config, *config.others) if config.tty else ():
            self._copy_terminal(fds.pop())
        interface = fds.pop() if answer["linked"] else None
        return (socket.socket(fileno=fds.pop()) if fds else None), interface

    async def wait(self) -> ExitStatus:
        """Until nothing of the machine runs any more; as often as one likes."""
        return await asyncio.shield(self._ended)

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Have something called when nothing of the machine runs any more."""
        self._ended.add_done_callback(lambda _: callback())

    async def exec(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        timeout_s: float,
    ) -> ExecOutcome:
        """As in `RunningMachine.exec`."""
        stdin_fd = _stdin(stdin)
        out, err = OutputPipe(), OutputPipe()
        self._pipes |= {out, err}
        fds = [stdin_fd, out.write_fd, err.write_fd]
        try:
            ended = await self._peer.ask("exec", fds, argv=list(argv), env=dict(env or {}))
        except EngineError:
            out.close()
            err.close()
            raise
        finally:
            wire.close_all(fds)
        whole = asyncio.gather(ended, out.finished(), err.finished())
        return await self._outcome(whole, out, err, timeout_s)

    def signal(self, number: int) -> None:
        """Send a signal to every main process."""
        self._peer.tell("signal", number=number)

    async def kill(self) -> None:
        """End every process of the machine at once; returns when none is left."""
        self._peer.tell("kill")
        await self.wait()

    async def connect_to(self, addresses: Sequence[str], port: int) -> socket.socket:
        """A non-blocking socket connected to the first of these addresses that answers."""
        try:
            answer, fds = await self._peer.request("connect", addresses=list(addresses), port=port)
        except EngineError as error:
            raise ConnectionRefusedError(errno.ECONNREFUSED, str(error)) from error
        if not fds:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        sock = socket.socket(fileno=fds[0])
        sock.setblocking(False)
        if answer["errno"] == errno.EINPROGRESS:
            await _connected(sock)
        return sock

    @property
    def supervisor(self) -> int:
        """The pid of its supervisor."""
        return self._pid

    @property
    def root(self) -> Path:
        """What it sees as `/`, for this process."""
        raise NotImplementedError

    def mounted(self, mount: GuestMount) -> Path | None:
        """As in `RunningMachine.mounted`."""
        for own in self.config.mounts:
            if own.source == mount.source:
                return self.place_of(own)
        return None

    def place_of(self, mount: GuestMount) -> Path:
        """Where this process finds one of its own mounts."""
        raise NotImplementedError

    async def open_file(self, path: str) -> IO[bytes] | None:
        """As in `RunningMachine.open_file`."""
        return await asyncio.to_thread(open_below, self.root, path)

    async def datagrams_to(self, address: str, port: int, *, source: str = "") -> socket.socket:
        """A non-blocking UDP socket connected to an address as the machine knows it.

        Args:
            address: Where to.
            port: Likewise.
            source: Its own address; empty: the kernel's choice.

        Raises:
            OSError: The machine has ended.
        """
        try:
            _, fds = await self._peer.request(
                "datagrams", address=address, port=port, source=source
            )
        except EngineError as error:
            raise ConnectionRefusedError(errno.ECONNREFUSED, str(error)) from error
        return socket.socket(fileno=fds[0])

    async def suspend(self) -> None:
        """As in `RunningMachine.suspend`."""
        if self.groups.unified:
            await asyncio.to_thread(self.groups.set_frozen, frozen=True)
        else:
            await asyncio.to_thread(self._stopped.stop)

    async def resume(self) -> None:
        """As in `RunningMachine.resume`."""
        if self.groups.unified:
            await asyncio.to_thread(self.groups.set_frozen, frozen=False)
        else:
            await asyncio.to_thread(self._stopped.go_on)

    async def memory(self) -> tuple[int, int]:
        """As in `RunningMachine.memory`."""
        used = self.groups.memory_used_bytes()
        if used is not None and self._within:
            used = 0  # The machine counts it.
        if used is None:
            used = await asyncio.to_thread(resident_bytes, self._pid)
        limit = self.config.memory_mb
        return max(0, limit - used // 2**20), limit

    async def processes(self) -> list[GuestProcess]:
        """As in `RunningMachine.processes`."""
        return await asyncio.to_thread(
            list_processes, self._pid, hidden=self._walls, walled=bool(self._walls)
        )

    async def _wait(self) -> ExitStatus:
        status = await self._status
        await self._spawner.gone(self._pid)
        for pipe in list(self._pipes):
            pipe.close()
        return status

    async def _outcome(
        self, whole: asyncio.Future[Any], out: OutputPipe, err: OutputPipe, timeout_s: float
    ) -> ExecOutcome:
        try:
            async with asyncio.timeout(timeout_s):
                (answer, _), _, _ = await asyncio.shield(whole)
        except TimeoutError:
            outcome = ExecOutcome(timed_out=True, stdout=out.content(), stderr=err.content())
            self._let_go(whole, out, err)
            return outcome
        except asyncio.CancelledError:
            self._let_go(whole, out, err)
            raise
        except EngineError:
            out.close()
            err.close()
            raise
        self._pipes -= {out, err}
        code, number = _code_and_signal(answer["status"])
        return ExecOutcome(
            exit_code=None if number else code,
            signal=number,
            stdout=out.content(),
            stderr=err.content(),
        )

    def _let_go(self, whole: asyncio.Future[Any], out: OutputPipe, err: OutputPipe) -> None:
        """Keep reading the output of a program that nobody waits for: it must not block."""
        out.forget()
        err.forget()

        async def drain() -> None:
            with contextlib.suppress(EngineError):
                await whole
            self._pipes.difference_update({out, err})

        task = asyncio.ensure_future(drain())
        self._drains.add(task)
        task.add_done_callback(self._drains.discard)

    def _copy_terminal(self, master: int) -> None:
        loop = asyncio.get_running_loop()
        os.set_blocking(master, False)
        log = open_log(self.config.log)
        tail = Tail(log)

        def on_readable() -> None:
            try:
                piece = os.read(master, 65536)
            except BlockingIOError:
                return
            except OSError:  # EIO: the last holder of the other end has closed it.
                piece = b""
            if piece:
                tail.write(piece)
            else:
                loop.remove_reader(master)
                os.close(master)
                os.close(log)

        loop.add_reader(master, on_readable)

    def _on_event(self, message: wire.Message) -> None:
        if self._status.done():
            return
        if message is wire.CLOSED:
            # The supervisor was killed; the kernel has ended the rest.
            self._status.set_result(ExitStatus(exit_code=137, signal=signal.SIGKILL))
        elif message["event"] == "exited":
            code, number = _code_and_signal(message["status"])
            oom = message["oom_kills"] > 0
            self._status.set_result(ExitStatus(exit_code=code, signal=number, oom_killed=oom))


def _stdin(content: bytes) -> int:
    if not content:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    fd = os.memfd_create("stdin", os.MFD_CLOEXEC)
    with os.fdopen(fd, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _code_and_signal(status: int) -> tuple[int, int | None]:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return 128 + number, number
    return os.WEXITSTATUS(status), None


async def _connected(sock: socket.socket) -> None:
    """Until a connect that was begun elsewhere is done."""
    loop = asyncio.get_running_loop()
    writable = asyncio.Event()
    loop.add_writer(sock, writable.set)
    try:
        await writable.wait()
    except BaseException:
        sock.close()
        raise
    finally:
        loop.remove_writer(sock)
    if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        sock.close()
        raise OSError(number, os.strerror(number))
