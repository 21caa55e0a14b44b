"""One machine for all workers: a lock and a state file per spec, in the run's directory.

The lock is the kernel's, so it ends with its process, however that ends. Whoever holds it
and finds no state file launches; everybody else attaches to what the file says. A launch
that failed is written down too, so that the others fail at once, for the same reason.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
from filelock import FileLock

from pytest_flymachines.errors import FlyMachinesError, MachineStartFailed

__all__ = ["EmulatorAddress", "Intent", "Launched", "RunInfo", "SharedState"]


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
        directory: Shared by the run's processes on this computer.
        emulator: None unless local.
    """

    run_id: str
    directory: str
    emulator: EmulatorAddress | None = None


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
        volume_id: Volume that lives as long as the machine, or empty.
        foreign_agent: A cook-agent that is not ours listens on 7422.
    """

    app: str
    machine_id: str
    name: str
    region: str
    private_ip: str = ""
    workdir: str
    channel: str
    volume_id: str = ""
    foreign_agent: bool = False


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """Written before a create is sent, so that the end of the run knows where to look."""

    app: str
    name: str


class _State(msgspec.Struct, frozen=True, kw_only=True):
    launched: Launched | None = None
    failed: str | None = None


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
        """
        with FileLock(self.directory / f"{key}.lock"):
            state = self._read(key)
            if state is not None and state.launched is not None:
                return state.launched
            if state is not None:
                raise MachineStartFailed(
                    f"this sandbox failed to start before in this run: {state.failed}"
                )
            try:
                launched = launch()
            except FlyMachinesError as error:
                self._write(self._path(key), _State(failed=str(error)))
                raise
            self._write(self._path(key), _State(launched=launched))
            return launched

    def drop(self, key: str, machine_id: str) -> bool:
        """Forget a machine that died, so that the next one who asks launches again.

        False when another worker did so already.
        """
        with FileLock(self.directory / f"{key}.lock"):
            state = self._read(key)
            if state is None or state.launched is None or state.launched.machine_id != machine_id:
                return False
            self._path(key).unlink()
            return True

    def intend(self, intent: Intent) -> None:
        """Note that a machine of this name may exist from now on."""
        self._write(self.directory / f"{intent.name}.intent", intent)

    def intents(self) -> list[Intent]:
        """Every machine that may exist."""
        return [
            msgspec.json.decode(path.read_bytes(), type=Intent)
            for path in sorted(self.directory.glob("*.intent"))
        ]

    def launched(self) -> list[Launched]:
        """Every sandbox that is ready now."""
        states = [
            msgspec.json.decode(path.read_bytes(), type=_State)
            for path in sorted(self.directory.glob("*.state"))
        ]
        return [state.launched for state in states if state.launched is not None]

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
