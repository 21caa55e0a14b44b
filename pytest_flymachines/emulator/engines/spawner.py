"""The emulator's view of the spawner, the process that forks supervisors."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest_flymachines
from pytest_flymachines.emulator.engines.peer import Peer
from pytest_flymachines.emulator.engines.supervisor import wire

__all__ = ["Spawner"]

_PROGRAM = (
    "import sys; sys.path.append({path!r}); "
    "from pytest_flymachines.emulator.engines.supervisor.spawner import main; main()"
)


class Spawner:
    """The process that forks supervisors; one for each engine, started when first needed.

    Args:
        cgroups: Control groups that it removes when it ends.
    """

    def __init__(self, cgroups: Sequence[str] = ()) -> None:
        self._cgroups = cgroups
        self._lock = asyncio.Lock()
        self._peer: Peer | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._gone: dict[int, asyncio.Event] = {}

    async def supervisor(self, cgroups: Sequence[str] = ()) -> tuple[socket.socket, int]:
        """A new supervisor: our end of its control socket, and its pid.

        Args:
            cgroups: Control groups that are removed when it has ended.
        """
        return await self._fork("machine", cgroups)

    async def switch(self) -> socket.socket:
        """A new switch: our end of its control socket."""
        return (await self._fork("switch", ()))[0]

    async def gone(self, pid: int) -> None:
        """Until a supervisor is reaped and its control groups are removed."""
        if self._peer is not None and not self._peer.closed:
            await self._gone.setdefault(pid, asyncio.Event()).wait()
            self._gone.pop(pid, None)

    async def close(self) -> None:
        """End it; the machines of supervisors that still run end too."""
        if self._peer is not None and self._process is not None:
            self._peer.close()
            await asyncio.to_thread(self._process.wait)

    async def _fork(self, what: str, cgroups: Sequence[str]) -> tuple[socket.socket, int]:
        async with self._lock:
            if self._peer is None or self._peer.closed:
                self._peer = self._start()
        ours, theirs = wire.pair()
        with theirs:
            try:
                answer, _ = await self._peer.request(what, [theirs.fileno()], cgroups=list(cgroups))
            except BaseException:
                ours.close()
                raise
        return ours, answer["pid"]

    def _start(self) -> Peer:
        ours, theirs = wire.pair()
        root = Path(pytest_flymachines.__file__).parent.parent
        with theirs:
            fd = theirs.fileno()
            program = _PROGRAM.format(path=str(root))
            python = [sys.executable, "-I", "-S", "-X", "utf8", "-c", program]
            self._process = subprocess.Popen(
                [*python, str(fd), str(os.getpid()), *self._cgroups],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[fd],
                cwd="/",
            )
        return Peer(ours, self._on_event)

    def _on_event(self, message: wire.Message) -> None:
        if message is wire.CLOSED:
            for event in self._gone.values():
                event.set()
        elif message["event"] == "gone":
            self._gone.setdefault(message["pid"], asyncio.Event()).set()
