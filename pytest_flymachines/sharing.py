"""One machine for all workers: a lock and a state file per spec, in the run's directory.

The lock is the kernel's, so it ends with its process, however that ends. Whoever holds it
and finds no state file launches; everybody else attaches to what the file says. A launch
that failed is written down too, so that the others fail at once, for the same reason.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pytest_flymachines.errors import FlyMachinesError, MachineGone, MachineStartFailed

if TYPE_CHECKING:
    from filelock import FileLock

__all__ = [
    "EmulatorAddress",
    "FailedBefore",
    "Intent",
    "Launched",
    "LostBefore",
    "RunInfo",
    "SharedState",
]

_ENDED = "ended"


class FailedBefore(MachineStartFailed):
    """A sandbox was asked for again that failed to start before in this run."""


class LostBefore(MachineGone):
    """A sandbox was asked for whose machine died before in this run."""


class EmulatorAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a local run's emulator answers."""

    api_url: str
    proxy_url: str
    control_url: str
    token: str

    def __repr__(self) -> str:
        return f"EmulatorAddress({self.api_url})"


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a controller tells its workers; travels as JSON in xdist's workerinput.

    Attributes:
        run_id: Of the run.
        directory: Shared by the run's processes on this computer; empty for a worker on another
            one, which takes one of its own.
        emulator: None unless local.
        shard: Of several shards with one run id, this one; empty if the run is the only one.
    """

    run_id: str
    directory: str
    emulator: EmulatorAddress | None = None
    shard: str = ""


class Launched(msgspec.Struct, frozen=True, kw_only=True):
    """A sandbox that is ready, as the workers tell each other.

    Attributes:
        app: App of the machine.
        machine_id: Its id.
        name: Its name.
        region: Where it was placed.
        private_ip: Its 6PN address.
        workdir: Absolute path of the workspace in the machine.
        channel: `agent` or `api`: how the handle gets in.
        tools: What the way over the API found in the machine; see `Runner.tools`.
        volume_id: Volume that lives as long as the machine, or empty.
    """

    app: str
    machine_id: str
    name: str
    region: str
    private_ip: str = ""
    workdir: str
    channel: str
    tools: str = ""
    volume_id: str = ""


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """A machine that may exist: noted before its create is sent, and when more is known of it.

    Attributes:
        app: App of the machine.
        name: Its name, by which it is found when nothing else is known.
        machine_id: Empty until the create was answered.
        volume_id: Its volume, or empty.
        adopted: Another host's part of the run made it.
        over: It is gone again, or never came to be.
        hourly_usd: Its price while it runs; None where it is not known.
        began: Seconds since the epoch when the create was answered.
    """

    app: str
    name: str
    machine_id: str = ""
    volume_id: str = ""
    adopted: bool = False
    over: bool = False
    hourly_usd: float | None = None
    began: float = 0.0


class _State(msgspec.Struct, frozen=True, kw_only=True):
    """Of one sandbox: it is ready, or failed to start, or died and is not replaced."""

    launched: Launched | None = None
    failed: str | None = None
    lost: str | None = None


class SharedState:
    """The run's directory, as every process of the run uses it.

    Args:
        directory: Shared by the run's processes on this computer; made 0700 if missing.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def attach_or_launch(self, key: str, launch: Callable[[], Launched]) -> Launched:
        """What the state file of `key` says, else the result of `launch`.

        Raises:
            MachineStartFailed: The launch failed, here or in another worker.
            MachineGone: The machine died, and the run goes on without.
        """
        with self._lock(key):
            state = self._read(key)
            if state is None:
                return self._launch(key, launch)
        if state.launched is not None:
            return state.launched
        if state.lost is not None:
            raise LostBefore(state.lost)
        raise FailedBefore(f"this sandbox failed to start before in this run: {state.failed}")

    def _launch(self, key: str, launch: Callable[[], Launched]) -> Launched:
        if (self.directory / _ENDED).exists():
            raise MachineStartFailed("the run is ending: nothing is launched any more")
        try:
            launched = launch()
        except FlyMachinesError as error:
            self._write(self._path(key), _State(failed=str(error)))
            raise
        self._write(self._path(key), _State(launched=launched))
        return launched

    def lose(self, key: str, machine_id: str, why: str, *, replace: bool) -> None:
        """Note that a machine died; no effect when another worker did so already.

        Args:
            key: Of the sandbox.
            machine_id: Of the machine that died.
            why: For whoever asks for this sandbox from now on.
            replace: Forget it instead, so that the next one who asks launches again.
        """
        with self._lock(key):
            state = self._read(key)
            if state is None or state.launched is None or state.launched.machine_id != machine_id:
                return
            if replace:
                self._path(key).unlink()
            else:
                self._write(self._path(key), _State(lost=why))

    def version(self, key: str) -> tuple[int, int] | None:
        """Differs after each change of what is known of `key`; None where nothing is."""
        try:
            found = self._path(key).stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns

    def intend(self, intent: Intent, allowed: Callable[[list[Intent]], None] | None = None) -> None:
        """Note that a machine of this name may exist from now on, or what became of it.

        Args:
            intent: What is known.
            allowed: Sees what was noted before, and may raise to refuse.
        """
        with self._lock("intents"):
            if allowed:
                allowed(self.intents())
            path = self.directory / f"{intent.name}.intent"
            with suppress(FileNotFoundError):
                before = msgspec.json.decode(path.read_bytes(), type=Intent)
                if before.machine_id not in ("", intent.machine_id):
                    # the name of a machine that died serves again, but that one was used, too
                    path.rename(self.directory / f"{intent.name}.{before.machine_id}.intent")
            self._write(path, intent)

    def intents(self) -> list[Intent]:
        """Every machine that may exist, or did."""
        return [
            msgspec.json.decode(path.read_bytes(), type=Intent)
            for path in sorted(self.directory.glob("*.intent"))
        ]

    def end(self) -> None:
        """From now on nothing is launched."""
        self.directory.joinpath(_ENDED).touch()

    def _lock(self, name: str) -> FileLock:
        from filelock import FileLock

        return FileLock(self.directory / f"{name}.lock")

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}.state"

    def _read(self, key: str) -> _State | None:
        try:
            return msgspec.json.decode(self._path(key).read_bytes(), type=_State)
        except FileNotFoundError:
            return None

    def _write(self, path: Path, data: object) -> None:
        """Whole or not at all, and readable by this user only."""
        handle, name = tempfile.mkstemp(dir=self.directory)
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode(data))
        Path(name).replace(path)
