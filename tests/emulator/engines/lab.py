"""Machines on an engine, for tests: started with few words, ended whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from pytest_flymachines.emulator.engines.base import (
    Engine,
    ExecOutcome,
    MachineConfigForEngine,
    RunningMachine,
)

T = TypeVar("T")

DEADLINE_S = 30.0


class Lab:
    """An engine under test and the machines that were started on it.

    Args:
        engine: Its probe must have succeeded.
        engine_directory: What the engine was given.
        directory: For machines' directories and logs.
        image: What its machines run.
        tells_signals: The engine knows a death by signal from an exit code of 128 + n.
    """

    def __init__(
        self,
        engine: Engine,
        engine_directory: Path,
        directory: Path,
        image: str = "busybox",
        *,
        tells_signals: bool = True,
    ) -> None:
        self.tells_signals = tells_signals
        self.engine = engine
        self.engine_directory = engine_directory
        self.directory = directory
        self.image = image
        self.machines: list[RunningMachine] = []
        self._serials = itertools.count(1)

    async def start(self, *argv: str, **config: Any) -> RunningMachine:
        """A machine that runs `argv`, or idles without."""
        name = f"m{next(self._serials)}"
        directory = self.directory / name
        directory.mkdir()
        defaults: dict[str, Any] = {
            "id": name,
            "app": "app",
            "directory": directory,
            "image": self.image,
            "hostname": name,
            "private_ip": f"fdaa:0:1:a7b:1::{name[1:]}",
            "log": self.log(name),
            "argv": argv or None,
        }
        machine = await self.engine.start(MachineConfigForEngine(**{**defaults, **config}))
        self.machines.append(machine)
        return machine

    def log(self, name: str = "m1") -> Path:
        """What the main process of a machine wrote."""
        return self.directory / f"{name}.log"

    async def end(self) -> None:
        """End everything, as an emulator does."""
        await asyncio.gather(*(machine.kill() for machine in self.machines))
        # The newest first: podman keeps a container whose network others have.
        for directory in sorted(self.directory.glob("m*/"), key=_age, reverse=True):
            await self.engine.discard(directory)


def devices(below: Path) -> list[str]:
    """The files in a directory that are behind block devices."""
    found = (path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file"))
    return [file.strip() for file in found if file.startswith(str(below))]


def _age(directory: Path) -> tuple[int, str]:
    return len(directory.name), directory.name  # m9 before m10


async def sh(machine: RunningMachine, script: str, **options: Any) -> ExecOutcome:
    """Run a shell script in a machine."""
    return await machine.exec(["sh", "-c", script], **{"timeout_s": DEADLINE_S, **options})


async def output(machine: RunningMachine, script: str) -> str:
    """What a script prints; it must succeed."""
    outcome = await sh(machine, script)
    assert outcome.exit_code == 0, outcome
    return outcome.stdout.decode().strip()


def parent_of(pid: int) -> int:
    """The process that started one; 0 if that is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


async def eventually(look: Callable[[], Awaitable[T]], wanted: Callable[[T], bool]) -> T:
    """Look again and again until what is seen is as wanted."""
    deadline = time.monotonic() + DEADLINE_S
    while not wanted(seen := await look()):
        assert time.monotonic() < deadline, f"still {seen!r}"
        await asyncio.sleep(0.01)
    return seen


async def settled(look: Callable[[], Awaitable[T]]) -> T:
    """What is seen once it is the same for a while: something may have been on its way."""

    async def twice() -> tuple[T, T]:
        first = await look()
        await asyncio.sleep(0.3)
        return first, await look()

    return (await eventually(twice, lambda seen: seen[0] == seen[1]))[0]


async def fetch(machine: RunningMachine, port: int) -> bytes:
    """What a server in the machine answers to `GET /`, once it listens."""
    loop = asyncio.get_running_loop()
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            sock = await machine.connect(port)
            break
        except OSError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
    with sock:
        await loop.sock_sendall(sock, b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while piece := await loop.sock_recv(sock, 65536):
            answer += piece
    return answer.partition(b"\r\n\r\n")[2]
