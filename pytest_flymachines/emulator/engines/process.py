"""Machines without walls: a tree of processes in a directory of their own."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path

from pytest_flymachines.emulator.engines import cgroups, trial
from pytest_flymachines.emulator.engines.base import (
    Door,
    EngineError,
    ExecOutcome,
    GuestMount,
    MachineConfigForEngine,
    Probe,
)
from pytest_flymachines.emulator.engines.removal import remove_tree
from pytest_flymachines.emulator.engines.spawner import Spawner
from pytest_flymachines.emulator.engines.start_request import files_field, programs_field
from pytest_flymachines.emulator.engines.supervised import SupervisedMachine

__all__ = ["ProcessEngine", "ProcessMachine"]

_NOTES = (
    "no isolation: what runs in a machine can do to this computer what you can do",
    "a machine's own files lie below its $PYTEST_FLYMACHINES_ROOT: other paths are this computer's",
    "a machine should listen on its $PYTEST_FLYMACHINES_BIND: other addresses are everybody's",
)
_FIRST_ADDRESS = int(IPv4Address("127.64.0.1"))
_ADDRESSES = 2**22 - 2


class ProcessEngine:
    """The last resort: no image, no walls; see `docs/engines.md`.

    A machine's processes find its directory, which stands for `/`, in PYTEST_FLYMACHINES_ROOT:
    files of the config and mounts are below it, HOME and TMPDIR too. PYTEST_FLYMACHINES_BIND is
    an address of 127.0.0.0/8 that no other machine has.

    Args:
        directory: For what all machines share; private to the user.
    """

    name = "process"
    honours_image = False
    takes_devices = False
    sizes_root = False

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._spawner: Spawner | None = None
        self._groups: cgroups.Groups | None = None

    async def admit(self, doors: Sequence[Door]) -> None:
        """As in `Engine.admit`; machines have this computer's network and name servers."""

    async def open(self, door: Door) -> None:
        """As in `Engine.open`: nothing of the kind."""

    async def peer(self, address: str) -> str:
        """As in `Engine.peer`: machines are seen as what they are."""
        return address

    async def probe(self) -> Probe:
        """As in `Engine.probe`."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            outcome, no_disk = await trial.with_disk_or_without(self._try_one)
        except (EngineError, OSError) as error:
            return Probe(works=False, why=str(error))
        if outcome.exit_code != 0:
            return Probe(works=False, why=f"`true` in a machine ended as {outcome}")
        self.takes_devices = not no_disk
        limited = self._groups is not None and self._groups.limits
        notes = _NOTES if limited else (*_NOTES, cgroups.NO_LIMITS)
        return Probe(works=True, notes=notes + trial.unlimited(no_disk))

    async def _try_one(self, disk: bool) -> ExecOutcome:
        async with trial.machine(self, disk=disk, below=self._directory) as machine:
            return await machine.exec(["true"], timeout_s=trial.TIMEOUT_S)

    async def resolve_image(self, image: str) -> str:
        """A digest made of the name: this computer's files are the image."""
        return "sha256:" + hashlib.sha256(image.encode()).hexdigest()

    async def image_config(self, image: str) -> bytes:
        """Nothing: there are no images."""
        raise EngineError(f"config of image {image}: the engine {self.name} has no images")

    async def start(self, machine: MachineConfigForEngine) -> ProcessMachine:
        """As in `Engine.start`."""
        for program in (machine, *machine.others):
            if program.user not in {None, "", "root", "0"}:
                raise EngineError(f"user {program.user!r}: the process engine cannot change users")
        if self._spawner is None or self._groups is None:
            self._groups = cgroups.find()
            self._spawner = Spawner(self._groups.parents)
        root = machine.directory / "root"
        await asyncio.to_thread(_make_directories, root, machine)
        if isinstance(machine.beside, ProcessMachine):
            address, groups = machine.beside.address, machine.beside.groups
        else:
            address = str(IPv4Address(_FIRST_ADDRESS + secrets.randbelow(_ADDRESSES)))
            groups = self._groups.of(machine.id)
        running = ProcessMachine(self._spawner, machine, groups, address)
        await running.start(
            bwrap=None,
            root=str(root),
            root_directories=[],
            files=files_field(machine.files),
            limits={},
            programs=programs_field(machine, lambda env: _environment(root, address, env)),
            env=_environment(root, address, machine.env),
        )
        return running

    async def discard(self, directory: Path) -> None:
        """As in `Engine.discard`."""
        await asyncio.to_thread(remove_tree, directory)

    async def close(self) -> None:
        """As in `Engine.close`."""
        if self._spawner is not None:
            await self._spawner.close()
            self._spawner = None


class ProcessMachine(SupervisedMachine):
    """A machine of the process engine; its processes find its `address` in their environment."""

    def __init__(
        self,
        spawner: Spawner,
        config: MachineConfigForEngine,
        groups: cgroups.MachineGroups,
        address: str,
    ) -> None:
        super().__init__(spawner, config, groups)
        self.address = address

    @property
    def root(self) -> Path:
        """Its own directory: nothing of this computer's files beside it."""
        return self.config.directory / "root"

    def place_of(self, mount: GuestMount) -> Path:
        """Where its supervisor, whose mounts are its own, has it."""
        return Path(f"/proc/{self.supervisor}/root") / mount.source.resolve().relative_to("/")

    async def connect(self, port: int) -> socket.socket:
        """As in `RunningMachine.connect`; only to what a process of this machine listens on."""
        listening = {
            address.rpartition(":")[0].strip("[]")
            for process in await self.processes()
            for _, address in process.listen_sockets
            if address.endswith(f":{port}")
        }
        everywhere = {"0.0.0.0", "::", self.address}
        if listening & everywhere:
            return await self.connect_to([self.address, "127.0.0.1", "::1"], port)
        return await self.connect_to(sorted(listening), port)

    async def datagrams(self, port: int) -> socket.socket:
        """As in `RunningMachine.datagrams`: at its own address."""
        return await self.datagrams_to(self.address, port)


def _environment(root: Path, address: str, wanted: Mapping[str, str]) -> dict[str, str]:
    own = {
        "PYTEST_FLYMACHINES_ROOT": str(root),
        "PYTEST_FLYMACHINES_BIND": address,
        "HOME": str(root / "root"),
        "TMPDIR": str(root / "tmp"),
    }
    return {"PATH": os.environ.get("PATH", os.defpath), **wanted, **own}


def _make_directories(root: Path, machine: MachineConfigForEngine) -> None:
    for name in ("root", "tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for mount in machine.mounts:
        _link_mount(root, mount)


def _link_mount(root: Path, mount: GuestMount) -> None:
    path = root / mount.path.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(mount.source.resolve(), target_is_directory=True)
