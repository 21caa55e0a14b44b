"""A small engine: every machine is a process group in a directory, without any walls.

For tests of the emulator itself, where the engine must be quick and do as it is told; the real
engines have their own tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from pytest_flymachines.emulator.engines.base import (
    Door,
    EngineError,
    ExecOutcome,
    ExitStatus,
    GuestMount,
    GuestProcess,
    ImageNotFound,
    MachineConfigForEngine,
    Probe,
)
from pytest_flymachines.emulator.engines.opening import open_below
from pytest_flymachines.emulator.engines.supervisor import linux


class TinyMachine:
    def __init__(self, config: MachineConfigForEngine, process: asyncio.subprocess.Process) -> None:
        self.config = config
        self.process = process
        self.suspended = False
        self.failing = config.env.get("TINY_FAILS")

    async def wait(self) -> ExitStatus:
        code = await self.process.wait()
        self._kill_group()
        if code < 0:
            return ExitStatus(exit_code=128 - code, signal=-code)
        return ExitStatus(exit_code=code)

    async def exec(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        timeout_s: float,
    ) -> ExecOutcome:
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=self.config.directory,
                env={"PATH": os.defpath, **self.config.env, **(env or {})},
                process_group=self.process.pid,
            )
        except FileNotFoundError:
            return ExecOutcome(exit_code=127, stderr=f"{argv[0]}: not found\n".encode())
        talk = asyncio.ensure_future(process.communicate(stdin))
        done, _ = await asyncio.wait([talk], timeout=timeout_s)
        if not done:
            return ExecOutcome(timed_out=True)
        stdout, stderr = talk.result()
        code = process.returncode or 0
        if code < 0:
            return ExecOutcome(signal=-code, stdout=stdout, stderr=stderr)
        return ExecOutcome(exit_code=code, stdout=stdout, stderr=stderr)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def kill(self) -> None:
        self._may_fail("kill")
        self._kill_group()
        await self.process.wait()

    async def suspend(self) -> None:
        self._may_fail("suspend")
        os.killpg(self.process.pid, signal.SIGSTOP)
        self.suspended = True

    async def resume(self) -> None:
        self._may_fail("resume")
        os.killpg(self.process.pid, signal.SIGCONT)
        self.suspended = False

    async def connect(self, port: int) -> socket.socket:
        connection = socket.socket()
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
        except BaseException:
            connection.close()
            raise
        return connection

    async def datagrams(self, port: int) -> socket.socket:
        raise ConnectionRefusedError("there is no UDP here")

    async def open_file(self, path: str) -> IO[bytes] | None:
        return open_below(self.config.directory, path)

    def mounted(self, mount: GuestMount) -> Path | None:
        raise NotImplementedError

    async def processes(self) -> list[GuestProcess]:
        return [GuestProcess(pid=1, command="main", directory="/", rss=1024)]

    async def memory(self) -> tuple[int, int]:
        return self.config.memory_mb - 1, self.config.memory_mb

    def _may_fail(self, call: str) -> None:
        """Fail once, if the machine's environment says so."""
        if self.failing == call:
            self.failing = None
            raise EngineError(f"{call} failed")

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


class TinyEngine:
    name = "tiny"
    honours_image = True
    takes_devices = False
    sizes_root = False

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started: list[MachineConfigForEngine] = []
        self.machines: list[TinyMachine] = []
        self.start_error: str | None = None

    async def admit(self, doors: Sequence[Door]) -> None:
        """Machines have this computer's network."""

    async def open(self, door: Door) -> None:
        pass

    async def peer(self, address: str) -> str:
        return address

    async def probe(self) -> Probe:
        return Probe(works=True)

    async def resolve_image(self, image: str) -> str:
        if "slow" in image:
            await asyncio.sleep(0.02)
        if "missing" in image:
            raise ImageNotFound(image)
        return "sha256:" + hashlib.sha256(image.encode()).hexdigest()

    async def image_config(self, image: str) -> bytes:
        return f"config of {image}".encode()

    async def start(self, machine: MachineConfigForEngine) -> TinyMachine:
        if self.start_error:
            raise EngineError(self.start_error)
        self.started.append(machine)
        for file in machine.files:
            path = machine.directory / file.path.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.content)
            path.chmod(file.mode)
        argv = machine.argv or [*(machine.entrypoint or ()), *(machine.cmd or ("sleep", "inf"))]
        with machine.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=machine.directory,
                env={"PATH": os.defpath, **machine.env},
                process_group=0,
                # an emulator that is killed must not leave its machines to this computer
                preexec_fn=partial(linux.die_with_parent, signal.SIGKILL),
            )
        running = TinyMachine(machine, process)
        self.machines.append(running)
        return running

    async def discard(self, directory: Path) -> None:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    async def close(self) -> None:
        for machine in self.machines:
            if machine.process.returncode is None:
                await machine.kill()


async def choose(_: str, directory: Path) -> tuple[TinyEngine, Probe, list[str]]:
    engine = TinyEngine(directory)
    return engine, await engine.probe(), []
